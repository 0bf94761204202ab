"""The sheet of a Sparse DETR's attention."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")
pytest.importorskip("matplotlib", reason="the sheet is drawn with matplotlib")

from edgekit.data.datasets import open_dataset  # noqa: E402
from edgekit.learning.attention_plot import TITLES, draw_attention  # noqa: E402
from edgekit.models.masked_detector import MaskedDetector  # noqa: E402
from edgekit.models.registry import build  # noqa: E402


def test_a_row_for_each_picture(tmp_path: Path, shapes: Path) -> None:
    model = build("sparse-detr-mobilenetv2-omg", ("box", "disc"), size=64)
    draw_attention(model, open_dataset(shapes, "val"), tmp_path / "attention.png")
    picture = cv2.imread(str(tmp_path / "attention.png"))
    height, width = picture.shape[:2]
    assert height > 300
    columns = np.array_split(picture, len(TITLES), axis=1)
    assert width == pytest.approx(3 * len(TITLES) * 110, abs=2)
    assert all(np.abs(columns[0].astype(int)[:, : column.shape[1]] - column[:, : columns[0].shape[1]]).max() > 50
               for column in columns[1:])  # fmt: skip
    assert model.training


def test_a_dense_encoder_prefers_nothing(tmp_path: Path, shapes: Path) -> None:
    spec = build("sparse-detr-mobilenetv2-omg", ("box", "disc"), size=64).spec
    assert spec.detr is not None
    dense = MaskedDetector(replace(spec, detr=replace(spec.detr, token_share=None)))
    with pytest.raises(ValueError, match="refines all tokens"):
        draw_attention(dense, open_dataset(shapes, "val"), tmp_path / "attention.png")

"""From the scores of prompts to a map of classes."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")

from edgekit.labelling.classes import best_of_prompts  # noqa: E402


def test_of_prompts_the_best_counts_and_the_backgrounds_are_nothing() -> None:
    scores = torch.tensor([0.5, 0.6, 0.7, 0.2, 0.65])[:, None, None].repeat(1, 2, 3)
    scores[4, 0, 0] = 0.8  # road
    labels, confidence = best_of_prompts(scores, {"car": ("car", "truck"), "dog": ("dog",), "background": ("road",)})
    assert labels.tolist() == [[0, 1, 1], [1, 1, 1]]
    assert confidence[0, :2] == pytest.approx([0.8, 0.7])

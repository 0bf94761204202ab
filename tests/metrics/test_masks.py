"""Active share and recall over several images."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.metrics.masks import MaskMeter


def boxes(*rows: tuple[float, float, float, float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


def test_shares_are_averaged_over_images_and_recall_over_boxes() -> None:
    left_half = np.zeros((20, 20), np.bool_)
    left_half[:, :10] = True
    meter = MaskMeter()
    # 70 % of the first box is active, 69 % of the second, nothing of the third.
    meter.add(left_half, boxes((90, 0, 190, 50), (91, 0, 191, 50), (200, 0, 300, 50)), height=320, width=320)
    meter.add(np.ones((20, 20), np.bool_), boxes((0, 0, 5, 5)), height=320, width=320)
    meter.add(np.zeros((20, 20), np.bool_), boxes(), height=320, width=320)
    result = meter.result()
    assert result.active_share == pytest.approx(0.5)
    assert result.mask_recall == pytest.approx(2 / 4)
    assert (result.images, result.boxes, result.lost) == (3, 4, 2)


def test_no_box_to_lose() -> None:
    meter = MaskMeter()
    meter.add(np.zeros((20, 20), np.bool_), boxes(), height=320, width=320)
    assert meter.result().mask_recall == 1


def test_nothing_added() -> None:
    with pytest.raises(ValueError, match="no mask was added"):
        MaskMeter().result()

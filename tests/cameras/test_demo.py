"""The made-up camera: the same frames for the same seed, and boxes that are really there."""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from edgekit.cameras import open_source
from edgekit.cameras.demo import FRAMES, HEIGHT, WIDTH, DemoCamera
from edgekit.cameras.demo_scene import background
from edgekit.errors import MissingDependencyError, SourceError


@pytest.fixture(scope="module", autouse=True)
def _photographs() -> None:
    pytest.importorskip("skimage", reason="the demo's photographs come with the extra [demo]")


def test_ten_seconds_of_rgb_frames() -> None:
    with open_source("demo") as source:
        assert (source.live, source.fps, source.frame_count) == (False, 15.0, 150)
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(FRAMES))
    assert frames[30].time_s == pytest.approx(2.0)
    assert all(frame.image.shape == (HEIGHT, WIDTH, 3) and frame.image.dtype == np.uint8 for frame in frames)
    assert {name for frame in frames for name in frame.truth_classes or ()} == {"person", "cat"}


def test_same_seed_same_frames_other_seed_others() -> None:
    one, again, other = (next(islice(open_source(name), 60, None)) for name in ("demo:3", "demo:3", "demo"))
    assert np.array_equal(one.image, again.image)
    assert one.truth_xyxy is not None
    assert again.truth_xyxy is not None
    assert np.array_equal(one.truth_xyxy, again.truth_xyxy)
    assert not np.array_equal(one.image, other.image)
    assert (one.source, other.source) == ("demo:3", "demo")


@pytest.mark.parametrize("seed", range(6))
def test_boxes_lie_inside_the_frame_and_objects_move_slowly(seed: int) -> None:
    before = None
    for frame in DemoCamera(seed=seed):
        boxes = frame.truth_xyxy
        assert boxes is not None
        assert len(boxes) == len(frame.truth_classes or ())
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2] <= WIDTH).all()
        assert (boxes[:, 3] <= HEIGHT).all()
        sides = boxes[:, 2:] - boxes[:, :2]
        assert sides.min() >= 60
        assert sides[:, 1].max() <= 265
        if before is not None and before.shape == boxes.shape:
            assert np.abs(boxes - before).max() < 12
        before = boxes


def test_boxes_are_tight_around_what_was_pasted() -> None:
    frame = list(DemoCamera())[-1]
    assert frame.truth_xyxy is not None
    changed = np.abs(frame.image.astype(int) - background(height=HEIGHT, width=WIDTH)).max(axis=2) > 24
    left, top, right, bottom = frame.truth_xyxy[1]  # the man with the camera, who stands free of the others
    rows, columns = np.nonzero(changed[200:, : int(right) + 12])
    assert (columns.min(), columns.max() + 1) == pytest.approx((left, right), abs=4)
    assert (rows.min() + 200, rows.max() + 201) == pytest.approx((top, bottom), abs=4)


def test_background_is_still() -> None:
    first, last = next(iter(DemoCamera())), list(DemoCamera())[-1]
    corner = (slice(200, 230), slice(0, 100))
    assert np.array_equal(first.image[corner], last.image[corner])


def test_loop_begins_again_and_counts_on() -> None:
    with open_source("demo", loop=True) as source:
        frames = list(islice(source, FRAMES + 2))
    assert frames[-1].index == FRAMES + 1
    assert np.array_equal(frames[1].image, frames[-1].image)
    assert frames[-1].time_s > frames[FRAMES - 1].time_s


def test_scikit_image_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "skimage"]:
        monkeypatch.delitem(sys.modules, name)
    DemoCamera()
    assert "skimage" not in sys.modules  # it takes a second, and only its files are needed


def test_without_scikit_image_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(MissingDependencyError, match=r"edgekit-vision\[demo\]"):
        open_source("demo")


def test_scikit_image_without_the_photographs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "skimage").mkdir()
    (tmp_path / "skimage" / "__init__.py").touch()
    for name in [name for name in sys.modules if name.partition(".")[0] == "skimage"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SourceError, match=r"does not carry brick\.png"):
        open_source("demo")

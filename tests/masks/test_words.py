"""A segmenter as the mask of a detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the miniature is made with PyTorch")

from edgekit.data.letterbox import letterbox
from edgekit.errors import UsageError
from edgekit.masks.expression import AnyOf, Named, Tcl, keyframe_of, parse_expression
from edgekit.masks.pyramid import Mask
from edgekit.masks.sources import MaskInput, MaskSource, parse_mask_source
from edgekit.masks.words import any_in_cells
from edgekit.spec import AnchorLevel, DetectorSpec

SPEC = DetectorSpec(
    model="tiny", classes=("thing",), height=128, width=128,
    anchors=(AnchorLevel(rows=8, columns=8, sizes=((16.0, 16.0),)),), mask_grid=(8, 8),
)  # fmt: skip


def frame(left: int, *, time_s: float | None, height: int = 96) -> MaskInput:
    """A red box 40 pixels wide and high, 28 from above, in a picture 128 pixels wide."""
    image = np.random.default_rng(3).integers(90, 150, (height, 128, 3), dtype=np.uint8)
    image[28:68, left : left + 40] = (220, 30, 30)
    boxed = letterbox(image, height=128, width=128)
    return MaskInput(letterboxed=boxed, spec=SPEC, objectness=lambda: np.zeros((8, 8), np.float32), time_s=time_s)


def columns(mask: Mask) -> list[int]:
    return np.flatnonzero(mask.any(axis=0)).tolist()


@pytest.fixture
def source(word_bundle: Path) -> MaskSource:
    return parse_mask_source(f"tcl({word_bundle}:2)", SPEC)


def test_cells_around_what_is_found_and_never_the_padding(source: MaskSource) -> None:
    mask = source(frame(16, time_s=0.0))  # lies 16 pixels below its upper bar: rows 44 to 84, columns 16 to 56
    assert mask[2:6, 1:4].all()
    assert not mask[:, 5:].any()
    assert not mask[0].any()
    assert not mask[7].any()


def test_it_stands_until_its_time_is_over(source: MaskSource) -> None:
    first = source(frame(0, time_s=10.0))
    assert 7 not in columns(first)
    first[:] = True  # a mask that is handed out is the caller's
    assert 7 not in columns(source(frame(88, time_s=11.9)))
    assert 7 in columns(source(frame(88, time_s=12.0)))
    assert 0 in columns(source(frame(0, time_s=3.0)))  # a file that begins again


def test_pictures_without_a_time_are_each_looked_at(source: MaskSource) -> None:
    assert 7 not in columns(source(frame(0, time_s=None)))
    assert 7 in columns(source(frame(88, time_s=None)))


def test_another_size_is_looked_at_at_once(source: MaskSource) -> None:
    source(frame(0, time_s=1.0))
    mask = source(frame(88, time_s=1.1, height=128))
    assert 7 in columns(mask)


def test_cells_hold_any_pixel_whatever_their_size() -> None:
    pixels = np.zeros((10, 7), np.bool_)
    pixels[9, 2] = pixels[0, 6] = True
    assert any_in_cells(pixels, (5, 3)).tolist() == [
        [False, False, True], [False] * 3, [False] * 3, [False] * 3, [False, True, False],
    ]  # fmt: skip
    assert any_in_cells(pixels, (10, 7)).tolist() == pixels.tolist()


def test_how_it_is_written() -> None:
    assert parse_expression("tcl(a.edgekit)") == Tcl("a.edgekit")
    assert parse_expression("tcl( b/a.edgekit : 0.5 s ) | motion") == AnyOf((Tcl("b/a.edgekit", 0.5), Named("motion")))
    assert parse_expression('tcl("a (1).edgekit:2")') == Tcl("a (1).edgekit", 2.0)
    assert keyframe_of(parse_expression("tcl(a.edgekit) | motion")) == Tcl("a.edgekit")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("tcl", r"expected \(FILE.edgekit\) after tcl"),
        ("tcl(a.json)", "a bundle that ends in .edgekit"),
        ("tcl(a.edgekit:soon)", "expected seconds"),
        ("tcl(a.edgekit:-1)", "expected seconds"),
        ("tcl(a.edgekit", "closing parenthesis"),
        ("tcI(a.edgekit)", "did you mean 'tcl'"),
    ],
)
def test_what_is_not_understood(text: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        parse_expression(text)


def test_a_detector_s_bundle_is_no_mask() -> None:
    from edgekit.models.default import default_bundle

    with pytest.raises(UsageError, match="detects objects"):
        parse_mask_source(f'tcl("{default_bundle()}")', SPEC)

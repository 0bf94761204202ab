"""Polygon files: what they mean and what is wrong with bad ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.data.letterbox import letterbox
from edgekit.errors import UsageError
from edgekit.masks.polygon import Polygon, polygons_to_mask, read_polygons

SQUARE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]


def read(folder: Path, document: Any) -> tuple[Polygon, ...]:
    path = folder / "zones.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return read_polygons(path)


def mask_of(*polygons: list[list[float]], height: int = 100, width: int = 100) -> list[str]:
    letterboxed = letterbox(np.zeros((height, width, 3), np.uint8), height=100, width=100)
    mask = polygons_to_mask(tuple(np.array(polygon) for polygon in polygons), letterboxed, grid=5)
    return ["".join(".#"[int(cell)] for cell in row) for row in mask]


def test_normalised_is_the_default(tmp_path: Path) -> None:
    assert read(tmp_path, {"polygons": [SQUARE]})[0].tolist() == SQUARE
    assert read(tmp_path, {"polygons": [SQUARE], "normalised": True})[0].tolist() == SQUARE


def test_pixels_become_shares(tmp_path: Path) -> None:
    document = {"polygons": [[[0, 0], [64, 0], [64, 24]]], "normalised": False, "width": 128, "height": 48}
    assert read(tmp_path, document)[0].tolist() == [[0, 0], [0.5, 0], [0.5, 0.5]]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "are not JSON"),
        ("[" * 100_000, "are not JSON"),
        ([], 'expected {"polygons": [[[x, y], ...], ...]}'),
        ({"polygons": []}, "with at least one polygon"),
        ({"polygons": SQUARE, "zones": 1}, "unknown zones; the keys are height, normalised, polygons, width"),
        ({"polygons": [SQUARE[:2]]}, "polygons[0] must be a list of at least 3 [x, y] corners"),
        ({"polygons": [SQUARE, [1, 2, 3]]}, "polygons[1][0] must be [x, y] in numbers, got 1"),
        ({"polygons": [[*SQUARE, [0, "x"]]]}, "polygons[0][4] must be [x, y] in numbers, got [0, 'x']"),
        ({"polygons": [[*SQUARE, [0, True]]]}, "polygons[0][4] must be [x, y] in numbers"),
        ({"polygons": [[*SQUARE, [0, float("nan")]]]}, "polygons[0][4] must be [x, y] in numbers, got [0, nan]"),
        ({"polygons": [[*SQUARE, [0, 1.5]]]}, "polygons[0][4] = [0, 1.5] lies outside 0..1 (normalised)"),
        ({"polygons": [SQUARE], "normalised": 1}, "normalised must be true or false, got 1"),
        ({"polygons": [SQUARE], "normalised": False}, "width must be a whole number of pixels, got None"),
        ({"polygons": [SQUARE], "normalised": False, "width": 9, "height": 0}, "height must be a whole number"),
        (
            {"polygons": [[[0, 0], [9, 0], [9, 11]]], "normalised": False, "width": 9, "height": 10},
            "polygons[0][2] = [9, 11] lies outside the picture of 9 x 10 pixels",
        ),
        ({"polygons": [[[0, 0], [0.5, 0], [1, 0]]]}, "polygons[0] covers no area"),
    ],
)
def test_malformed_files(tmp_path: Path, document: Any, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        read(tmp_path, document)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        read_polygons(tmp_path / "absent.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="are not JSON"):
        read_polygons(tmp_path / "binary.json")


def test_cells_under_a_polygon() -> None:
    assert mask_of([[0.2, 0.2], [0.6, 0.2], [0.6, 0.4], [0.2, 0.4]]) == [".....", ".##..", ".....", ".....", "....."]


def test_a_cell_is_active_as_soon_as_a_pixel_is() -> None:
    assert mask_of([[0.2, 0.2], [0.61, 0.2], [0.61, 0.4], [0.2, 0.4]])[1] == ".###."


def test_several_polygons_unite() -> None:
    first, second = [[0, 0], [0.2, 0], [0.2, 0.2]], [[0.8, 0.8], [1, 0.8], [1, 1]]
    assert mask_of(first, second) == ["#....", ".....", ".....", ".....", "....#"]


def test_a_whole_picture_leaves_the_padding_out() -> None:
    assert mask_of(SQUARE, height=60) == [".....", "#####", "#####", "#####", "....."]


def test_a_crossing_outline_follows_the_even_odd_rule() -> None:
    bow_tie = [[0, 0], [1, 1], [1, 0], [0, 1]]
    assert mask_of(bow_tie) == ["#...#", "##.##", "#####", "##.##", "#...#"]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=8))
def test_corners_in_the_other_direction_give_the_same_mask(corners: list[tuple[float, float]]) -> None:
    forward = [list(corner) for corner in corners]
    assert mask_of(forward) == mask_of(forward[::-1])

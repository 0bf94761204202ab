"""The cells under polygons, and the file that they come from."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.data.letterbox import letterbox
from edgekit.errors import UsageError
from edgekit.masks.polygon import Region, polygons_to_mask
from edgekit.tracking.zones_file import ZonesFile

SQUARE = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]


def mask_of(*polygons: list[list[float]], height: int = 100, width: int = 100) -> list[str]:
    letterboxed = letterbox(np.zeros((height, width, 3), np.uint8), height=100, width=100)
    mask = polygons_to_mask(tuple(np.array(polygon) for polygon in polygons), letterboxed, grid=(5, 5))
    return ["".join(".#"[int(cell)] for cell in row) for row in mask]


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


def write(path: Path, *names: str) -> Path:
    """A file with a zone of each name, the first as wide as a tenth of the picture, the second as two, and so on."""
    polygons = [[[0, 0], [n / 10, 0], [n / 10, 1]] for n in range(1, len(names) + 1)]
    path.with_suffix(".new").write_text(json.dumps({"polygons": polygons, "names": names}))
    return path.with_suffix(".new").replace(path)


def widths(region: Region) -> list[float]:
    return [float(polygon[:, 0].max()) for polygon in region.polygons]


def test_a_region_is_all_zones_of_a_file_or_one(tmp_path: Path) -> None:
    path = write(tmp_path / "zones.json", "door", "drive")
    assert widths(Region(ZonesFile(path))) == [0.1, 0.2]
    assert widths(Region(ZonesFile(path), "drive")) == [0.2]


def test_a_region_follows_its_file(tmp_path: Path) -> None:
    path = write(tmp_path / "zones.json", "door", "drive")
    region = Region(ZonesFile(path), "drive")
    assert not region.refresh()
    write(path, "door", "yard", "drive")
    assert region.refresh()
    assert widths(region) == [pytest.approx(0.3)]


def test_a_region_whose_zone_is_gone_stays_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "zones.json", "door", "drive")
    caplog.set_level(logging.WARNING, logger="edgekit")
    region = Region(ZonesFile(path), "drive")
    write(path, "door")
    assert not any(region.refresh() for _ in range(3))
    assert widths(region) == [0.2]
    (record,) = caplog.records
    assert "the mask stays as it was" in record.message
    assert "has no zone called 'drive'" in record.message
    path.write_text("{")
    assert not region.refresh()
    assert widths(region) == [0.2]


@pytest.mark.parametrize(("name", "hint"), [("dor", "did you mean 'door'"), ("x", "there are: door, drive")])
def test_a_zone_that_is_not_there(tmp_path: Path, name: str, hint: str) -> None:
    path = write(tmp_path / "zones.json", "door", "drive")
    with pytest.raises(UsageError, match=f"has no zone called '{name}': {hint}"):
        Region(ZonesFile(path), name)


def test_regions_of_one_file_all_follow_it(tmp_path: Path) -> None:
    path = write(tmp_path / "zones.json", "door", "drive")
    file = ZonesFile(path)
    every, one = Region(file), Region(file, "drive")
    write(path, "door", "yard", "drive")
    assert every.refresh()
    assert one.refresh()
    assert not every.refresh()
    assert widths(one) == [pytest.approx(0.3)]

"""Pictures from folders, globs and single files."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.cameras import open_source
from edgekit.cameras.images import natural_key
from edgekit.errors import SourceError

ORANGE = (250, 120, 10)  # RGB


def save(path: Path, *, height: int = 20, width: int = 30) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.full((height, width, 3), ORANGE[::-1], np.uint8))
    return path


def test_folder_in_natural_order_without_other_files(tmp_path: Path) -> None:
    for name in ("10.png", "2.png", "1.PNG", "a/3.png"):
        save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no picture")
    with open_source(str(tmp_path)) as source:
        assert (source.live, source.fps, source.frame_count) == (False, None, 3)
        frames = list(source)
    assert [Path(frame.source).name for frame in frames] == ["1.PNG", "2.png", "10.png"]
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert frames[0].time_s == os.stat(tmp_path / "1.PNG").st_mtime
    assert tuple(frames[0].image[0, 0]) == ORANGE


def test_glob_descends(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png", "3.png"):
        save(tmp_path / name)
    assert len(list(open_source(f"{tmp_path}/*/*.png"))) == 2
    assert len(list(open_source(f"{tmp_path}/**/*.png"))) == 3


def test_a_file_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    assert len(list(open_source(str(save(tmp_path / "shot[1].png"))))) == 1


def test_single_picture_and_loop(tmp_path: Path) -> None:
    path = save(tmp_path / "one.png")
    with open_source(str(path), loop=True) as source:
        assert [frame.index for frame in islice(source, 3)] == [0, 1, 2]


@pytest.mark.parametrize(
    "picture",
    [
        np.full((8, 9), 77, np.uint8),
        np.full((8, 9), 77 * 257, np.uint16),
        np.full((8, 9, 4), (77, 77, 77, 10), np.uint8),
    ],
    ids=["grey", "16 bit", "alpha"],
)
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, picture: np.ndarray) -> None:
    cv2.imwrite(str(tmp_path / "p.png"), picture)
    image = next(open_source(str(tmp_path / "p.png"))).image
    assert image.dtype == np.uint8
    assert image.shape == (8, 9, 3)
    assert (image == 77).all()


def test_unreadable_picture_is_named(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    (tmp_path / "2.png").write_text("<html>not found</html>")
    source = open_source(str(tmp_path))
    next(source)
    with pytest.raises(SourceError, match=r"2\.png cannot be read as a picture: it looks like a text file .*<html>"):
        next(source)


def test_empty_picture_file(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    with pytest.raises(SourceError, match=r"1\.jpg cannot be read as a picture: the file is empty"):
        next(open_source(str(tmp_path / "1.jpg")))


def test_picture_that_vanished(tmp_path: Path) -> None:
    source = open_source(str(save(tmp_path / "1.png")))
    (tmp_path / "1.png").unlink()
    with pytest.raises(SourceError, match=r"1\.png cannot be read: No such file"):
        next(source)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no picture in the folder .*: it is empty"):
        open_source(str(tmp_path))


def test_folder_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    with pytest.raises(SourceError, match="its 1 entries have other names"):
        open_source(str(tmp_path))


def test_glob_without_match(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no picture matches .*/\*\.jpg"):
        open_source(f"{tmp_path}/*.jpg")


def test_missing_picture(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"there is no picture .*nothing\.jpg"):
        open_source(str(tmp_path / "nothing.jpg"))


@given(st.lists(st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1), max_size=8))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    ordered = sorted(map(Path, names), key=natural_key)
    assert sorted(ordered, key=natural_key) == ordered

"""Maps of classes over pictures: colours, blending, legends and files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.errors import StorageError
from edgekit.sinks.label_map import blend, colours, encode_labels, legend_over, with_legend, write_segments


def test_only_a_leading_background_has_no_colour() -> None:
    palette = colours(("background", *(f"thing {k}" for k in range(30))))
    assert palette[0].tolist() == [0, 0, 0]
    assert len({tuple(colour) for colour in palette.tolist()}) == 31
    assert all(colour.any() for colour in colours(("dog", "background")))


def test_background_pixels_stay() -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    palette = np.array([[0, 0, 0], [255, 0, 0]], np.uint8)
    mixed = blend(image, np.array([[0, 1], [0, 0]]), palette)
    assert mixed[0, 1].tolist() == [185, 45, 45]
    assert (mixed[[0, 1, 1], [0, 0, 1]] == 100).all()


def test_a_legend_is_below_in_any_script() -> None:
    image = np.full((60, 80, 3), 7, np.uint8)
    drawn = with_legend(image, [("собака 3%", (255, 0, 0)), ("犬", (0, 255, 0))])
    assert drawn.shape == (60 + 2 * 14, 80, 3)
    np.testing.assert_array_equal(drawn[:60], image)
    assert drawn[67, 7].tolist() == [255, 0, 0]
    np.testing.assert_array_equal(with_legend(image, []), image)


def test_a_legend_over_a_picture_leaves_its_size() -> None:
    image = np.full((60, 80, 3), 7, np.uint8)
    drawn = legend_over(image, [("a", (255, 0, 0)), ("b", (0, 255, 0))])
    assert drawn.shape == image.shape
    assert (image == 7).all()
    np.testing.assert_array_equal(drawn[:32], image[:32])
    assert drawn[39, 7].tolist() == [255, 0, 0]
    assert drawn[53, 7].tolist() == [0, 255, 0]
    assert (drawn[:, 79] == 7).all()
    many = legend_over(image, [("line", (255, 0, 0))] * 9)  # there is room for four
    assert (many[:4] == 7).all()
    np.testing.assert_array_equal(legend_over(image, []), image)


def test_label_files_hold_the_numbers(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [2, 2]])
    palette = colours(("background", "a", "b"))
    (tmp_path / "x.png").write_bytes(encode_labels(labels, palette))
    with Image.open(tmp_path / "x.png") as opened:
        assert opened.mode == "P"
        np.testing.assert_array_equal(np.array(opened), labels)
        np.testing.assert_array_equal(np.array(opened.convert("RGB"))[0, 1], palette[1])


def test_both_files_are_written(tmp_path: Path) -> None:
    image, labels = np.zeros((40, 50, 3), np.uint8), np.zeros((40, 50), np.int64)
    labels[:10] = 1
    names = ("background", "dog", "cat")
    files = write_segments(tmp_path / "out", "p", image, labels, names=names, palette=colours(names))
    assert files == {
        "picture": str(tmp_path / "out" / "p.segments.jpg"), "labels": str(tmp_path / "out" / "p.labels.png")
    }  # fmt: skip
    with Image.open(files["picture"]) as opened:
        assert opened.size == (50, 40 + 14)  # the dog alone is in the legend
    with pytest.raises(StorageError, match="the pictures of p could not be written into"):
        write_segments(Path(files["labels"]), "p", image, labels, names=names, palette=colours(names))

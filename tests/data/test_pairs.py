"""Captioned pictures from every layout that people have, and what is said when one is broken."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgekit.data.pairs import Pair, PairSet, join, open_pairs
from edgekit.data.shards import LARGEST_PART, find_shards, read_part, scan_shard
from edgekit.errors import DataError


def picture(shade: int, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), shade, np.uint8)).save(file, form)
    return file.getvalue()


def write_shard(path: Path, parts: dict[str, bytes], *, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in parts.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def write_coco(root: Path, *, image: str = "1.png", about: int = 7) -> Path:
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    (root / "images" / "1.png").write_bytes(picture(10))
    captions = [(about, "a dog"), (about, " "), (about, "a dog"), (about, "the dog sits ")]
    document = {
        "images": [{"id": 7, "file_name": image}],
        "annotations": [{"image_id": number, "caption": caption} for number, caption in captions],
    }
    (root / "annotations" / "captions_train.json").write_text(json.dumps(document))
    return root


def test_a_folder_of_pictures_and_texts(tmp_path: Path) -> None:
    for name, text in (("b", "a cat\n\n two cats \n"), ("a", "a dog"), ("blank", " \n")):
        (tmp_path / f"{name}.jpg").write_bytes(picture(50, "JPEG"))
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "alone.png").write_bytes(picture(1))
    found = open_pairs(str(tmp_path))
    assert [(pair.path.name, pair.captions) for pair in found.pairs] == [
        ("a.jpg", ("a dog",)), ("b.jpg", ("a cat", "two cats")),
    ]  # fmt: skip
    assert found.pairs[0].read().shape == (6, 8, 3)
    assert found.name == tmp_path.name


@pytest.mark.parametrize("where", ["", "annotations/captions_train.json"])
def test_coco_captions(tmp_path: Path, where: str) -> None:
    root = write_coco(tmp_path / "coco")
    (pair,) = open_pairs(str(root / where)).pairs
    assert pair.captions == ("a dog", "the dog sits")
    assert pair.read()[0, 0].tolist() == [10, 10, 10]


@pytest.mark.parametrize("text", ["{}/shards", "{}/shards/*.tar", "{}/shards/0.tar"])
def test_shards(tmp_path: Path, text: str) -> None:
    (tmp_path / "shards").mkdir()
    write_shard(
        tmp_path / "shards" / "0.tar",
        {
            "x/001.jpg": picture(20, "JPEG"), "x/001.txt": b"a bird\na red bird", "x/001.json": b"{}",
            "002.PNG": picture(30), "002.txt": b" ", "003.txt": b"no picture", "004.png": picture(40),
            "005.webp": picture(60, "WEBP"), "005.txt": "ein Mädchen".encode(),
        },
    )  # fmt: skip
    found = open_pairs(text.format(tmp_path))
    assert [pair.captions for pair in found.pairs] == [("a bird", "a red bird"), ("ein Mädchen",)]
    assert abs(int(found.pairs[0].read()[0, 0, 0]) - 20) <= 2
    assert abs(int(found.pairs[1].read()[0, 0, 0]) - 60) <= 4
    assert "(1 shards)" in found.name


def test_class_names_become_captions(tmp_path: Path) -> None:
    root = write_coco(tmp_path / "coco")
    boxes = [(1, 0), (2, 1), (3, 0), (3, 0)]
    document = {
        "images": [{"id": 7, "file_name": "1.png", "width": 8, "height": 6}],
        "annotations": [
            {"id": k, "image_id": 7, "category_id": number, "bbox": [1, 1, 4, 4], "ignore": ignore}
            for k, (number, ignore) in enumerate(boxes)
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}, {"id": 3, "name": "red car"}],
    }
    (root / "annotations" / "instances_train.json").write_text(json.dumps(document))
    (pair,) = open_pairs(f"classes:{root}").pairs
    assert pair.captions == ("a photo of a dog.", "a photo of a red car.")
    joined = join([open_pairs(f"classes:{root}"), open_pairs(str(root))])
    assert len(joined) == 2
    assert joined.name == "coco train (class names) + coco train (captions)"


def test_videos_have_no_class_captions(pets09: Path) -> None:
    with pytest.raises(DataError, match="is a video; class names are taken from pictures"):
        open_pairs(f"classes:{pets09}")


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no pairs: it does not exist"):
        open_pairs(str(tmp_path / "none"))
    with pytest.raises(DataError, match="holds no picture with a caption"):
        open_pairs(str(tmp_path))


def test_broken_captions_are_named(tmp_path: Path) -> None:
    file = tmp_path / "captions.json"
    with pytest.raises(DataError, match=r"captions.json cannot be read: No such file"):
        open_pairs(str(file))
    file.write_text("{}")
    with pytest.raises(DataError, match="is no COCO captions file: KeyError 'images'"):
        open_pairs(str(file))
    with pytest.raises(DataError, match="a caption is about image 9, which is not among the 1 images"):
        open_pairs(str(write_coco(tmp_path / "a", about=9)))
    with pytest.raises(DataError, match=r"the picture 2.png is in none of images/"):
        open_pairs(str(write_coco(tmp_path / "b", image="2.png")))


def test_text_must_be_utf8(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1))
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match=r"a.txt is not UTF-8 text"):
        open_pairs(str(tmp_path))


def test_a_broken_picture_is_named_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(picture(1)[:40])
    with pytest.raises(DataError, match=r"a.png cannot be decoded as a picture"):
        Pair(path=tmp_path / "a.png", captions=("x",)).read()
    with pytest.raises(DataError, match=r"a.png at byte 30 cannot be decoded as a picture: 10 of 99 bytes are there"):
        Pair(path=tmp_path / "a.png", captions=("x",), part=(30, 99)).read()
    assert len(PairSet(name="x", pairs=())) == 0


def test_a_broken_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match=r"a.tar cannot be read as an uncompressed tar"):
        scan_shard(tmp_path / "a.tar")
    write_shard(tmp_path / "b.tar", {"1.txt": b"x"}, mode="w:gz")
    with pytest.raises(DataError, match=r"b.tar cannot be read as an uncompressed tar"):
        scan_shard(tmp_path / "b.tar")
    header = tarfile.TarInfo("1.jpg")
    header.size = LARGEST_PART + 1
    (tmp_path / "c.tar").write_bytes(header.tobuf() + bytes(1024))
    with pytest.raises(DataError, match=r"c.tar: 1.jpg is said to have 268435457 bytes"):
        scan_shard(tmp_path / "c.tar")


def test_parts_are_where_they_were_found(tmp_path: Path) -> None:
    path = write_shard(tmp_path / "a.tar", {"1.txt": b"one", "2.txt": b"second"})
    parts = scan_shard(path)
    assert [read_part(path, *parts[key][".txt"]) for key in ("2", "1")] == [b"second", b"one"]
    assert find_shards(str(tmp_path / "nothing")) == []

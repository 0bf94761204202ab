"""One decoder for pictures: what it makes of every kind of file, and of broken ones."""

from __future__ import annotations

import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from edgekit.data.picture_file import decode_picture, encode_png, is_turned

PICTURE = np.random.default_rng(0).integers(0, 256, (13, 17, 3)).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_files_come_back(kind: str) -> None:
    np.testing.assert_array_equal(decode_picture(encoded(Image.fromarray(PICTURE), kind), upright=True), PICTURE)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".ppm", ".tif"])
def test_pixels_are_those_of_opencv(suffix: str) -> None:
    smooth = cv2.GaussianBlur(np.kron(PICTURE, np.ones((8, 8, 1), np.uint8)), (0, 0), 3)
    ok, content = cv2.imencode(suffix, smooth)
    assert ok
    theirs = cv2.cvtColor(cv2.imdecode(content, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    ours = decode_picture(content.tobytes(), upright=True)
    assert np.abs(ours.astype(int) - theirs).max() <= (1 if suffix == ".webp" else 0)


def test_grey_palette_and_transparency() -> None:
    grey = Image.fromarray(PICTURE).convert("L")
    expected = np.asarray(grey)[..., None].repeat(3, axis=2)
    for image in (grey, grey.convert("P"), grey.convert("LA"), grey.convert("RGBA")):
        np.testing.assert_array_equal(decode_picture(encoded(image, "PNG"), upright=True), expected)
    black = grey.point(lambda value: 255 * (value > 99), mode="1")
    assert set(np.unique(decode_picture(encoded(black, "PNG"), upright=True))) == {0, 255}


@pytest.mark.parametrize("channels", [1, 3])
def test_of_sixteen_bits_the_upper_eight_count(channels: int) -> None:
    deep = np.random.default_rng(1).integers(0, 1 << 16, (5, 7, channels)).astype(np.uint16)
    ok, content = cv2.imencode(".png", deep)
    assert ok
    expected = (deep[..., ::-1] >> 8).astype(np.uint8).repeat(3 // channels, axis=2)
    np.testing.assert_array_equal(decode_picture(content.tobytes(), upright=True), expected)


def test_a_turned_camera() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise makes it upright
    content = encoded(Image.fromarray(PICTURE), "PNG", exif=exif)
    np.testing.assert_array_equal(decode_picture(content, upright=True), np.rot90(PICTURE, -1))
    np.testing.assert_array_equal(decode_picture(content, upright=False), PICTURE)
    assert is_turned(content)
    exif[0x0112] = 1
    assert not is_turned(encoded(Image.fromarray(PICTURE), "PNG", exif=exif))
    assert not is_turned(encoded(Image.fromarray(PICTURE), "BMP"))


def test_what_comes_back_can_be_written_to() -> None:
    assert decode_picture(encode_png(PICTURE), upright=False).flags.writeable


@pytest.mark.parametrize(
    "content", [b"", b"no picture", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"GIF89a"]
)
def test_no_pictures(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        decode_picture(content, upright=True)


def test_floating_point_has_no_brightness() -> None:
    with pytest.raises(ValueError, match="float32"):
        decode_picture(encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), upright=True)


def test_an_absurd_size_is_refused_unread() -> None:
    content = bytearray(encode_png(PICTURE))
    content[16:24] = (60000).to_bytes(4, "big") * 2
    with pytest.raises(ValueError, match=r"\w"):
        decode_picture(bytes(content), upright=True)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@settings(deadline=None, max_examples=60)
@given(place=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255), kept=st.floats(0.1, 1))
def test_a_broken_file_is_a_picture_or_a_value_error(kind: str, place: float, byte: int, kept: float) -> None:
    content = bytearray(encoded(Image.fromarray(PICTURE), kind))
    content[int(place * len(content))] = byte
    try:
        image: NDArray[np.uint8] = decode_picture(bytes(content[: int(kept * len(content))]), upright=True)
    except ValueError:
        return
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3

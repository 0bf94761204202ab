"""What --source accepts: every URI is understood or refused in words, and none in another way."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.cameras import is_source_name, open_source
from edgekit.cameras.raw_frames import BYTES_PER_PIXEL
from edgekit.cameras.uri import (
    LARGEST_SIDE,
    SCHEMES,
    CameraOptions,
    RawOptions,
    camera_options,
    device_in,
    number_in,
    parse_uri,
    raw_options,
)
from edgekit.errors import EdgekitError, UsageError

FORMATS = ("mjpg", "yuyv")


@pytest.mark.parametrize(
    ("text", "scheme", "address"),
    [
        *(("0", "usb", "0"), ("/dev/video3", "usb", "/dev/video3"), ("usb://0", "usb", "0")),
        *(("USB://12?fps=5", "usb", "12"), ("/dev/v4l/by-id/usb-Cam-index0", "usb", "/dev/v4l/by-id/usb-Cam-index0")),
        *(("csi://1", "csi", "1"), ("demo", "demo", ""), ("demo:7", "demo", "7"), ("demo://7", "demo", "7")),
        *(("rtsp://u:p@h/1?x=2", "rtsp", "u:p@h/1"), ("stdin://?size=1x1", "stdin", ""), ("file:///a", "file", "/a")),
    ],
)
def test_spellings(text: str, scheme: str, address: str) -> None:
    uri = parse_uri(text)
    assert uri is not None
    assert (uri.scheme, uri.address, uri.text) == (scheme, address, text)
    assert is_source_name(text)


@pytest.mark.parametrize(
    "text", ["clip.mp4", "photos/", "*.jpg", "demo.edgekit", "demo:x", "./0", "/dev/null", "", "?"]
)
def test_paths_are_no_uris(text: str) -> None:
    assert parse_uri(text) is None
    assert not is_source_name(text)


def test_devices_by_index_and_by_path() -> None:
    for text in ("3", "/dev/video3", "usb://3", "usb:///dev/video3"):
        assert device_in(parse_uri(text)) == 3  # type: ignore[arg-type]
    by_id = "/dev/v4l/by-id/usb-Cam-video-index0"
    for text in (by_id, f"usb://{by_id}"):
        assert device_in(parse_uri(text)) == Path(by_id)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"the camera is a number from 0, as in usb://0, not 'front'"):
        open_source("usb://front")


@given(
    width=st.integers(1, LARGEST_SIDE),
    height=st.integers(1, LARGEST_SIDE),
    fps=st.floats(0.01, 1000) | st.integers(1, 1000),
    format=st.sampled_from(FORMATS),
    order=st.permutations(["size", "fps", "format"]),
    count=st.integers(0, 3),
)
def test_what_is_written_is_what_is_read(
    width: int, height: int, fps: float, format: str, order: list[str], count: int
) -> None:
    values = {"size": f"{width}x{height}", "fps": repr(fps), "format": format}
    given_keys = order[:count]
    uri = parse_uri("usb://0?" + "&".join(f"{key}={values[key]}" for key in given_keys))
    assert uri is not None
    assert camera_options(uri, formats=FORMATS) == CameraOptions(
        height=height if "size" in given_keys else None,
        width=width if "size" in given_keys else None,
        fps=float(fps) if "fps" in given_keys else None,
        format=format if "format" in given_keys else None,
    )


@given(st.sampled_from(SCHEMES), st.text(max_size=12), st.text(max_size=40))
def test_any_text_is_understood_or_refused_in_words(scheme: str, address: str, query: str) -> None:
    uri = parse_uri(f"{scheme}://{address}?{query}")
    assert uri is not None
    assert uri.scheme == scheme
    refusals: list[str] = []
    for read in (
        lambda: camera_options(uri, formats=FORMATS),
        lambda: raw_options(uri, formats=BYTES_PER_PIXEL),
        lambda: number_in(uri, "it"),
        lambda: device_in(uri),
    ):
        try:
            value = read()
        except UsageError as error:
            refusals.append(str(error))
        else:
            assert isinstance(value, CameraOptions | RawOptions | Path) or value >= 0
    assert all(refusal.startswith(uri.text) for refusal in refusals)


@given(
    st.text(alphabet="abcdefghijklmnopqrstuvwxyz+.-", min_size=1, max_size=10).filter(lambda name: name not in SCHEMES)
)
def test_other_schemes_are_refused(scheme: str) -> None:
    with pytest.raises(UsageError, match=r"^no source begins with "):
        open_source(f"{scheme}://x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("usb://0?sise=640x480", "usb:// has no option 'sise'; did you mean size?"),
        ("usb://0?colour=red", "usb:// has no option 'colour'; there are: size, fps, format"),
        ("usb://0?fps=5&fps=6", "fps is given twice"),
        ("usb://0?size", "size is WIDTHxHEIGHT in pixels, as in size=1280x720"),
        ("usb://0?size=0x480", "it is '0x480'"),
        ("usb://0?size=99999x480", "each at most 16384"),
        ("usb://0?fps=0", "fps is frames a second, over 0 and at most 1000; it is '0'"),
        ("usb://0?fps=nan", "it is 'nan'"),
        ("usb://0?format=mjpeg", "format cannot be 'mjpeg'; did you mean mjpg?"),
        ("csi://0?format=mjpg", "csi:// has no option 'format'; "),
        ("csi://left", "the camera is a number from 0, as in csi://0, not 'left'"),
        ("demo://x", "the seed is a number from 0, as in demo://0, not 'x'"),
        ("demo://1?size=2x2", "demo:// has no options"),
        ("stdin://", "raw frames do not say what they are, so size must"),
        ("stdin://?size=4x4", "so format must"),
        ("stdin://?size=4x4&format=rgb", "format cannot be 'rgb'; did you mean rgb24?"),
        ("stdin://?size=5x4&format=yuv420p", "width and height must be even"),
        ("stdin://?size=4x4&format=gray&live=maybe", "live cannot be 'maybe'; there are: yes, no"),
        ("stdin://x?size=4x4&format=gray", "nothing stands between stdin:// and ?, but 'x' does"),
        ("usb://0?" + "&".join("fps=1" for _ in range(3)), "fps is given twice"),
        ("rstp://host/1", "Did you mean rtsp://?"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)) as caught:
        open_source(text)
    assert caught.value.exit_code == 2


def test_long_numbers_are_refused() -> None:
    for text in ("9" * 5000, "usb://" + "9" * 5000, "demo:" + "9" * 5000, "/dev/video" + "9" * 5000):
        with pytest.raises(EdgekitError):
            open_source(text)


def test_the_query_of_a_stream_is_the_servers() -> None:
    uri = parse_uri("rtsp://cam/live?size=big&channel=1#x")
    assert uri is not None
    assert uri.text == "rtsp://cam/live?size=big&channel=1#x"


def test_seeds_of_the_demo() -> None:
    pytest.importorskip("skimage", reason="needs the demo's photographs")
    for text, name in (("demo://", "demo"), ("demo", "demo"), ("demo://3", "demo:3"), ("demo:3", "demo:3")):
        with open_source(text) as source:
            assert next(source).source == name

"""Raw frames: from standard input of a real process, and from programs that write into a pipe."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.cameras import raw_frames
from edgekit.cameras.live import LiveSource
from edgekit.cameras.raw_frames import BYTES_PER_PIXEL, ProgramCapture, RawFrames, RawReader, raw_to_rgb
from edgekit.cameras.uri import RawOptions
from edgekit.errors import SourceError

READ = """
import logging, sys
from edgekit.cameras import open_source
from edgekit.errors import EdgekitError
logging.basicConfig(format="%(message)s")
try:
    with open_source(sys.argv[1]) as source:
        for frame in source:
            print(frame.index, frame.image.shape, frame.image.reshape(-1, 3).mean(0).round().tolist(), frame.time_s)
        print(source.counters())
except EdgekitError as error:
    print("refused:", error)
    sys.exit(error.exit_code)
"""

GREY = RawOptions(height=4, width=6, format="gray")


def read_stdin(uri: str, content: bytes) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-c", READ, uri], input=content, capture_output=True, check=False)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_every_whole_frame_and_a_word_on_the_rest() -> None:
    frames = [np.full((4, 6, 3), (10 * k, 0, 255), np.uint8) for k in range(5)]
    content = b"".join(frame.tobytes() for frame in frames)
    done = read_stdin("stdin://?size=6x4&format=rgb24&fps=10", content + b"x" * 17)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:5] == [f"{k} (4, 6, 3) [{10 * k:.1f}, 0.0, 255.0] {k / 10}" for k in range(5)]
    assert "captured=5, delivered=5" in lines[5]
    assert "the input ended inside frame 5, after 17 of its 72 bytes: that frame is left out" in done.stderr


def test_an_end_between_frames_needs_no_word() -> None:
    done = read_stdin("stdin://?size=6x4&format=bgr24", np.full((4, 6, 3), (1, 2, 3), np.uint8).tobytes() * 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("[3.0, 2.0, 1.0]") == 2


@pytest.mark.parametrize("content", [b"", b"short"])
def test_no_frame_at_all_is_an_error(content: bytes) -> None:
    done = read_stdin("stdin://?size=6x4&format=gray", content)
    assert done.returncode == 4
    assert f"refused: standard input ended after {len(content)} bytes, and one frame has 24." in done.stdout


def test_live_standard_input_gives_the_newest_and_ends_with_it() -> None:
    done = read_stdin("stdin://?size=6x4&format=gray&live=yes", bytes(24) * 50 + b"\xff" * 24 + b"rest")
    assert done.returncode == 0, done.stderr
    *frames, counters = done.stdout.splitlines()
    assert "50 (4, 6, 3) [255.0, 255.0, 255.0]" in frames[-1]
    assert "captured=51" in counters
    assert "inside frame 51, after 4 of its 24 bytes" in done.stderr


def test_a_terminal_or_nothing_for_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    primary, secondary = os.openpty()
    with os.fdopen(secondary, "r") as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        with pytest.raises(SourceError, match=r"standard input is the terminal.*\n.*-pix_fmt gray -s 6x4"):
            raw_frames.open_stdin(GREY)
    os.close(primary)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SourceError, match="standard input is closed"):
        raw_frames.open_stdin(GREY)


def test_unplugged_in_the_middle_of_a_frame(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fifo = tmp_path / "camera"
    os.mkfifo(fifo)

    def camera() -> None:
        with fifo.open("wb", buffering=0) as pipe:
            for level in (1, 2):
                for part in range(4):  # a frame comes in pieces
                    pipe.write(bytes([level]) * 6)
                    time.sleep(0.01 * (part % 2))
            pipe.write(bytes([3]) * 13)

    thread = threading.Thread(target=camera)
    thread.start()
    fd = os.open(fifo, os.O_RDONLY)
    levels = [int(frame.image.max()) for frame in RawFrames(RawReader(fd, GREY), fps=None)]
    thread.join()
    os.close(fd)
    assert levels == [1, 2]
    assert "after 13 of its 24 bytes" in caplog.text


def test_a_pipe_that_stalls_is_given_up() -> None:
    fd, write_fd = os.pipe()
    os.write(write_fd, bytes(20))
    start = time.monotonic()
    assert RawReader(fd, GREY, timeout_s=0.2).read() is None
    assert 0.15 < time.monotonic() - start < 1.5
    os.close(fd)
    os.close(write_fd)


@pytest.mark.parametrize("name", BYTES_PER_PIXEL)
def test_colours_of_every_format(name: str) -> None:
    rgb = np.zeros((32, 48, 3), np.uint8)
    rgb[:, :16], rgb[:, 16:32], rgb[:, 32:] = (200, 40, 40), (250, 250, 250), (20, 60, 180)
    if name == "rgb24":
        raw = rgb
    elif name == "bgr24":
        raw = rgb[..., ::-1]
    elif name == "gray":
        raw = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    elif name == "yuv420p":
        raw = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420)
    else:  # JPEG's equations (ITU-T T.871), on planes of half the size
        red, green, blue = rgb.transpose(2, 0, 1).astype(float)
        planes = [
            0.299 * red + 0.587 * green + 0.114 * blue,
            128 - 0.168736 * red - 0.331264 * green + 0.5 * blue,
            128 + 0.5 * red - 0.418688 * green - 0.081312 * blue,
        ]
        planes[1:] = [plane[::2, ::2] for plane in planes[1:]]
        raw = np.concatenate([plane.round().astype(np.uint8).ravel() for plane in planes])
    options = RawOptions(height=32, width=48, format=name)
    assert raw.size == options.height * options.width * BYTES_PER_PIXEL[name]
    back = raw_to_rgb(np.frombuffer(raw.tobytes(), np.uint8), options)
    assert back.shape == rgb.shape
    expected = rgb if name != "gray" else np.repeat(raw[..., None], 3, axis=2)
    for columns in (slice(4, 12), slice(20, 28), slice(36, 44)):  # off the edges, where halved planes mix colours
        assert back[:, columns].astype(int) == pytest.approx(expected[:, columns].astype(int), abs=5)


def program(body: str) -> object:
    return lambda fd: [sys.executable, "-c", f"import os, sys, time\nfd = {fd}\n{body}"]


def test_a_program_that_stops_is_started_again(caplog: pytest.LogCaptureFixture) -> None:
    body = "os.write(fd, bytes([7]) * 24 * 2 + b'rest'); print('it broke', file=sys.stderr)"
    starts = []

    def open_capture() -> ProgramCapture:
        starts.append(1)
        return ProgramCapture(program(body), GREY, what="csi://0")  # type: ignore[arg-type]

    with LiveSource(open_capture, name="csi://0") as source:
        deadline = time.monotonic() + 20
        while source.counters().captured < 4 and time.monotonic() < deadline:
            assert set(next(source).image.ravel()) == {7}
        assert len(starts) >= 2
    assert "csi://0 stopped; its program said: it broke" in caplog.text
    assert source.counters().captured % 2 == 0  # the rest was never a frame


def test_a_program_that_gives_nothing_is_quoted() -> None:
    body = "print('ERROR: *** no cameras available ***', file=sys.stderr)"
    with pytest.raises(SourceError, match=re.escape("csi://0 gives no picture.") + r" .*no cameras available"):
        ProgramCapture(program(body), GREY, what="csi://0")  # type: ignore[arg-type]
    with pytest.raises(SourceError, match="no-such-program cannot be started: No such file"):
        ProgramCapture(lambda _fd: ["no-such-program"], GREY, what="csi://0")


def test_releasing_ends_a_program_that_does_not_listen() -> None:
    body = (
        "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "while True: os.write(fd, bytes(24)); print('x' * 1000, file=sys.stderr); time.sleep(0.001)"
    )
    before = len(os.listdir("/proc/self/fd"))
    capture = ProgramCapture(program(body), GREY, what="csi://0")  # type: ignore[arg-type]
    for _ in range(200):  # its messages would fill a pipe by then
        assert capture.read() is not None
    capture.release()
    capture.release()
    assert capture._process.returncode is not None
    assert len(os.listdir("/proc/self/fd")) == before

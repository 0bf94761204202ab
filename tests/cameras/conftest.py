"""Cameras for tests: Motion JPEG over HTTP and H.264 over RTSP from this very machine, and one that is fed by hand."""

from __future__ import annotations

import contextlib
import functools
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.cameras.live import Capture, LiveSource

Picture = NDArray[np.uint8]

SERVER = Path(__file__).with_name("rtsp_server.py")


class MjpegCamera:
    """Serves one grey level after another; can be told to hang up, and to change its picture size."""

    def __init__(self) -> None:
        self.size = (48, 64)
        """(height, width)."""
        self.fps = 50.0
        self.online = True
        self.stalled = False
        """Connected, but silent."""
        self.cut_in_picture = False
        """Hang up in the middle of the next picture."""
        self.garbage = False
        """Send random bytes for pictures."""
        self.connections = 0
        """Requests for the stream."""
        self.accepted = 0
        """TCP connections, with a request or without."""
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                camera.connections += 1
                if not camera.online:
                    self.send_error(503)
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                count = 0
                try:
                    while camera.online and not camera.closed.is_set():
                        if camera.stalled:
                            time.sleep(0.02)
                            continue
                        picture = np.full((*camera.size, 3), (4 * count % 200, 0, 200), np.uint8)
                        jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
                        if camera.garbage:
                            jpeg = np.random.default_rng(count).bytes(len(jpeg))
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
                        if camera.cut_in_picture:
                            camera.cut_in_picture = False
                            self.wfile.write(head + jpeg[: len(jpeg) - 60])  # some of the blocks, not only headers
                            return
                        self.wfile.write(head + jpeg + b"\r\n")
                        count += 1
                        time.sleep(1 / camera.fps)
                except (BrokenPipeError, ConnectionResetError):
                    pass

            def log_message(self, format: str, *args: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def verify_request(self, request: object, client_address: object) -> bool:
                camera.accepted += 1
                return True

        self.closed = threading.Event()
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/stream"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class RtspServer:
    """A real RTSP server that can be killed and started again on the same port."""

    def __init__(self, python: str) -> None:
        self._python = python
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"rtsp://127.0.0.1:{self.port}/live"
        self._process: subprocess.Popen[str] | None = None

    def start(self, clip: Path, *, fps: int = 25, key_interval: int = 25) -> float:
        """Serve ``clip``; returns the ``time.monotonic()`` from which it listens."""
        command = [self._python, str(SERVER), str(clip), str(fps), str(self.port), str(key_interval)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline().strip() == str(self.port)
        return time.monotonic()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """As a power cut would: nothing is said to the clients."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None


class CutLine:
    """Passes a TCP connection on to ``port``, and cuts it after ``bytes_to_client``: mostly inside a picture."""

    def __init__(self, port: int, *, bytes_to_client: int) -> None:
        self._left = bytes_to_client
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._server_port = port
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed
                return
            server = socket.create_connection(("127.0.0.1", self._server_port))
            threading.Thread(target=self._pass_on, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(server, client, True), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        try:
            while piece := source.recv(65536):
                if counted:
                    piece = piece[: self._left]
                    self._left -= len(piece)
                target.sendall(piece)
                if counted and self._left == 0:
                    break
        except OSError:
            pass
        for end in (source, target):
            with contextlib.suppress(OSError):  # the other direction was first
                end.shutdown(socket.SHUT_RDWR)
        source.close()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


class HandFed:
    """A capture whose pictures a test puts in; ``None`` is a loss."""

    fps: float | None = 25.0
    all: ClassVar[list[HandFed]] = []

    def __init__(self, *pictures: Picture | None) -> None:
        self.pictures: queue.SimpleQueue[Picture | None] = queue.SimpleQueue()
        self.released = 0
        self.all.append(self)
        for picture in pictures:
            self.pictures.put(picture)

    def read(self) -> Picture | None:
        return self.pictures.get()

    def to_rgb(self, picture: Picture) -> Picture:
        return picture

    def release(self) -> None:
        self.released += 1


@pytest.fixture
def mjpeg_camera() -> Iterator[MjpegCamera]:
    camera = MjpegCamera()
    yield camera
    camera.close()


@pytest.fixture
def hand_fed() -> Iterator[type[HandFed]]:
    """The class, whose captures end with the test."""
    HandFed.all.clear()
    yield HandFed
    for capture in HandFed.all:
        capture.pictures.put(None)


@pytest.fixture
def live(hand_fed: type[HandFed]) -> Iterator[Callable[..., LiveSource]]:
    """Makes a live source ``camera 3`` of a function that opens a capture; closed at the end."""
    sources = []

    def make(open_capture: Callable[[], Capture], **options: Any) -> LiveSource:
        sources.append(LiveSource(open_capture, name="camera 3", **options))
        return sources[-1]

    yield make
    for source in sources:
        source._stop.set()
        for capture in hand_fed.all:
            capture.pictures.put(None)
        source.close()
        assert not source._thread.is_alive()


@functools.cache
def _python_with_gstreamer() -> str | None:
    """A Python that can run the RTSP server."""
    for python in (sys.executable, "/usr/bin/python3"):
        try:
            done = subprocess.run([python, str(SERVER), "--check"], capture_output=True, check=False)
        except FileNotFoundError:
            continue
        if done.returncode == 0:
            return python
    return None


@pytest.fixture
def rtsp_server() -> Iterator[RtspServer]:
    python = _python_with_gstreamer()
    if python is None:
        pytest.skip(
            "needs GStreamer's RTSP server: apt install --no-install-recommends gir1.2-gst-rtsp-server-1.0 python3-gi"
            " gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly gstreamer1.0-plugins-bad"
        )
    server = RtspServer(python)
    yield server
    server.kill()


@pytest.fixture
def cut_line() -> type[CutLine]:
    return CutLine


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[int, int], Path]:
    """(height, width) -> folder of a clip in which each frame wears its number three times (:func:`read_numbers`)."""
    folders = {}
    for height, width in ((240, 320), (360, 480)):
        folder = tmp_path_factory.mktemp(f"clip{width}x{height}")
        ground = np.random.default_rng(0).integers(90, 160, (height // 8, width // 8, 3)).astype(np.uint8)
        ground = cv2.resize(ground, (width, height), interpolation=cv2.INTER_NEAREST)
        for number in range(400):
            picture = np.roll(ground, 3 * number, axis=1)
            for top in _tops(height):
                for bit in range(BITS):
                    picture[top : top + BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 235 if number >> bit & 1 else 20
            cv2.imwrite(str(folder / f"{number:05d}.jpg"), picture)
        folders[height, width] = folder
    return folders


BITS, BLOCK = 10, 16


def _tops(height: int) -> tuple[int, int, int]:
    return 0, height // 2 - BLOCK // 2, height - BLOCK


def read_numbers(picture: Picture) -> list[int]:
    """The numbers at the top, middle and bottom: a picture of which a part is missing wears different ones."""
    return [
        sum(
            int(picture[top + 4 : top + 12, bit * BLOCK + 4 : bit * BLOCK + 12].mean() > 127) << bit
            for bit in range(BITS)
        )
        for top in _tops(picture.shape[0])
    ]


@pytest.fixture(name="read_numbers")
def _read_numbers() -> object:
    return read_numbers

"""The newest frame of each camera as a JPEG, made only while somebody watches, and never faster than is seen.

The loop hands over references; drawing and encoding happen on a thread of their own. Whoever watches gets the newest
picture when it has taken the last one: a slow reader sees fewer pictures and holds nobody up.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from edgekit.sinks.camera_name import camera_name
from edgekit.sinks.live import MOST_CAMERAS

if TYPE_CHECKING:
    from edgekit.cameras import Frame
    from edgekit.pipeline import FrameResult

PICTURES_PER_S = 10.0
REST_SHARE = 2.0
"""After each picture the thread rests for so many times as long as it took: a third of one core at most."""

REPEAT_S = 5.0
"""A picture that does not change is sent again after so long, or a reader who went away without a word would stay."""

Encode = Callable[["Frame", "FrameResult"], bytes]


class _Camera:
    def __init__(self) -> None:
        self.newest: tuple[Frame, FrameResult] | None = None
        self.number = 0  # of the newest frame; counts up
        self.watchers = 0
        self.jpeg = b""
        self.jpeg_number = 0
        self.changed = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Pictures:
    """The pictures of all cameras.

    Args:
        encode: makes the JPEG.
        failed: is told of an exception of ``encode``.
        pictures_per_s: of each camera, at most.
    """

    def __init__(
        self, encode: Encode, failed: Callable[[Exception], None], *, pictures_per_s: float = PICTURES_PER_S
    ) -> None:
        self._encode, self._failed = encode, failed
        self._interval_s = 1 / pictures_per_s
        self._cameras: dict[str, _Camera] = {}
        self._pool: ThreadPoolExecutor | None = None
        self.encoded = 0
        """Pictures made so far."""

    def publish(self, frame: Frame, result: FrameResult) -> None:
        """Note the newest frame; from the loop's thread. Copies nothing."""
        name = camera_name(frame)
        camera = self._cameras.get(name)
        if camera is None:
            if len(self._cameras) >= MOST_CAMERAS:
                return
            camera = self._cameras.setdefault(name, _Camera())
        camera.newest = (frame, result)
        camera.number += 1

    async def watch(self, name: str) -> AsyncGenerator[bytes, None]:
        """JPEGs of a camera, each newer than the one before, from within the server's event loop.

        Args:
            name: of a camera that is known to be there; it may be without a frame yet.
        """
        camera = self._cameras.setdefault(name, _Camera())
        camera.watchers += 1
        if camera.task is None:
            camera.task = asyncio.create_task(self._keep_encoding(camera))
        seen = 0
        try:
            while True:
                if camera.jpeg_number == seen:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(camera.changed.wait(), REPEAT_S)
                if camera.jpeg_number:
                    seen = camera.jpeg_number
                    yield camera.jpeg
        finally:
            camera.watchers -= 1

    def close(self) -> None:
        """End the thread."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    async def _keep_encoding(self, camera: _Camera) -> None:
        """Until nobody watches any more."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="view picture")
        try:
            while camera.watchers:
                start_s = time.monotonic()
                number, newest = camera.number, camera.newest
                if newest is not None and number != camera.jpeg_number:
                    await self._encode_one(camera, number, newest)
                    newest = None
                took_s = time.monotonic() - start_s
                await asyncio.sleep(max(self._interval_s - took_s, REST_SHARE * took_s))
        finally:
            camera.task = None
            camera.jpeg, camera.jpeg_number = b"", 0

    async def _encode_one(self, camera: _Camera, number: int, newest: tuple[Frame, FrameResult]) -> None:
        loop = asyncio.get_running_loop()
        try:
            camera.jpeg = await loop.run_in_executor(self._pool, self._encode, *newest)
        except Exception as error:
            self._failed(error)
            return
        self.encoded += 1
        camera.jpeg_number = number
        camera.changed.set()  # wakes all who wait now
        camera.changed.clear()

"""Frames of several sources in turn: each is read and prepared on a thread of its own, while the detector is busy.

* A live source is represented by its newest frame: an older one that was not asked for in time is dropped.
* A file is read a few frames ahead, and every frame is given.

Whoever waited longest comes first, so that a fast camera does not starve a slow one. A source that ends or is lost
leaves the others alone. A camera that is alone needs none of this: it is asked for its newest frame itself.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from edgekit.cameras import Frame, Source
from edgekit.errors import SourceError

log = logging.getLogger("edgekit")

T = TypeVar("T")
"""A frame that was prepared."""

AHEAD = 3
"""Frames of a file that are decoded before they are asked for: one is too few where pictures differ in size."""


@dataclass
class Counters:
    """What became of one source's frames; they add up: read = given + dropped + stale + waiting."""

    read: int = 0
    """Taken from the source; what it dropped itself is ``Source.dropped``."""

    given: int = 0
    dropped: int = 0
    """Replaced by a newer one before they were asked for."""

    stale: int = 0
    """Older than ``max_age_s`` when they were asked for."""

    waiting: int = 0


class _Feed(Generic[T]):
    """One source and its thread."""

    def __init__(self, source: Source, prepare: Callable[[Frame], T], changed: threading.Condition) -> None:
        self.source = source
        self.counters = Counters()
        self.prepare = prepare
        self.frames: deque[tuple[Frame, T]] = deque()
        self.ended = False
        self.error: BaseException | None = None
        self.served = 0
        """Number of the turn in which it was served last."""

        self._changed = changed
        self._stop = False
        # A daemon: a driver that blocks in a read must not keep the process from ending.
        self._thread = threading.Thread(target=self._read, name="feed", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _read(self) -> None:
        try:
            for frame in self.source:
                prepared = self.prepare(frame)
                with self._changed:
                    while not self.source.live and len(self.frames) >= AHEAD and not self._stop:
                        self._changed.wait()
                    if self._stop:
                        return
                    if self.source.live and self.frames:
                        self.frames.clear()
                        self.counters.dropped += 1
                    self.frames.append((frame, prepared))
                    self.counters.read += 1
                    self.counters.waiting = len(self.frames)
                    self._changed.notify_all()
        except BaseException as error:  # whatever it is belongs to whoever reads the frames
            self.error = error
        finally:
            with self._changed:
                self.ended = True
                self._changed.notify_all()

    def take(self) -> tuple[Frame, T]:
        """The next frame, of which there is one; with the lock held."""
        taken = self.frames.popleft()
        self.counters.waiting = len(self.frames)
        self._changed.notify_all()
        return taken

    def stop(self) -> None:
        """Let the thread end; with the lock held."""
        self._stop = True
        self._changed.notify_all()

    def join(self) -> None:
        """Wait for the thread, but not for a driver that blocks."""
        if self._thread.is_alive():
            self._thread.join(timeout=1.0)


class Feeds(Generic[T]):
    """An iterator over (number of the source, prepared frame), and a context manager that closes the sources.

    Args:
        sources: open, each with what prepares its frames; closed at the end.
        max_age_s: frames of live sources that are older when their turn comes are dropped.

    Raises (while iterating):
        SourceError: a source was lost, and no other is left. One of several that is lost is a warning.
    """

    def __init__(
        self, sources: Sequence[tuple[Source, Callable[[Frame], T]]], *, max_age_s: float | None = None
    ) -> None:
        if not sources:
            raise ValueError("expected at least one source")
        self._changed = threading.Condition()
        self._max_age_s = max_age_s
        self._feeds = [_Feed(source, prepare, self._changed) for source, prepare in sources]
        self._turn = 0
        self._lost: SourceError | None = None

    @property
    def live(self) -> bool:
        """Whether every source is."""
        return all(feed.source.live for feed in self._feeds)

    def counters(self) -> tuple[Counters, ...]:
        """Of each source, as they are now."""
        with self._changed:
            return tuple(Counters(**vars(feed.counters)) for feed in self._feeds)

    def dropped(self) -> int:
        """Frames of live sources that were passed over, by themselves or here."""
        here = sum(one.dropped + one.stale for one in self.counters())
        return here + sum(feed.source.dropped for feed in self._feeds)

    def ended(self, index: int) -> bool:
        """Whether no frame of a source will come any more."""
        return self._feeds[index].ended

    def __enter__(self) -> Self:
        if not self._is_one_camera():
            for feed in self._feeds:
                feed.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop reading and close the sources; allowed more than once."""
        with self._changed:
            for feed in self._feeds:
                feed.stop()
        for feed in self._feeds:
            if feed.source.live:
                feed.source.close()  # wakes who waits for a frame
        for feed in self._feeds:
            feed.join()
            feed.source.close()  # of a file: not while it is read, which OpenCV does not survive

    def __iter__(self) -> Iterator[tuple[int, T]]:
        if self._is_one_camera():
            (feed,) = self._feeds
            for frame in feed.source:
                feed.counters.read += 1
                if self._is_stale(feed, frame):
                    feed.counters.stale += 1
                    continue
                feed.counters.given += 1
                yield 0, feed.prepare(frame)
            feed.ended = True
            return
        while (turn := self._next()) is not None:
            yield turn

    def _is_one_camera(self) -> bool:
        return len(self._feeds) == 1 and self._feeds[0].source.live

    def _next(self) -> tuple[int, T] | None:
        with self._changed:
            while True:
                self._see_losses()
                ready = [feed for feed in self._feeds if feed.frames]
                if ready:
                    feed = min(ready, key=lambda one: one.served)
                    frame, prepared = feed.take()
                    if self._is_stale(feed, frame):
                        feed.counters.stale += 1
                        continue
                    self._turn += 1
                    feed.served = self._turn
                    feed.counters.given += 1
                    return self._feeds.index(feed), prepared
                if all(feed.ended for feed in self._feeds):
                    if self._lost is not None:
                        raise self._lost
                    return None
                self._changed.wait(timeout=0.5)  # Ctrl-C is seen between waits on every platform

    def _is_stale(self, feed: _Feed[T], frame: Frame) -> bool:
        return feed.source.live and self._max_age_s is not None and frame.age_s > self._max_age_s

    def _see_losses(self) -> None:
        """Raise what ended the only source; the loss of one of several is a warning. After its last frame."""
        for feed in self._feeds:
            if feed.error is None or feed.frames:
                continue
            error, feed.error = feed.error, None
            if len(self._feeds) == 1 or not isinstance(error, SourceError):
                raise error
            log.warning("%s", str(error).splitlines()[0])
            self._lost = error

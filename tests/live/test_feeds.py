"""Frames of several sources in turn."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

from edgekit.cameras import Frame, Source
from edgekit.errors import SourceError
from edgekit.live.feeds import AHEAD, Feeds

PICTURE = np.zeros((4, 4, 3), np.uint8)


def frame(index: int, name: str = "a", *, age_s: float = 0.0) -> Frame:
    return Frame(image=PICTURE, index=index, time_s=0.0, source=name, captured_s=time.monotonic() - age_s)


class Listed(Source):
    """A file of so many frames."""

    def __init__(self, count: int, name: str = "a") -> None:
        self.count, self.name = count, name
        self.closed = False
        self.read = 0

    def frames(self) -> Iterator[Frame]:
        for index in range(self.count):
            self.read = index + 1
            yield frame(index, self.name)

    def close(self) -> None:
        self.closed = True


class Fed(Source):
    """A camera that gives what the test puts in."""

    live = True

    def __init__(self, name: str = "camera") -> None:
        self.name = name
        self._items: list[Frame | Exception | None] = []
        self._there = threading.Condition()
        self._index = 0
        self.taken = 0

    def put(self, *, age_s: float = 0.0) -> None:
        self._add(frame(self._index, self.name, age_s=age_s))
        self._index += 1

    def lose(self) -> None:
        self._add(SourceError(f"{self.name} was lost"))

    def close(self) -> None:
        self._add(None)

    def _add(self, item: Frame | Exception | None) -> None:
        with self._there:
            self._items.append(item)
            self._there.notify_all()

    def frames(self) -> Iterator[Frame]:
        while True:
            with self._there:
                while not self._items:
                    self._there.wait()
                item = self._items.pop(0)
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            self.taken += 1
            yield item


def feeds_of(sources: Sequence[Source], **options: Any) -> Feeds[Frame]:
    """Of frames as they are."""
    return Feeds([(source, lambda frame: frame) for source in sources], **options)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "it did not happen within five seconds"
        time.sleep(0.001)


def test_a_file_gives_every_frame_in_order() -> None:
    source = Listed(50)
    with feeds_of([source]) as feeds:
        assert [(which, one.index) for which, one in feeds] == [(0, index) for index in range(50)]
        (counters,) = feeds.counters()
    assert (counters.read, counters.given, counters.dropped, counters.waiting) == (50, 50, 0, 0)
    assert source.closed


def test_a_file_is_read_a_few_frames_ahead() -> None:
    source = Listed(100)
    with feeds_of([source]) as feeds:
        wait_until(lambda: feeds.counters()[0].waiting == AHEAD)
        next(iter(feeds))
        wait_until(lambda: feeds.counters()[0].waiting == AHEAD)
        assert source.read <= AHEAD + 2  # one is given, one is in the reader's hand


def test_each_camera_of_several_is_represented_by_its_newest_frame() -> None:
    camera = Fed()
    with feeds_of([camera, Fed("silent")]) as feeds:
        frames = iter(feeds)
        for _ in range(5):
            camera.put()
        wait_until(lambda: feeds.counters()[0].read == 5)
        assert next(frames)[1].index == 4
        camera.put()
        assert next(frames)[1].index == 5
        counters = feeds.counters()[0]
    assert counters.read == 6
    assert (counters.given, counters.dropped, counters.stale, counters.waiting) == (2, 4, 0, 0)


def test_one_camera_is_asked_itself_so_that_its_own_newest_frame_comes() -> None:
    camera = Fed()
    with feeds_of([camera]) as feeds:
        frames = iter(feeds)
        for _ in range(3):
            camera.put()
        assert camera.taken == 0
        assert [next(frames)[1].index for _ in range(3)] == [0, 1, 2]
        (counters,) = feeds.counters()
    assert (counters.read, counters.given, counters.dropped) == (3, 3, 0)


@pytest.mark.parametrize("cameras", [1, 2])
def test_stale_frames_are_dropped_and_counted(cameras: int) -> None:
    camera = Fed()
    with feeds_of([camera, *(Fed("silent") for _ in range(1, cameras))], max_age_s=0.5) as feeds:
        frames = iter(feeds)
        camera.put(age_s=3.0)
        threading.Timer(0.2, camera.put).start()
        assert next(frames)[1].index == 1
        counters = feeds.counters()[0]
    assert (counters.read, counters.given, counters.stale) == (2, 1, 1)


def test_cameras_take_turns_whatever_their_rates() -> None:
    cameras = [Fed("fast"), Fed("slow")]
    with feeds_of(cameras) as feeds:
        frames = iter(feeds)
        order = []
        for turn in range(6):
            for camera in cameras:
                camera.put()
            cameras[0].put()
            wait_until(lambda turn=turn: sum(one.read for one in feeds.counters()) == 3 * (turn + 1))  # type: ignore[misc]
            order += [next(frames)[0], next(frames)[0]]
    assert [sorted(order[turn : turn + 2]) for turn in range(0, 12, 2)] == [[0, 1]] * 6


def test_a_fast_file_does_not_starve_a_camera() -> None:
    camera = Fed()
    with feeds_of([Listed(1000), camera]) as feeds:
        frames = iter(feeds)
        for _ in range(20):
            next(frames)
        camera.put()
        wait_until(lambda: feeds.counters()[1].read == 1)
        assert {next(frames)[0] for _ in range(2)} == {0, 1}


def test_one_lost_camera_of_two_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    lost, other = Fed("lost"), Fed("other")
    with feeds_of([lost, other]) as feeds:
        frames = iter(feeds)
        lost.lose()
        threading.Timer(0.05, other.put).start()
        assert next(frames)[0] == 1
        assert "lost was lost" in caplog.text
        other.lose()
        with pytest.raises(SourceError, match="other was lost"):
            next(frames)


def test_the_only_camera_s_loss_ends_the_frames() -> None:
    camera = Fed()
    with feeds_of([camera]) as feeds:
        camera.put()
        camera.lose()
        frames = iter(feeds)
        assert next(frames)[1].index == 0
        with pytest.raises(SourceError, match="camera was lost"):
            next(frames)


def test_a_bug_in_a_source_is_not_taken_for_a_loss() -> None:
    class Broken(Listed):
        def frames(self) -> Iterator[Frame]:
            yield frame(0)
            raise ZeroDivisionError

    with feeds_of([Broken(1), Listed(1)]) as feeds, pytest.raises(ZeroDivisionError):
        list(feeds)


def test_closing_early_ends_the_threads() -> None:
    before = threading.active_count()
    with feeds_of([Listed(10_000), Fed()]) as feeds:
        next(iter(feeds))
    wait_until(lambda: threading.active_count() == before)


@pytest.mark.parametrize("sources", [1, 2])
def test_frames_are_prepared_on_the_thread_that_reads_them(sources: int) -> None:
    def prepare(frame: Frame) -> tuple[int, int]:
        return frame.index, threading.get_ident()

    with Feeds([(Listed(5), prepare) for _ in range(sources)]) as feeds:
        prepared = list(feeds)
    assert sorted(index for _, (index, _) in prepared) == sorted([*range(5)] * sources)
    assert len({ident for _, (_, ident) in prepared}) == sources
    assert threading.get_ident() not in {ident for _, (_, ident) in prepared}


def test_what_cannot_be_prepared_ends_the_frames() -> None:
    def prepare(frame: Frame) -> Frame:
        raise ValueError("no picture")

    with Feeds([(Listed(5), prepare)]) as feeds, pytest.raises(ValueError, match="no picture"):
        list(feeds)

"""RTSP from a real server that is killed, stopped and started again. What is lost, late or torn must not come through.

Each frame of the clip wears its number at the top, in the middle and at the bottom, so a frame that comes twice or that
the decoder has completed from another one gives itself away.
"""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.cameras import Frame, Source, open_source, stream
from edgekit.errors import SourceError

if TYPE_CHECKING:
    from conftest import CutLine, RtspServer

Clips = dict[tuple[int, int], Path]
ReadNumbers = Callable[[NDArray[np.uint8]], list[int]]

RESUMES_WITHIN_S = 2.0


class Collector:
    """Takes every frame of a source in a thread of its own."""

    def __init__(self, source: Source) -> None:
        self.frames: list[tuple[float, Frame]] = []
        self.error: BaseException | None = None
        self._source = source
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            for frame in self._source:
                self.frames.append((time.monotonic(), frame))
        except SourceError as error:
            self.error = error

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 15.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.01)

    def wait_for(self, count: int, shape: tuple[int, int, int] | None = None) -> float:
        """Wait for ``count`` frames (of that shape); returns when the first of them came."""
        self.wait_until(lambda: len(self.of(shape)) >= count or self.error is not None)
        assert self.error is None
        return self.of(shape)[0][0]

    def of(self, shape: tuple[int, int, int] | None) -> list[tuple[float, Frame]]:
        return [(when, frame) for when, frame in list(self.frames) if shape in (None, frame.image.shape)]

    def join(self) -> None:
        self._thread.join(timeout=5)
        assert not self._thread.is_alive()


def check_frames(frames: list[tuple[float, Frame]], read_numbers: ReadNumbers) -> None:
    """Whole, lit, and none twice."""
    last = -1
    for _, frame in frames:
        assert frame.image.mean() > 60
        top, middle, bottom = read_numbers(frame.image)
        assert top == middle == bottom, "a torn picture"
        assert top > last, "a picture that was there before"
        last = top
    indices = [frame.index for _, frame in frames]
    assert indices == sorted(set(indices))


def test_killed_and_restarted_at_another_resolution(
    rtsp_server: RtspServer, clips: Clips, read_numbers: ReadNumbers
) -> None:
    rtsp_server.start(clips[240, 320])
    with open_source(rtsp_server.url) as source:
        collector = Collector(source)
        collector.wait_for(15)
        assert source.fps == 25
        rtsp_server.kill()
        collector.wait_until(lambda: source.counters().outages == 1)
        time.sleep(1.5)  # an outage that several attempts fall into
        back_s = rtsp_server.start(clips[360, 480])
        first_s = collector.wait_for(15, (360, 480, 3))
        assert first_s - back_s < RESUMES_WITHIN_S
        counters = source.counters()
        assert counters.captured == sum(
            (counters.delivered, counters.dropped_newer, counters.dropped_stale, counters.waiting)
        )
    collector.join()
    assert collector.error is None
    check_frames(collector.of((240, 320, 3)), read_numbers)
    check_frames(collector.of((360, 480, 3)), read_numbers)
    assert len(collector.frames) == len(collector.of((240, 320, 3))) + len(collector.of((360, 480, 3)))
    assert {frame.source for _, frame in collector.frames} == {rtsp_server.url}


@pytest.mark.parametrize("kilobytes", [1000, 1101, pytest.param(1202, marks=pytest.mark.slow)])
def test_a_line_cut_inside_a_picture_leaves_no_torn_one(
    rtsp_server: RtspServer, clips: Clips, read_numbers: ReadNumbers, cut_line: type[CutLine], kilobytes: int
) -> None:
    rtsp_server.start(clips[360, 480])
    line = cut_line(rtsp_server.port, bytes_to_client=kilobytes * 1000)
    with open_source(f"rtsp://127.0.0.1:{line.port}/live", retries=0) as source:
        collector = Collector(source)
        collector.join()
    line.close()
    assert "was lost" in str(collector.error)
    assert len(collector.frames) > 3
    check_frames(collector.frames, read_numbers)


def test_lost_for_good_after_two_retries(rtsp_server: RtspServer, clips: Clips) -> None:
    rtsp_server.start(clips[240, 320])
    with open_source(rtsp_server.url, retries=2) as source:
        next(source)
        rtsp_server.kill()
        with pytest.raises(SourceError, match=r"was lost and did not come back in 2 attempts") as caught:
            list(source)
    assert f"127.0.0.1:{rtsp_server.port} does not answer (Connection refused)" in str(caught.value)
    assert caught.value.exit_code == 4


def test_a_server_that_starts_after_us_is_waited_for(
    rtsp_server: RtspServer, clips: Clips, read_numbers: ReadNumbers
) -> None:
    with pytest.raises(SourceError, match="does not answer"):  # while somebody watches, a wrong name is likelier
        open_source(rtsp_server.url)
    with open_source(rtsp_server.url, retries=math.inf) as source:
        collector = Collector(source)
        time.sleep(1.0)
        back_s = rtsp_server.start(clips[240, 320])
        assert collector.wait_for(5) - back_s < RESUMES_WITHIN_S
        assert source.counters().outages == 0
    collector.join()
    check_frames(collector.frames, read_numbers)


def test_a_server_that_hangs_is_noticed_and_opened_again(
    rtsp_server: RtspServer, clips: Clips, read_numbers: ReadNumbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "TIMEOUT_MS", 700)
    rtsp_server.start(clips[240, 320])
    with open_source(rtsp_server.url) as source:
        collector = Collector(source)
        collector.wait_for(5)
        rtsp_server.signal(signal.SIGSTOP)  # connections stay open, and nothing comes
        collector.wait_until(lambda: source.counters().outages == 1)
        hung = len(collector.frames)
        rtsp_server.signal(signal.SIGCONT)
        back_s = time.monotonic()
        collector.wait_for(hung + 5)
        assert collector.frames[hung][0] - back_s < RESUMES_WITHIN_S
    collector.join()
    check_frames(collector.frames[:hung], read_numbers)
    check_frames(collector.frames[hung:], read_numbers)  # this server begins its clip anew for a new client


def test_who_joins_between_key_frames_gets_no_smear(
    rtsp_server: RtspServer, clips: Clips, read_numbers: ReadNumbers
) -> None:
    rtsp_server.start(clips[240, 320], key_interval=40)
    with open_source(rtsp_server.url) as first:
        for _ in range(10):
            next(first)
        with open_source(rtsp_server.url) as second:
            late = Collector(second)
            late.wait_for(5)
    late.join()
    check_frames(late.frames, read_numbers)
    assert read_numbers(late.frames[0][1].image)[0] >= 40  # it waited for the next key frame

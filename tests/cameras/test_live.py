"""Live sources: the newest frame, reconnection, loss. A real HTTP camera and real captures, on this machine."""

from __future__ import annotations

import logging
import math
import os
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from edgekit.cameras import Counters, open_source, stream
from edgekit.cameras.live import LiveSource
from edgekit.cameras.opencv_capture import OpenCVCapture
from edgekit.cameras.stream import open_stream, without_password
from edgekit.errors import SourceError, UsageError

if TYPE_CHECKING:
    from conftest import HandFed, MjpegCamera

MakeLive = Callable[..., LiveSource]


def test_frames_come_as_rgb_with_their_time_of_capture(mjpeg_camera: MjpegCamera) -> None:
    with open_source(mjpeg_camera.url) as source:
        assert source.live
        assert source.frame_count is None
        frame = next(source)
    assert abs(time.time() - frame.time_s) < 5
    assert frame.image.shape == (48, 64, 3)
    assert frame.image[..., 0].mean() > 180  # red
    assert frame.image[..., 1].mean() < 30
    assert frame.source == mjpeg_camera.url


def test_a_slow_reader_gets_the_newest_frame_and_none_twice(mjpeg_camera: MjpegCamera) -> None:
    with open_source(mjpeg_camera.url) as source:
        indices = []
        for _ in range(4):
            frame = next(source)
            indices.append(frame.index)
            time.sleep(0.2)  # ten frames pass
        assert time.time() - frame.time_s < 1.0
        assert source.dropped >= 10
    steps = np.diff(indices)
    assert (steps > 3).all()
    assert source.dropped >= steps.sum() - len(steps)


def picture(level: int) -> np.ndarray:
    return np.full((4, 4, 3), level, np.uint8)


def wait_until(source: LiveSource, *, timeout_s: float = 10.0, **counts: int) -> Counters:
    """Until the counters of ``source`` have these values."""
    deadline = time.monotonic() + timeout_s
    while any(getattr(counters := source.counters(), name) != value for name, value in counts.items()):
        assert time.monotonic() < deadline, counters
        time.sleep(0.002)
    return counters


def threads_of(source: LiveSource) -> int:
    return sum(thread.name == f"reader of {source.name}" for thread in threading.enumerate())


def test_it_comes_back_after_a_loss_even_with_another_size(
    mjpeg_camera: MjpegCamera, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="edgekit"), open_stream(mjpeg_camera.url) as source:
        first = next(source)
        mjpeg_camera.online = False
        wait_until(source, outages=1)
        mjpeg_camera.size = (32, 40)
        mjpeg_camera.online = True
        last = next(frame for frame in source if frame.image.shape == (32, 40, 3))
    assert last.index > first.index
    assert "is lost; attempt 1 in" in caplog.text
    assert "is back after" in caplog.text


def test_another_size_without_a_loss_is_scaled_to_the_first(mjpeg_camera: MjpegCamera) -> None:
    with open_stream(mjpeg_camera.url) as source:
        next(source)
        mjpeg_camera.size = (32, 40)
        for _ in range(10):
            frame = next(source)
            assert frame.image.shape == (48, 64, 3)
            assert np.ptp(frame.image[..., 2].astype(int)) <= 6  # scaled, not a part of it
        assert source.counters().outages == 0


def test_a_picture_that_is_cut_off_is_not_given(mjpeg_camera: MjpegCamera) -> None:
    mjpeg_camera.size = (240, 320)
    with open_source(mjpeg_camera.url, retries=0) as source:
        frames = [next(source), next(source)]
        mjpeg_camera.cut_in_picture = True
        with pytest.raises(SourceError, match="was lost"):
            frames.extend(source)
    levels = [frame.image[..., 2].astype(int) for frame in frames]
    assert all(np.ptp(level) <= 6 for level in levels)  # one colour from top to bottom
    means = [level.mean() for level in levels]
    assert min(np.diff(means), default=1) > 0.5  # and never that of the frame before


def test_garbage_instead_of_pictures_is_a_loss(mjpeg_camera: MjpegCamera) -> None:
    with open_source(mjpeg_camera.url) as source:
        next(source)
        mjpeg_camera.garbage = True
        wait_until(source, outages=1)
        mjpeg_camera.garbage = False
        before = source.counters().captured
        for _ in range(5):
            frame = next(source)
            assert frame.image[..., 0].mean() > 180
        assert frame.index >= before


def test_a_server_that_sends_nothing_more_is_opened_again(
    mjpeg_camera: MjpegCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "TIMEOUT_MS", 300)
    with open_source(mjpeg_camera.url) as source:
        next(source)
        mjpeg_camera.stalled = True
        wait_until(source, outages=1)
        before = source.counters()
        mjpeg_camera.stalled = False
        start = time.monotonic()
        next(frame for frame in source if frame.index >= before.captured)
        assert time.monotonic() - start < 2.0


def test_a_host_that_hangs_does_not_hold_up_the_start(
    mjpeg_camera: MjpegCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "TIMEOUT_MS", 300)
    mjpeg_camera.stalled = True
    start = time.monotonic()
    with pytest.raises(SourceError, match=r"no picture came from http://.* within 0 s"):
        open_source(mjpeg_camera.url)
    assert time.monotonic() - start < 2.0


def test_a_server_for_one_client_is_asked_once(mjpeg_camera: MjpegCamera) -> None:
    with open_source(mjpeg_camera.url) as source:
        next(source)
        assert mjpeg_camera.connections == mjpeg_camera.accepted == 1


@pytest.mark.parametrize("scheme", ["rtsp", "http", "tcp"])
def test_a_server_that_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setattr(stream, "TIMEOUT_MS", 300)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"{scheme}://127.0.0.1:{server.getsockname()[1]}/x"
        start = time.monotonic()
        with pytest.raises(SourceError, match=r"did not appear in 2 attempts\.\nThe last one: no picture came from"):
            next(open_source(url, retries=2))
        assert 0.9 < time.monotonic() - start < 4


def test_reconnecting_leaks_nothing(mjpeg_camera: MjpegCamera) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    with open_source(mjpeg_camera.url) as source:
        next(source)
        before = open_files()
        for outage in range(1, 7):
            mjpeg_camera.cut_in_picture = True
            wait_until(source, outages=outage)
            captured = source.counters().captured
            next(frame for frame in source if frame.index >= captured)
        deadline = time.monotonic() + 5
        while open_files() > before:  # the server's end of the last connection may be on its way out
            assert time.monotonic() < deadline, open_files()
            time.sleep(0.01)
        assert threads_of(source) == 1


def test_lost_for_good_after_the_last_attempt(
    live: MakeLive, hand_fed: type[HandFed], caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[float] = []

    def open_capture() -> HandFed:
        attempts.append(time.monotonic())
        if len(attempts) > 1:
            raise SourceError("it is gone")
        return hand_fed(picture(1), None)

    source = live(open_capture, retries=5)
    with (
        caplog.at_level(logging.WARNING, logger="edgekit"),
        source,
        pytest.raises(SourceError, match=r"camera 3 was lost and did not come back in 5 attempts\.\n.*it is gone"),
    ):
        list(source)
    assert len(attempts) == 6
    pauses = np.diff(attempts[1:])
    assert pauses[-1] > 1.9 * pauses[0] > 0.19  # 0.2 s doubles to 1.6 s, with half of each at random
    assert caplog.text.count("camera 3 is lost") == 3  # the first, second and fourth: not one for each in a year


def test_pauses_grow_up_to_a_limit_and_are_no_two_alike(live: MakeLive, hand_fed: type[HandFed]) -> None:
    attempts: list[float] = []

    def open_capture() -> HandFed:
        attempts.append(time.monotonic())
        raise SourceError("nobody there")

    source = live(open_capture, retries=12, longest_pause_s=0.12)
    with source, pytest.raises(SourceError, match="camera 3 did not appear in 12 attempts"):
        next(source)
    pauses = np.diff(attempts[3:])
    assert pauses.min() > 0.055
    assert pauses.max() < 0.12 + 0.08
    assert np.ptp(pauses) > 0.005


def test_not_there_at_the_start_is_told_at_once_unless_retries_are_asked_for(live: MakeLive) -> None:
    def nobody() -> HandFed:
        raise SourceError("nobody there")

    for retries in (None, 0):
        with pytest.raises(SourceError, match=r"^nobody there$"):
            live(nobody, retries=retries)


def test_waits_for_a_camera_that_comes_later(live: MakeLive, hand_fed: type[HandFed]) -> None:
    here = threading.Event()

    def open_capture() -> HandFed:
        if not here.is_set():
            raise SourceError("nobody there")
        return hand_fed(picture(7))

    source = live(open_capture, retries=math.inf, longest_pause_s=0.05)
    assert source.fps is None
    time.sleep(0.1)
    assert source.problem == "camera 3 is not there yet (nobody there)"
    threading.Timer(0.3, here.set).start()
    assert next(source).image[0, 0, 0] == 7
    assert source.fps == 25
    assert source.problem is None
    assert source.counters() == Counters(captured=1, delivered=1)


def test_the_last_frame_is_given_before_the_loss_is_told(live: MakeLive, hand_fed: type[HandFed]) -> None:
    captures = iter([hand_fed(*(picture(level) for level in range(5)), None)])

    def open_capture() -> HandFed:
        for capture in captures:
            return capture
        raise SourceError("gone")

    source = live(open_capture, retries=1)
    wait_until(source, outages=1)
    assert next(source).index == 4
    with pytest.raises(SourceError, match="camera 3 was lost"):
        next(source)
    assert source.dropped == 4
    assert source.counters() == Counters(captured=5, delivered=1, dropped_newer=4, outages=1)
    source.close()


def test_a_picture_that_the_loss_follows_at_once_is_not_given(live: MakeLive, hand_fed: type[HandFed]) -> None:
    captures = iter([hand_fed(picture(1), picture(2), picture(3), None), hand_fed(picture(4))])
    source = live(lambda: next(captures), settle_s=0.2)
    wait_until(source, outages=1)
    assert next(source).image[0, 0, 0] == 2
    assert next(source).image[0, 0, 0] == 4  # nothing contradicts it
    assert source.counters() == Counters(captured=3, delivered=2, dropped_newer=1, outages=1)


def test_a_frame_from_before_the_question_gives_way_to_the_next(live: MakeLive, hand_fed: type[HandFed]) -> None:
    capture = hand_fed()
    source = live(lambda: capture, settle_s=0.1)
    for level in (1, 2):
        capture.pictures.put(picture(level))
        time.sleep(0.15)
    capture.pictures.put(picture(3))
    time.sleep(0.02)
    assert next(source).image[0, 0, 0] == 3  # 1 and 2 are known to be whole, 3 not yet
    assert source.counters() == Counters(captured=3, delivered=1, dropped_newer=2)


def test_stale_frames_are_dropped_and_counted_apart(live: MakeLive, hand_fed: type[HandFed]) -> None:
    capture = hand_fed(picture(1))
    source = live(lambda: capture, max_age_s=0.2)
    wait_until(source, waiting=1)
    time.sleep(0.3)
    threading.Timer(0.1, capture.pictures.put, [picture(2)]).start()
    frame = next(source)
    assert frame.image[0, 0, 0] == 2
    assert frame.age_s < 0.2
    assert source.counters() == Counters(captured=2, delivered=1, dropped_stale=1)
    assert source.dropped == 1


def test_ages_stay_right_when_the_clock_jumps(
    live: MakeLive, hand_fed: type[HandFed], monkeypatch: pytest.MonkeyPatch
) -> None:
    capture = hand_fed()
    source = live(lambda: capture, max_age_s=5)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86400)  # the network's time arrives: a day back
    capture.pictures.put(picture(1))
    first = next(source)
    monkeypatch.setattr(time, "time", lambda: now + 86400)
    capture.pictures.put(picture(2))
    second = next(source)
    assert second.time_s - first.time_s == pytest.approx(2 * 86400)
    assert 0 <= second.age_s <= first.age_s < 5
    assert source.counters() == Counters(captured=2, delivered=2)


def test_counters_add_up_at_every_moment(live: MakeLive, hand_fed: type[HandFed]) -> None:
    capture = hand_fed()
    source = live(lambda: capture, max_age_s=0.003, settle_s=0.0005)
    done = threading.Event()
    wrong: list[Counters] = []
    seen: list[int] = []

    def look() -> None:
        while not done.is_set():
            now = source.counters()
            if now.captured != now.delivered + now.dropped_newer + now.dropped_stale + now.waiting or now.waiting > 1:
                wrong.append(now)
            time.sleep(0.0002)

    def take() -> None:
        for frame in source:
            seen.append(frame.index)
            time.sleep(0.001 * (frame.index % 5))

    threads = [threading.Thread(target=run, daemon=True) for run in (look, take)]
    for thread in threads:
        thread.start()
    for level in range(400):
        capture.pictures.put(picture(level % 256))
        time.sleep(0.001 * (level % 3))
    end = wait_until(source, captured=400)
    done.set()
    source._stop.set()
    capture.pictures.put(None)
    for thread in threads:
        thread.join(timeout=5)
    end = source.counters()
    assert wrong == []
    assert end.delivered == len(seen)
    assert seen == sorted(set(seen))
    assert min(end.delivered, end.dropped_newer) > 20


def test_an_error_in_the_reader_reaches_who_waits(live: MakeLive, hand_fed: type[HandFed]) -> None:
    class Broken(hand_fed):  # type: ignore[misc, valid-type]
        def read(self) -> None:
            raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        next(live(Broken))


@pytest.mark.slow
def test_overload_does_not_let_frames_grow_old(mjpeg_camera: MjpegCamera) -> None:
    mjpeg_camera.fps = 30.0
    with open_source(mjpeg_camera.url) as source:
        ages = []
        for _ in range(100):
            ages.append(next(source).age_s)
            time.sleep(0.2)  # an engine of 5 frames a second
    assert np.percentile(ages[1:], 90) < 1 / 30 + stream.SETTLE_S
    assert max(ages[50:]) < max(ages[:50]) + 0.1
    assert source.counters().dropped_newer > 300


def test_closing_ends_the_thread_and_a_waiting_reader(mjpeg_camera: MjpegCamera) -> None:
    mjpeg_camera.fps = 2.0
    source = open_source(mjpeg_camera.url)
    next(source)
    threading.Timer(0.2, source.close).start()
    assert len(list(source)) <= 2
    source.close()
    assert threads_of(source) == 0


def test_closing_does_not_wait_for_the_next_attempt(live: MakeLive, hand_fed: type[HandFed]) -> None:
    def nobody() -> HandFed:
        raise SourceError("nobody there")

    source = live(nobody, retries=math.inf, longest_pause_s=60)
    source._pause_s = 60
    time.sleep(0.3)  # it is in the long pause by now
    start = time.monotonic()
    source.close()
    assert time.monotonic() - start < 1.5
    assert list(source) == []


def test_the_capture_is_released_once_lost(live: MakeLive, hand_fed: type[HandFed]) -> None:
    first, second = hand_fed(picture(1), None), hand_fed(picture(2))
    captures = iter([first, second])
    source = live(lambda: next(captures))
    wait_until(source, captured=2)
    assert (first.released, second.released) == (1, 0)
    source._stop.set()
    second.pictures.put(None)
    source.close()
    assert second.released == 1


@pytest.mark.parametrize(("retries", "max_age_s"), [(-1, None), (math.nan, None), (None, 0), (None, math.nan)])
def test_numbers_that_cannot_be(retries: float | None, max_age_s: float | None) -> None:
    with pytest.raises(UsageError, match="must be"):
        open_source("0", retries=retries, max_age_s=max_age_s)


def test_a_backlog_is_passed_over() -> None:
    class Burst:
        """Gives five pictures at once, then one every 30 ms."""

        count = 0

        def read(self) -> tuple[bool, np.ndarray]:
            self.count += 1
            if self.count > 5:
                time.sleep(0.03)
            return True, picture(self.count)

        def get(self, _key: int) -> float:
            return 25.0

    burst = Burst()
    capture = OpenCVCapture(burst, picture(0))  # type: ignore[arg-type]
    capture.skip_backlog()
    assert [capture.read()[0, 0, 0] for _ in range(2)] == [6, 7]  # type: ignore[index]


def test_nobody_answers_and_the_password_stays_secret() -> None:
    with pytest.raises(SourceError, match=r"no picture came from http://\*\*\*@127\.0\.0\.1:9/x") as caught:
        open_source("http://anna:secret@127.0.0.1:9/x")
    assert "secret" not in str(caught.value)


def test_without_password() -> None:
    assert without_password("rtsp://a:b%40c@cam/live?x=1@2") == "rtsp://***@cam/live?x=1@2"
    assert without_password("rtsp://cam/live@home") == "rtsp://cam/live@home"
    assert without_password("rtsp://cam:554/live@home") == "rtsp://cam:554/live@home"
    assert without_password("rtsp://[::1]:554/live@home") == "rtsp://[::1]:554/live@home"


@given(
    st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=1).filter(
        lambda password: not re.search(r"@.*[/?#]", password)
    )
)
@example("@/")
def test_no_character_of_a_password_shows_it(password: str) -> None:
    secret = f"SeCrEt{password}SeCrEt"  # as users type it, and not as it should be written
    shown = without_password(f"rtsp://anna:{secret}@cam:554/live")
    assert "SeCrEt" not in shown
    assert shown.endswith("@cam:554/live")


@pytest.mark.parametrize("password", ["pa#ss", "pa/ss", "pa?ss", "pa:ss"])
def test_a_password_that_breaks_the_url_is_not_in_the_message(password: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(f"rtsp://anna:{password}@127.0.0.1:9/x")
    assert "pa" + password[2:3] not in str(caught.value)
    assert "ss@" not in str(caught.value)
    assert "%23" in str(caught.value) or "Connection refused" in str(caught.value)

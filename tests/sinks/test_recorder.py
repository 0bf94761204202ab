"""Recorded frames: which are kept, what the folder holds, and that nothing else is ever lost in it."""

from __future__ import annotations

import datetime
import errno
import json
import logging
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgekit.cameras import Frame, open_source
from edgekit.errors import StorageError, UsageError
from edgekit.sinks import recorder as module
from edgekit.sinks.recorder import Recorder

if TYPE_CHECKING:
    from conftest import MakeResult

CLASSES = ("person", "cat")


def make_frame(
    index: int, *, seconds: float | None = None, level: int = 100, height: int = 96, width: int = 128
) -> Frame:
    """A noisy picture of one grey level, captured at ``seconds`` (the index otherwise)."""
    noise = np.random.default_rng(index).integers(-6, 7, (height, width, 3))
    image = np.clip(level + noise, 0, 255).astype(np.uint8)
    captured_s = float(index if seconds is None else seconds)
    return Frame(image=image, index=index, time_s=1.7e9 + captured_s, source="camera 0", captured_s=captured_s)


def with_person(frame: Frame, *, left: int, width: int = 12, height: int = 30) -> Frame:
    frame.image[40 : 40 + height, left : left + width] = 230
    return frame


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "index.jsonl").read_text().splitlines()]


def pictures_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix in (".jpg", ".png"))


def always(folder: Path, **options: Any) -> Recorder:
    """Keeps every frame."""
    return Recorder(folder, CLASSES, **{"motion": None, "every_s": 0.0, "spare_mb": 0.0, **options})


def test_pictures_and_their_index(tmp_path: Path, make_result: MakeResult) -> None:
    sink = always(tmp_path / "a" / "b")
    frames = [make_frame(index, level=50 * index + 50) for index in range(3)]
    for frame in frames:
        sink.write(frame, make_result([[1, 2, 30, 40]], class_ids=[1]))
    sink.close()
    folder = tmp_path / "a" / "b"
    lines = lines_of(folder)
    assert [line["file"] for line in lines] == pictures_in(folder)
    assert all(module.NAME.fullmatch(line["file"]) for line in lines)
    assert [line["time"] for line in lines] == [1.7e9, 1.7e9 + 1, 1.7e9 + 2]
    assert [line["frame"] for line in lines] == [0, 1, 2]
    assert lines[0]["source"] == "camera 0"
    assert lines[0]["detections"] == [{"class": "cat", "score": 0.9, "box_xyxy": [1.0, 2.0, 30.0, 40.0]}]
    for frame, line in zip(frames, lines, strict=True):
        path = folder / line["file"]
        assert path.stat().st_size == line["bytes"]
        assert np.abs(np.asarray(Image.open(path)).astype(int) - frame.image).mean() < 3
    assert (sink.recorded, sink.dropped, sink.deleted) == (3, 0, 0)
    with open_source(str(folder)) as source:  # as calibration and pretraining read it
        assert [Path(frame.source).name for frame in source] == [line["file"] for line in lines]


def test_png_keeps_every_pixel(tmp_path: Path, make_result: MakeResult) -> None:
    sink = always(tmp_path, image_format="png")
    sink.write(make_frame(0), make_result())
    sink.close()
    (name,) = pictures_in(tmp_path)
    assert np.array_equal(np.asarray(Image.open(tmp_path / name)), make_frame(0).image)


def kept(sink: Recorder, frames: list[Frame], result: Any) -> list[int]:
    """Indices of the frames that were kept."""
    indices = []
    for frame in frames:
        before = sink.recorded
        sink.write(frame, result)
        if sink.recorded > before:
            indices.append(frame.index)
    sink.close()
    return indices


def test_motion_is_kept_and_noise_is_not(tmp_path: Path, make_result: MakeResult) -> None:
    frames = [make_frame(index) for index in range(30)]
    for index in range(10, 20):
        with_person(frames[index], left=8 * (index - 10))
    sink = Recorder(tmp_path, CLASSES, spare_mb=0)
    indices = kept(sink, frames, make_result())
    assert indices[0] == 0
    assert indices[1] == 10
    assert set(indices[1:-1]) <= set(range(10, 20))
    assert len(indices) > 5
    assert indices[-1] == 20  # the empty scene again


def test_motion_is_kept_only_so_often(tmp_path: Path, make_result: MakeResult) -> None:
    frames = [with_person(make_frame(n, seconds=n / 30), left=n) for n in range(90)]
    indices = kept(Recorder(tmp_path, CLASSES, motion=0.0, spare_mb=0), frames, make_result())
    assert indices == [0, 15, 30, 45, 60, 75]


def test_every_n_seconds_by_the_monotonic_clock(tmp_path: Path, make_result: MakeResult) -> None:
    frames = [make_frame(n, seconds=0.4 * n) for n in range(20)]
    indices = kept(Recorder(tmp_path, CLASSES, motion=None, every_s=2.0, spare_mb=0), frames, make_result())
    assert indices == [0, 5, 10, 15]


def test_seconds_of_a_video_are_its_own(tmp_path: Path, make_result: MakeResult) -> None:
    frames = [replace(make_frame(n, seconds=n / 200), time_s=n / 10) for n in range(45)]  # read at 200 a second
    sink = Recorder(tmp_path, CLASSES, motion=None, every_s=2.0, spare_mb=0)
    assert kept(sink, frames, make_result()) == [0, 20, 40]


def test_a_clock_that_is_set_back_does_not_stop_it(tmp_path: Path, make_result: MakeResult) -> None:
    frames = [replace(make_frame(n), time_s=1.7e9 + n - (0 if n < 5 else 86400)) for n in range(10)]
    sink = Recorder(tmp_path, CLASSES, motion=None, every_s=2.0, spare_mb=0)
    assert kept(sink, frames, make_result()) == [0, 2, 4, 6, 8]


def test_another_size_is_kept(tmp_path: Path, make_result: MakeResult) -> None:
    frames = [make_frame(0), make_frame(1), make_frame(2, height=60), make_frame(3, height=60)]
    assert kept(Recorder(tmp_path, CLASSES, spare_mb=0), frames, make_result()) == [0, 2]


def test_the_oldest_go_and_only_our_own(tmp_path: Path, make_result: MakeResult) -> None:
    foreign = {"holiday.jpg": b"x" * 50_000, "20200101T000000.000Z.jpg": b"y" * 50_000, "notes.txt": b"z"}
    for name, content in foreign.items():
        (tmp_path / name).write_bytes(content)
    sink = always(tmp_path, budget_mb=0.05, image_format="png")
    for index in range(12):
        sink.write(make_frame(index), make_result())
        assert sink.bytes <= 50_000
    sink.close()
    lines = lines_of(tmp_path)
    assert lines[-1]["frame"] == 11
    assert [line["frame"] for line in lines] == list(range(12 - len(lines), 12))
    assert sink.deleted == 12 - len(lines) > 0
    assert sum(line["bytes"] for line in lines) == sink.bytes
    assert {name: (tmp_path / name).read_bytes() for name in foreign} == foreign
    assert set(pictures_in(tmp_path)) == {line["file"] for line in lines} | {"holiday.jpg", "20200101T000000.000Z.jpg"}


def test_the_index_does_not_grow_for_ever(tmp_path: Path, make_result: MakeResult) -> None:
    sink = always(tmp_path, budget_mb=0.02)
    result = make_result()
    longest = 0
    for index in range(400):
        sink.write(make_frame(index, height=48, width=48), result)
        longest = max(longest, len(lines_of(tmp_path)))
    assert longest < 150
    sink.close()
    assert [line["file"] for line in lines_of(tmp_path)] == pictures_in(tmp_path)


def test_a_later_run_knows_the_pictures_of_an_earlier_one(tmp_path: Path, make_result: MakeResult) -> None:
    first = always(tmp_path)
    for index in range(4):
        first.write(make_frame(index), make_result())
    first.close()
    names = pictures_in(tmp_path)
    second = always(tmp_path, budget_mb=first.bytes / 1e6 * 0.8)
    assert second.bytes == first.bytes
    second.write(make_frame(9), make_result())
    second.close()
    assert names[0] not in pictures_in(tmp_path)
    assert pictures_in(tmp_path)[-1] > names[-1]


def test_what_a_power_cut_leaves_is_cleared_away(tmp_path: Path, make_result: MakeResult) -> None:
    sink = always(tmp_path)
    for index in range(3):
        sink.write(make_frame(index), make_result())
    sink.close()
    first, second, third = pictures_in(tmp_path)
    (tmp_path / first).write_bytes(b"")  # its name reached the disk, its content did not
    (tmp_path / second).unlink()
    (tmp_path / ".20260101T000000.000Z.jpg.part").write_bytes(b"half")
    (tmp_path / ".mine.part").write_bytes(b"not a recorder's")
    with (tmp_path / "index.jsonl").open("ab") as index:
        index.write(b'{"file": "20260101T0000')
    again = always(tmp_path)
    assert pictures_in(tmp_path) == [third]
    assert [line["file"] for line in lines_of(tmp_path)] == [third]
    again.write(make_frame(7), make_result())
    again.close()
    assert [line["frame"] for line in lines_of(tmp_path)] == [2, 7]
    assert {path.name for path in tmp_path.glob(".*")} == {".mine.part", ".recorder.lock"}


@settings(deadline=None)  # the disk of a busy machine
@given(st.lists(st.binary(max_size=60) | st.sampled_from([
    b'{"file": "../secret.jpg", "bytes": 3}', b'{"file": "20260101T000000.000Z.jpg", "bytes": 3}', b"[" * 9000,
    b'{"file": "20261301T000000.000Z.jpg", "bytes": 3}', b'{"file": 3, "bytes": 3}', b"null", b"\xff\xfe",
])))  # fmt: skip
def test_no_index_makes_it_touch_what_it_did_not_write(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "frames"
        folder.mkdir()
        (Path(name) / "secret.jpg").write_bytes(b"abc")
        (folder / "index.jsonl").write_bytes(b"\n".join(lines))
        sink = always(folder, budget_mb=1e-6)
        sink.write(make_frame(0), None)  # type: ignore[arg-type] - it is over the budget before anybody looks
        sink.close()
        assert sink.dropped == 1
        assert (Path(name) / "secret.jpg").read_bytes() == b"abc"


WRITE_ON = """
import sys, time, numpy as np
from pathlib import Path
from edgekit.cameras import Frame
from edgekit.detections import Detections
from edgekit.pipeline import FrameResult
from edgekit.sinks.recorder import Recorder
sink = Recorder(Path(sys.argv[1]), ("person",), motion=None, every_s=0.0, budget_mb=0.3, spare_mb=0)
result = FrameResult(detections=Detections.empty(), mask=np.ones((1, 1), bool), active_share=1.0, timings_ms={})
image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
print("ready", flush=True)
for index in range(1_000_000):
    sink.write(Frame(image=image, index=index, time_s=float(index), source="x"), result)
"""


def test_killed_at_any_moment_every_picture_is_whole(tmp_path: Path) -> None:
    rng = random.Random(0)
    for _ in range(4):
        child = subprocess.Popen([sys.executable, "-c", WRITE_ON, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(rng.uniform(0.05, 0.25))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        for name in pictures_in(tmp_path):
            Image.open(tmp_path / name).load()
        sink = always(tmp_path)
        sink.close()
        assert [line["file"] for line in lines_of(tmp_path)] == pictures_in(tmp_path)
        assert len(pictures_in(tmp_path)) > 3


def no_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_stops_the_recording_and_not_the_run(
    tmp_path: Path, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sink = always(tmp_path, pause_s=0.2)
    sink.write(make_frame(0), make_result())
    with monkeypatch.context() as full, caplog.at_level(logging.WARNING, logger="edgekit"):
        full.setattr(os, "write", no_space)
        for index in range(1, 6):
            sink.write(make_frame(index), make_result())
    assert (sink.recorded, sink.dropped) == (1, 5)
    assert [record.getMessage() for record in caplog.records] == [
        f"record: recording in {tmp_path} stops for 0 s: No space left on device"
    ]
    assert len(pictures_in(tmp_path)) == len(lines_of(tmp_path)) == 1
    assert not list(tmp_path.glob(".*.part"))
    time.sleep(0.25)
    with caplog.at_level(logging.WARNING, logger="edgekit"):
        sink.write(make_frame(6), make_result())
    sink.close()
    assert "goes on; 5 frames were left out so far" in caplog.text
    assert [line["frame"] for line in lines_of(tmp_path)] == [0, 6]


def test_a_line_that_does_not_fit_leaves_neither_picture_nor_half_a_line(
    tmp_path: Path, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = always(tmp_path, pause_s=0.0)
    sink.write(make_frame(0), make_result())
    whole = (tmp_path / "index.jsonl").read_bytes()
    write, calls = os.write, []

    def fills_up(fd: int, content: memoryview) -> int:
        calls.append(len(content))
        if len(calls) == 1:
            return write(fd, content)  # the picture
        if len(calls) == 2:
            return write(fd, content[:10])  # a part of the line
        return no_space()

    with monkeypatch.context() as full:
        full.setattr(os, "write", fills_up)
        sink.write(make_frame(1), make_result())
    assert sink.dropped == 1
    assert (tmp_path / "index.jsonl").read_bytes() == whole
    assert len(pictures_in(tmp_path)) == 1
    sink.write(make_frame(2), make_result())
    sink.close()
    assert [line["frame"] for line in lines_of(tmp_path)] == [0, 2]


def test_a_real_limit_on_file_size(tmp_path: Path, make_result: MakeResult) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    sink = always(tmp_path, image_format="png", pause_s=0.0)
    sink.write(make_frame(0, height=16, width=16), make_result())
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        sink.write(make_frame(1), make_result())  # over 5000 bytes
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    sink.write(make_frame(2), make_result())
    sink.close()
    assert (sink.recorded, sink.dropped) == (2, 1)
    assert [line["frame"] for line in lines_of(tmp_path)] == [0, 2]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_a_real_disk_that_fills_up(tmp_path: Path, make_result: MakeResult) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        sink = always(disk, image_format="png", pause_s=0.0)
        for index in range(20):
            sink.write(make_frame(index), make_result())
        assert sink.recorded + sink.dropped == 20
        assert min(sink.recorded, sink.dropped) > 3
        sink.close()
        assert [line["file"] for line in lines_of(disk)] == pictures_in(disk)
        for name in pictures_in(disk):
            Image.open(disk / name).load()
        (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free))
        with_no_space = always(disk, pause_s=0.0)  # a start on a full disk is no error
        with_no_space.write(make_frame(30), make_result())
        assert with_no_space.dropped == 1
        (disk / "ballast").unlink()
        with_no_space.write(make_frame(31), make_result())
        assert with_no_space.recorded == 1
        with_no_space.close()
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_some_of_the_disk_stays_free(tmp_path: Path, make_result: MakeResult, caplog: pytest.LogCaptureFixture) -> None:
    sink = always(tmp_path, spare_mb=shutil.disk_usage(tmp_path).free / 1e6 + 1000)
    sink.write(make_frame(0), make_result())
    assert (sink.recorded, sink.dropped) == (0, 1)
    assert "the disk is full: less than" in caplog.text
    sink.close()


def test_a_folder_that_goes_and_comes_back(tmp_path: Path, make_result: MakeResult) -> None:
    stick = tmp_path / "stick"
    sink = always(stick, pause_s=0.0)
    sink.write(make_frame(0), make_result())
    stick.rename(tmp_path / "pulled out")
    sink.write(make_frame(1), make_result())
    assert not stick.exists()  # nothing is written where a stick was mounted
    (tmp_path / "pulled out").rename(stick)
    sink.write(make_frame(2), make_result())
    sink.close()
    assert (sink.recorded, sink.dropped) == (2, 1)
    assert [line["frame"] for line in lines_of(stick)] == [0, 2]


def test_missed_turns_are_counted_and_not_frames(
    tmp_path: Path, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", no_space)
    sink = Recorder(tmp_path, CLASSES, motion=None, every_s=1.0, spare_mb=0)
    for index in range(50):
        sink.write(make_frame(index, seconds=index / 10), make_result())
    assert sink.dropped == 5


def test_two_runs_on_one_folder(tmp_path: Path, make_result: MakeResult) -> None:
    first = always(tmp_path)
    with pytest.raises(StorageError, match="another run records there; choose another folder"):
        always(tmp_path)
    first.write(make_frame(0), make_result())
    first.close()
    always(tmp_path).close()


def test_names_sort_when_the_clock_is_set_back(
    tmp_path: Path, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([2000, 2001, 1000, 1001])

    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Clock:
            return cls.fromtimestamp(next(times), tz)

    monkeypatch.setattr(module.datetime, "datetime", Clock)
    sink = always(tmp_path)
    for index in range(4):
        sink.write(make_frame(index), make_result())
    sink.close()
    names = [line["file"] for line in lines_of(tmp_path)]
    assert names == sorted(names)
    assert names[1:] == [f"19700101T003321.00{n}Z.jpg" for n in range(3)]


def test_a_name_that_is_taken_is_left_alone(
    tmp_path: Path, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Clock:
            return cls.fromtimestamp(2000, tz)

    monkeypatch.setattr(module.datetime, "datetime", Clock)
    (tmp_path / "19700101T003320.000Z.jpg").write_bytes(b"somebody's")
    sink = always(tmp_path)
    sink.write(make_frame(0), make_result())
    sink.close()
    assert (tmp_path / "19700101T003320.000Z.jpg").read_bytes() == b"somebody's"
    assert lines_of(tmp_path)[0]["file"] == "19700101T003320.001Z.jpg"


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match=f"frames cannot be recorded in {path}: (File exists|Not a directory)"):
            always(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"motion": None, "every_s": None}, "nothing would be recorded"),
        ({"motion": 1.5}, "a share of the pixels from 0 to 1, not 1.5"),
        ({"motion": float("nan")}, "not nan"),
        ({"every_s": -1}, "every -1 s"),
        ({"budget_mb": 0}, "must be over 0 MB, not 0"),
        ({"image_format": "gif"}, "as jpg or png, not as 'gif'"),
    ],
)
def test_wishes_that_cannot_be(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        always(tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_descriptors_stay_constant(tmp_path: Path, make_result: MakeResult) -> None:
    sink = always(tmp_path, budget_mb=0.01)
    sink.write(make_frame(0, height=32, width=32), make_result())
    before = len(os.listdir("/proc/self/fd"))
    for index in range(300):
        sink.write(make_frame(index, height=32, width=32), make_result())
    assert len(os.listdir("/proc/self/fd")) == before
    sink.close()
    assert len(os.listdir("/proc/self/fd")) == before - 2


def test_nothing_is_looked_at_before_a_frame_can_be_due(
    tmp_path: Path, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    thumbnail = module._thumbnail
    monkeypatch.setattr(module, "_thumbnail", lambda image: looked.append(1) or thumbnail(image))
    frames = [make_frame(n, seconds=n / 30) for n in range(17)]
    assert kept(Recorder(tmp_path, CLASSES, spare_mb=0), frames, make_result()) == [0]
    assert len(looked) == 3  # the first one, which is kept, and those from half a second on

"""The annotated video: complete and playable at the end, or nothing and an error."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgekit.cameras import Frame, open_source
from edgekit.errors import StorageError, UsageError
from edgekit.sinks import video
from edgekit.sinks.video import CODECS, VideoWriter
from edgekit.spec import DetectorSpec

if TYPE_CHECKING:
    from conftest import MakeFrame, MakeResult


@pytest.mark.parametrize("suffix", CODECS)
def test_every_container_can_be_played(
    tmp_path: Path, suffix: str, spec: DetectorSpec, make_frame: MakeFrame, make_result: MakeResult
) -> None:
    path = tmp_path / f"out{suffix}"
    sink = VideoWriter(path, spec, fps=10)
    for index in range(9):
        sink.write(make_frame(index), make_result())
        assert not path.exists()
    sink.close()
    assert list(tmp_path.iterdir()) == [path]
    with open_source(str(path)) as source:
        assert source.fps == pytest.approx(10)
        frames = list(source)
    assert len(frames) == 9
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[0].image[20, 20].mean() > 150  # active
    assert frames[0].image[20, 60].mean() < 110  # not


@pytest.mark.parametrize("fps", [24.012948418594778, 29.97, 12.5, 0.5, 120.0])
def test_odd_rates(
    tmp_path: Path, fps: float, spec: DetectorSpec, make_frame: MakeFrame, make_result: MakeResult
) -> None:
    sink = VideoWriter(tmp_path / "out.mp4", spec, fps=fps)
    for index in range(3):
        sink.write(make_frame(index), make_result())
    sink.close()
    with open_source(str(tmp_path / "out.mp4")) as source:
        assert source.fps == pytest.approx(fps, rel=0.01)
        assert len(list(source)) == 3


def test_frames_of_other_sizes_are_fitted_in(
    tmp_path: Path, spec: DetectorSpec, make_frame: MakeFrame, make_result: MakeResult
) -> None:
    sink = VideoWriter(tmp_path / "out.mp4", spec, fps=10)
    for height, width in ((49, 65), (48, 64), (200, 100), (1, 1)):
        sink.write(make_frame(height=height, width=width), make_result())
    sink.close()
    with open_source(str(tmp_path / "out.mp4")) as source:
        assert [frame.image.shape for frame in source] == [(48, 64, 3)] * 4


def test_live_frames_keep_the_time(
    tmp_path: Path, spec: DetectorSpec, make_frame: MakeFrame, make_result: MakeResult
) -> None:
    sink = VideoWriter(tmp_path / "out.avi", spec, fps=10, live=True)
    start = 1_700_000_000.0
    for passed in (0.0, 0.01, 0.02, 0.5, 1.0, 61.0, 61.1):  # two early ones, then a minute's outage
        sink.write(make_frame(time_s=0.0, captured_s=start + passed), make_result())
    sink.close()
    with open_source(str(tmp_path / "out.avi")) as source:
        assert len(list(source)) == 1 + 5 + 5 + 20 + 1


def test_an_old_file_is_replaced_only_at_the_end(
    tmp_path: Path, spec: DetectorSpec, make_frame: MakeFrame, make_result: MakeResult
) -> None:
    path = tmp_path / "out.mp4"
    path.write_text("old")
    sink = VideoWriter(path, spec, fps=10)
    sink.write(make_frame(), make_result())
    assert path.read_text() == "old"
    sink.close()
    assert path.stat().st_size > 100


def test_two_runs_do_not_share_a_file(
    tmp_path: Path, spec: DetectorSpec, make_frame: MakeFrame, make_result: MakeResult
) -> None:
    path = tmp_path / "out.mp4"
    sink = VideoWriter(path, spec, fps=10)
    sink.write(make_frame(), make_result())
    with pytest.raises(StorageError, match="another run is writing to it"):
        VideoWriter(path, spec, fps=10)
    sink.write(make_frame(1), make_result())
    sink.close()
    with open_source(str(path)) as source:
        assert len(list(source)) == 2
    VideoWriter(path, spec, fps=10).close()


def test_no_frame_no_file(tmp_path: Path, spec: DetectorSpec) -> None:
    VideoWriter(tmp_path / "out.mp4", spec, fps=10).close()
    assert list(tmp_path.iterdir()) == []


def test_unknown_suffix(tmp_path: Path, spec: DetectorSpec) -> None:
    with pytest.raises(UsageError, match=r"saved as \.mp4, .* not as 'out\.gif'"):
        VideoWriter(tmp_path / "out.gif", spec, fps=10)


def test_folder_that_is_not_there(tmp_path: Path, spec: DetectorSpec) -> None:
    with pytest.raises(StorageError, match=r"cannot be written to .*: No such file"):
        VideoWriter(tmp_path / "no" / "out.mp4", spec, fps=10)


@contextmanager
def files_of_at_most_20_kb() -> Iterator[None]:
    """The nearest thing to a full disk that needs no privileges: writes over the limit fail.

    Not a fixture: what pytest reports before it ends one may go into a longer file.
    """
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


@pytest.mark.parametrize("suffix", CODECS)
def test_write_errors_are_noticed_and_nothing_is_left(
    tmp_path: Path, suffix: str, spec: DetectorSpec, make_result: MakeResult
) -> None:
    generator = np.random.default_rng(0)
    with files_of_at_most_20_kb():
        sink = VideoWriter(tmp_path / f"out{suffix}", spec, fps=15)
        for index in range(12):
            noise = generator.integers(0, 256, (240, 320, 3), np.uint8)  # does not compress
            sink.write(Frame(image=noise, index=index, time_s=0.0, source="noise"), make_result())
        with pytest.raises(StorageError, match="could not be written: 12 frames went in"):
            sink.close()
    assert list(tmp_path.iterdir()) == []


def test_a_nearly_full_disk_ends_the_video_in_good_order(
    tmp_path: Path,
    spec: DetectorSpec,
    make_frame: MakeFrame,
    make_result: MakeResult,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sink = VideoWriter(tmp_path / "out.mp4", spec, fps=10)
    for index in range(3):
        sink.write(make_frame(index), make_result())
    monkeypatch.setattr(video, "SPARE_BYTES", 1 << 62)  # no disk has so much to spare
    monkeypatch.setattr(video, "FRAMES_BETWEEN_CHECKS", 1)
    with pytest.raises(StorageError, match=r"out\.mp4 is full: .* The 3 frames up to here are kept"):
        sink.write(make_frame(3), make_result())
    sink.close()
    with open_source(str(tmp_path / "out.mp4")) as source:
        assert len(list(source)) == 3


def test_an_encoder_that_is_missing(
    tmp_path: Path,
    spec: DetectorSpec,
    make_frame: MakeFrame,
    make_result: MakeResult,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(video.CODECS, ".mp4", "hev1")  # the wheels have no H.265 encoder
    sink = VideoWriter(tmp_path / "out.mp4", spec, fps=10)
    with pytest.raises(StorageError, match="cannot encode hev1 video"):
        sink.write(make_frame(), make_result())
    sink.close()
    assert list(tmp_path.iterdir()) == []


def test_a_source_without_an_end_gets_a_file_after_another(
    tmp_path: Path, spec: DetectorSpec, make_frame: MakeFrame, make_result: MakeResult
) -> None:
    sink = VideoWriter(tmp_path / "out.mp4", spec, fps=10, frames_a_file=4)
    for index in range(9):
        sink.write(make_frame(index), make_result())
        assert (tmp_path / "out.mp4").exists() == (index >= 4)  # whole as soon as the next one has begun
    sink.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-2.mp4", "out-3.mp4", "out.mp4"]
    lengths = []
    for name in ("out.mp4", "out-2.mp4", "out-3.mp4"):
        with open_source(str(tmp_path / name)) as source:
            lengths.append(len(list(source)))
    assert lengths == [4, 4, 1]


def test_each_of_several_files_keeps_the_time(
    tmp_path: Path, spec: DetectorSpec, make_frame: MakeFrame, make_result: MakeResult
) -> None:
    sink = VideoWriter(tmp_path / "out.avi", spec, fps=10, live=True, frames_a_file=5)
    for passed in (0.0, 0.4, 0.5, 0.8):
        sink.write(make_frame(time_s=0.0, captured_s=1_700_000_000.0 + passed), make_result())
    sink.close()
    for name in ("out.avi", "out-2.avi"):
        with open_source(str(tmp_path / name)) as source:
            assert len(list(source)) == (5 if name == "out.avi" else 4)


def test_the_next_file_is_another_runs_business_too(
    tmp_path: Path, spec: DetectorSpec, make_frame: MakeFrame, make_result: MakeResult
) -> None:
    sink = VideoWriter(tmp_path / "out.mp4", spec, fps=10, frames_a_file=2)
    for index in range(3):
        sink.write(make_frame(index), make_result())
    with pytest.raises(StorageError, match="another run is writing to it"):
        VideoWriter(tmp_path / "out.mp4", spec, fps=10)
    sink.close()

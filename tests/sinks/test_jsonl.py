"""JSON lines: what is in them, and what happens when they cannot be written."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgekit.errors import StorageError
from edgekit.sinks.jsonl import JsonLines, to_json
from edgekit.tracking import Track

if TYPE_CHECKING:
    from conftest import MakeEvent, MakeFrame, MakeResult


def test_one_object(make_frame: MakeFrame, make_result: MakeResult) -> None:
    result = make_result([[1, 2, 3.456, 4], [5, 6, 7, 8]], [1, 0])
    document = to_json(make_frame(7, captured_s=time.monotonic() - 2), result, ("person", "cat"))
    assert 2000 <= document.pop("age_ms") < 3000
    assert document == {
        "frame": 7,
        "time": 0.7,
        "source": "test",
        "detections": [
            {"class": "cat", "score": 0.9, "box_xyxy": [1.0, 2.0, 3.46, 4.0]},
            {"class": "person", "score": 0.5, "box_xyxy": [5.0, 6.0, 7.0, 8.0]},
        ],
        "active_share": 0.5,
        "ms": {"letterbox": 1.0, "mask": 1.0, "detector": 2.0, "decode": 1.0, "total": 5.0},
    }


def test_tracks_and_events(make_frame: MakeFrame, make_result: MakeResult, make_event: MakeEvent) -> None:
    track = Track(id=4, class_id=1, score=0.75, box_xyxy=(1.0, 2.0, 3.126, 4.0), age_s=1.5, seen=False)
    event = make_event(4, kind="line", place="gate", direction="in")
    document = to_json(make_frame(), make_result(tracks=(track,), events=(event,)), ("person", "cat"))
    assert document["tracks"] == [
        {"id": 4, "class": "cat", "score": 0.75, "box_xyxy": [1.0, 2.0, 3.13, 4.0], "age_s": 1.5, "seen": False}
    ]
    assert document["events"] == [
        {
            "event": "line",
            "track": 4,
            "class": "person",
            "score": 0.9,
            "box_xyxy": [10.0, 12.0, 30.0, 40.0],
            "place": "gate",
            "direction": "in",
        }
    ]
    assert json.loads(json.dumps(document)) == document


def test_stdout_is_flushed_line_by_line(
    make_frame: MakeFrame, make_result: MakeResult, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = JsonLines("-", ("person", "cat"))
    for index in range(3):
        sink.write(make_frame(index), make_result())
        assert json.loads(capsys.readouterr().out)["frame"] == index
    sink.close()
    print("still open")
    assert capsys.readouterr().out == "still open\n"


def test_file_has_each_line_at_once(tmp_path: Path, make_frame: MakeFrame, make_result: MakeResult) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old\n")
    sink = JsonLines(str(path), ("person", "cat"))
    sink.write(make_frame(0), make_result([]))
    sink.write(make_frame(1), make_result())
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    sink.close()
    assert [line["frame"] for line in lines] == [0, 1]
    assert lines[0]["detections"] == []


def test_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot be written to .*no/out\.jsonl: No such file"):
        JsonLines(str(tmp_path / "no" / "out.jsonl"), ())


def test_two_runs_do_not_share_a_file(tmp_path: Path, make_frame: MakeFrame, make_result: MakeResult) -> None:
    path = tmp_path / "out.jsonl"
    first = JsonLines(str(path), ("person", "cat"))
    first.write(make_frame(), make_result())
    with pytest.raises(StorageError, match="another run is writing to it"):
        JsonLines(str(path), ("person", "cat"))
    assert len(path.read_text().splitlines()) == 1
    first.close()
    JsonLines(str(path), ("person", "cat")).close()
    assert path.read_text() == ""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which Linux has")
def test_full_disk(make_frame: MakeFrame, make_result: MakeResult) -> None:
    sink = JsonLines("/dev/full", ("person", "cat"))
    with pytest.raises(StorageError, match="writing to /dev/full failed: No space left"):
        sink.write(make_frame(0), make_result())
    sink.close()


def test_no_half_line_is_left(tmp_path: Path, make_frame: MakeFrame, make_result: MakeResult) -> None:
    path = tmp_path / "out.jsonl"
    sink = JsonLines(str(path), ("person", "cat"))
    sink.write(make_frame(0), make_result())
    whole = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) + 20, hard))
    try:
        with pytest.raises(StorageError, match="The lines before are whole"):
            sink.write(make_frame(1), make_result())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    sink.close()
    assert path.read_bytes() == whole


def test_reader_that_goes_away_is_a_broken_pipe() -> None:
    program = textwrap.dedent("""
        import numpy as np, sys
        from edgekit.cameras import Frame
        from edgekit.detections import Detections
        from edgekit.pipeline import FrameResult
        from edgekit.sinks.jsonl import JsonLines
        result = FrameResult(detections=Detections.empty(), mask=np.ones((1, 1), bool), active_share=1.0, timings_ms={})
        sink = JsonLines("-", ())
        try:
            for index in range(100_000):
                sink.write(Frame(image=np.zeros((1, 1, 3), np.uint8), index=index, time_s=0.0, source="x"), result)
        except BrokenPipeError:
            sys.stderr.write(f"gone")
            sys.stderr.flush()
            import os
            os._exit(0)
    """)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["frame"] == 0
        process.stdout.close()
        assert process.stderr.read() == "gone"

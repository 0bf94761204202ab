"""The numbers of a run, and what Prometheus's own parser reads of them."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from edgekit.errors import MissingDependencyError
from edgekit.sinks import metrics
from edgekit.sinks.camera_name import camera_name, slug
from edgekit.sinks.live import HISTORY_S, MOST_CAMERAS, WINDOW, LiveNumbers, SourceCounts
from edgekit.sinks.metrics import Metrics
from edgekit.sinks.outbox import Counts
from edgekit.sinks.thermal import Throttling, temperature_c
from edgekit.tracking import Track

if TYPE_CHECKING:
    from conftest import MakeEvent, MakeFrame, MakeResult

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(numbers: LiveNumbers) -> Samples:
    text = Metrics(numbers).text().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def board(root: Path, temperatures: tuple[int, ...] = (), *, throttle: str | None = None) -> Path:
    for number, millidegrees in enumerate(temperatures):
        zone = root / f"sys/class/thermal/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "temp").write_text(f"{millidegrees}\n")
    if throttle is not None:
        path = root / "sys/devices/platform/soc/soc:firmware/get_throttled"
        path.parent.mkdir(parents=True)
        path.write_text(f"{throttle}\n")
    return root


def test_everything_is_in_the_metrics(
    tmp_path: Path, make_frame: MakeFrame, make_result: MakeResult, make_event: MakeEvent
) -> None:
    root = board(tmp_path, (40_000, 61_500), throttle="50005")
    numbers = LiveNumbers(("person", 'a "cat"\n'), macs=lambda result: 1000 * len(result.detections), root=root)
    numbers.watch_source("test", lambda: SourceCounts(captured=13, dropped={"newer": 2, "stale": 1}, state="lost"))
    numbers.watch_queue("mqtt", lambda: Counts(offered=9, written=4, dropped=2, failed=1, waiting=2))
    numbers.faults.report("mqtt", "refused", "Not authorized")
    track = Track(id=1, class_id=0, score=0.9, box_xyxy=(0, 0, 1, 1), age_s=0.0, seen=True)
    for index in range(10):
        frame = make_frame(index, captured_s=time.monotonic() - 0.5)
        numbers.write(frame, make_result([[0, 0, 5, 5]] * 2, [0, 1], 10.0 * index, tracks=(track,)))
    numbers.write(make_frame(10), make_result([], events=(make_event(), make_event(kind="dwell"))))

    found = samples(numbers)
    camera = ("camera", "test")
    assert found["edgekit_frames_captured_total", (camera,)] == 13
    assert found["edgekit_frames_processed_total", (camera,)] == 11
    assert found["edgekit_frames_dropped_total", (camera, ("reason", "newer"))] == 2
    assert found["edgekit_detections_total", (camera, ("class", "person"))] == 10
    assert found["edgekit_detections_total", (camera, ("class", 'a "cat"\n'))] == 10
    assert found["edgekit_events_total", (camera, ("kind", "dwell"))] == 1
    assert found["edgekit_errors_total", (("component", "mqtt"), ("reason", "refused"))] == 1
    assert found["edgekit_stage_seconds", (camera, ("quantile", "0.5"), ("stage", "total"))] == pytest.approx(0.040)
    assert found["edgekit_stage_seconds", (camera, ("quantile", "0.99"), ("stage", "total"))] > 0.085
    assert found["edgekit_stage_seconds_count", (camera, ("stage", "mask"))] == 11
    assert found["edgekit_stage_seconds_sum", (camera, ("stage", "mask"))] == pytest.approx(0.011)
    assert 0.5 <= found["edgekit_frame_age_seconds", (camera, ("quantile", "0.95"))] < 2
    assert found["edgekit_active_share", (camera,)] == 0.5
    assert found["edgekit_executed_macs", (camera,)] == 0
    assert found["edgekit_fps", (camera,)] > 0
    assert found["edgekit_source_state", (camera, ("state", "lost"))] == 1
    assert found["edgekit_source_state", (camera, ("state", "open"))] == 0
    assert found["edgekit_temperature_celsius", ()] == 61.5
    assert found["edgekit_throttled", ()] == 1
    assert found["edgekit_sink_queue_depth", (("sink", "mqtt"),)] == 2
    outcomes = [found["edgekit_sink_items_total", (("outcome", name), ("sink", "mqtt"))] for name in
                ("offered", "written", "dropped", "failed")]  # fmt: skip
    assert outcomes == [9, 4, 2, 1]
    assert found["process_resident_memory_bytes", ()] > 1e6


def test_all_metrics_are_documented(tmp_path: Path, make_frame: MakeFrame, make_result: MakeResult) -> None:
    numbers = LiveNumbers(("person", "cat"), macs=lambda _result: 1, root=board(tmp_path, (40_000,), throttle="0"))
    numbers.watch_source("test", lambda: SourceCounts(captured=1))
    numbers.write(make_frame(), make_result(tracks=()))
    text = Metrics(numbers).text().decode()
    families = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in text_string_to_metric_families(text)
        if family.name.startswith("edgekit_")
    }
    document = Path(__file__).parents[2].joinpath("docs", "outputs.md").read_text()
    assert families == set(re.findall(r"`(edgekit_\w+)`", document))
    assert families == set(re.findall(r"``(edgekit_\w+)``", str(metrics.__doc__)))


def test_before_the_first_frame(tmp_path: Path) -> None:
    names = {name for name, _ in samples(LiveNumbers(("person",), root=tmp_path))}
    assert "edgekit_temperature_celsius" not in names
    assert "edgekit_throttled" not in names
    assert not any(name.startswith("edgekit") for name in names)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "prometheus_client", None)
    with pytest.raises(MissingDependencyError, match=r"prometheus-client is needed to serve metrics.*\n.*\[metrics\]"):
        Metrics(LiveNumbers(()))


def test_memory_is_bounded(make_frame: MakeFrame, make_result: MakeResult) -> None:
    numbers = LiveNumbers(("person", "cat"))
    frame, result = make_frame(), make_result()
    for _ in range(3 * WINDOW):
        numbers.write(frame, result)
    for _ in range(HISTORY_S + 50):
        numbers.tick()
    assert len(numbers.history("test")) == HISTORY_S
    assert len(numbers._cameras["test"].moments) == WINDOW
    for number in range(MOST_CAMERAS + 50):
        numbers.write(type(frame)(image=frame.image, index=0, time_s=0, source=f"camera {number}"), result)
    assert len(numbers.cameras()) == MOST_CAMERAS


def test_a_point_of_the_charts(tmp_path: Path, make_frame: MakeFrame, make_result: MakeResult) -> None:
    numbers = LiveNumbers(("person", "cat"), root=board(tmp_path, (50_049,)))
    for index in range(4):
        numbers.write(make_frame(index, captured_s=time.monotonic() - 1), make_result(total_ms=3.0 + index))
    numbers.tick()
    numbers.tick()
    first, second = numbers.history("test")
    assert first["ms"] == {"letterbox": 1.0, "mask": 1.0, "detector": 2.0, "decode": 1.0, "total": 4.5}
    assert 1000 <= first["age_ms"] < 2000
    assert first["active_share"] == 0.5
    assert first["temperature_c"] == 50.0
    assert (second["age_ms"], second["active_share"], second["ms"]) == (None, None, {})


def test_the_rate_falls_when_nothing_comes(
    make_frame: MakeFrame, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = LiveNumbers(("person",))
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for index in range(50):
        numbers.write(make_frame(index, captured_s=now[0]), make_result())
        now[0] += 0.1
    assert numbers.read("test").fps == pytest.approx(10)
    assert numbers.stale(5) == []
    now[0] += 60
    assert numbers.read("test").fps < 0.5
    assert numbers.stale(5) == ["test"]
    assert numbers.read("test").since_frame_s == pytest.approx(60.1)


def test_no_frame_at_all_is_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = LiveNumbers(())
    assert numbers.stale(5) == []
    start_s = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: start_s + 6)
    assert numbers.stale(5) == ["all"]
    numbers.watch_source("yard", lambda: SourceCounts(captured=0, state="starting"))
    assert numbers.stale(5) == ["yard"]


def test_what_a_frame_costs(make_frame: MakeFrame, make_result: MakeResult) -> None:
    numbers, frame, result = LiveNumbers(("person", "cat")), make_frame(), make_result([[0, 0, 5, 5]] * 10)
    laps_s = []
    for _ in range(500):
        start_s = time.perf_counter()
        numbers.write(frame, result)
        laps_s.append(time.perf_counter() - start_s)
    assert np.median(laps_s) < 0.5e-3


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("camera 0", "camera_0"),
        ("rtsp://10.0.0.7:554/live/ch0?x=1", "rtsp_10_0_0_7_554_live_ch0_x_1"),
        ("/data/yard/0001.jpg", "yard"),
        ("/data/yard.mp4", "yard_mp4"),
        ("+/#", "camera"),
        ("é" * 100, "camera"),
    ],
)
def test_names_of_cameras(source: str, name: str, make_frame: MakeFrame) -> None:
    frame = make_frame()
    assert camera_name(type(frame)(image=frame.image, index=0, time_s=0, source=source)) == name


def test_slugs_are_short() -> None:
    assert len(slug("x" * 1000)) == 48


def test_temperature(tmp_path: Path) -> None:
    assert temperature_c(tmp_path) is None
    assert temperature_c(board(tmp_path, (40_000, -274_000, 71_234, 999_999))) == 71.234


@pytest.mark.parametrize(("bits", "slowed"), [("0", False), ("50000", False), ("1", True), ("50008", True)])
def test_throttling_of_a_raspberry_pi(tmp_path: Path, bits: str, slowed: bool) -> None:
    assert Throttling(board(tmp_path, throttle=bits)).now() is slowed


def test_throttling_of_a_pc(tmp_path: Path) -> None:
    assert Throttling(tmp_path).now() is None
    path = tmp_path / "sys/devices/system/cpu/cpu0/thermal_throttle/core_throttle_count"
    path.parent.mkdir(parents=True)
    path.write_text("3\n")
    throttling = Throttling(tmp_path)
    assert throttling.now() is False
    path.write_text("4\n")
    assert throttling.now() is True
    assert throttling.now() is False

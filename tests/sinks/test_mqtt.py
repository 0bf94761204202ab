"""MQTT with a real broker: what it gets, what happens while it is away, and when it does not want us."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import trustme

from edgekit.sinks.faults import Faults
from edgekit.sinks.live import LiveNumbers, SourceCounts
from edgekit.sinks.mqtt import Mqtt
from edgekit.sinks.mqtt_address import parse_mqtt
from edgekit.sinks.outbox import Counts
from edgekit.tracking import Track

if TYPE_CHECKING:
    from conftest import MakeEvent, MakeFrame, MakeResult

CLASSES = ("person", "potted plant")


def _broker_module() -> ModuleType:
    specification = importlib.util.spec_from_file_location("broker", Path(__file__).with_name("broker.py"))
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


broker_module = _broker_module()
until = broker_module.until

pytestmark = pytest.mark.skipif(
    broker_module.find_mosquitto() is None, reason="needs a broker: apt-get install mosquitto"
)


@pytest.fixture
def start_broker(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts one; it ends with the test."""
    brokers = []

    def start(**options: str) -> Any:
        brokers.append(broker_module.Broker(tmp_path, **options))
        brokers[-1].start()
        return brokers[-1]

    yield start
    for broker in brokers:
        broker.close()


@pytest.fixture
def broker(start_broker: Callable[..., Any]) -> Any:
    return start_broker()


@pytest.fixture
def receiver(broker: Any) -> Iterator[Any]:
    receiver = broker_module.Receiver(broker.port)
    yield receiver
    receiver.close()


def sink_for(broker: Any, *, user: str = "", tls_ca: Path | None = None, **more: Any) -> Mqtt:
    scheme = "mqtts" if tls_ca else "mqtt"
    address = parse_mqtt(f"{scheme}://{user}127.0.0.1:{broker.port}/site", ca_file=tls_ca)
    return Mqtt(address, more.pop("numbers", None) or LiveNumbers(CLASSES), **more)


def test_topics(
    broker: Any, receiver: Any, make_frame: MakeFrame, make_result: MakeResult, make_event: MakeEvent
) -> None:
    numbers = LiveNumbers(CLASSES)
    sink = sink_for(broker, numbers=numbers)
    track = Track(id=3, class_id=1, score=0.5, box_xyxy=(0, 0, 1, 1), age_s=1.0, seen=True)
    events = (make_event(3, frame=7), make_event(3, kind="leave", frame=7, seconds=2.5))
    frame, result = make_frame(7), make_result(tracks=(track,), events=events)
    numbers.write(frame, result)
    sink.write(frame, result)
    until(lambda: sink.counts().written == 2)
    until(lambda: receiver.of("site/test/detections") and receiver.of("site/test/status"))
    box = [10.0, 12.0, 30.0, 40.0]
    about = {"camera": "test", "frame": 7, "time": 0.7, "track": 3, "class": "person", "score": 0.9, "box_xyxy": box}
    assert receiver.of("site/test/events") == [
        {"seq": 1, "event": "enter", **about},
        {"seq": 2, "event": "leave", "seconds": 2.5, **about},
    ]
    detections = [{"class": "person", "score": 0.9, "box_xyxy": box}]
    assert receiver.of("site/test/detections") == [
        {"camera": "test", "frame": 7, "time": 0.7, "detections": detections}
    ]
    status = receiver.of("site/test/status")[-1]
    assert status["count"] == 1
    assert status["counts"] == {"potted plant": 1}  # of tracks, where somebody follows
    assert status["occupancy"] == {"person": "ON", "potted plant": "ON"}
    assert status["active_share"] == 0.5
    assert status["state"] == "open"
    sink.close()
    until(lambda: receiver.of("site/status") == ["online", "offline"])
    assert sink.counts() == Counts(offered=2, written=2)


def test_home_assistant_finds_everything(
    broker: Any, receiver: Any, make_frame: MakeFrame, make_result: MakeResult
) -> None:
    numbers = LiveNumbers(CLASSES)
    sink = sink_for(broker, numbers=numbers, model="mobilenetv2")
    numbers.write(make_frame(), make_result())
    sink.write(make_frame(), make_result())
    until(lambda: receiver.of("homeassistant/sensor/site_test/active_share/config"))
    sink.close()
    late = broker_module.Receiver(broker.port)  # the session's messages are gone: this is what is retained
    until(lambda: len({message.topic for message in late.messages if message.retain}) >= 7)
    late.close()
    configs = {m.topic: broker_module._value(m.payload) for m in late.messages if m.topic.startswith("homeassistant/")}
    assert set(configs) == {
        "homeassistant/binary_sensor/site_test/person/config",
        "homeassistant/binary_sensor/site_test/potted_plant/config",
        "homeassistant/sensor/site_test/count/config",
        "homeassistant/sensor/site_test/fps/config",
        "homeassistant/sensor/site_test/active_share/config",
    }
    plant = configs["homeassistant/binary_sensor/site_test/potted_plant/config"]
    assert plant["device_class"] == "occupancy"
    assert plant["value_template"] == '{{ value_json.occupancy["potted plant"] }}'
    assert plant["state_topic"] == "site/test/status"
    assert [entry["topic"] for entry in plant["availability"]] == ["site/status", "site/test/status"]
    assert plant["device"] == {
        "identifiers": ["site_test"], "name": "test", "manufacturer": "edgekit", "model": "mobilenetv2",
    }  # fmt: skip
    assert len({config["unique_id"] for config in configs.values()}) == 5


def test_detections_are_rate_limited(
    broker: Any, receiver: Any, make_frame: MakeFrame, make_result: MakeResult
) -> None:
    sink = sink_for(broker, detections_every_s=0.5)
    start_s = time.monotonic()
    index = 0
    while len(receiver.of("site/test/detections")) < 3:
        sink.write(make_frame(index), make_result())
        index += 1
        time.sleep(0.01)
        assert time.monotonic() - start_s < 15
    assert time.monotonic() - start_s > 0.9
    sink.close()
    assert index > 20


def test_a_camera_that_delivers_nothing_is_not_an_empty_yard(
    broker: Any, receiver: Any, make_frame: MakeFrame, make_result: MakeResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.sinks.mqtt.STALE_S", 0.3)
    monkeypatch.setattr("edgekit.sinks.mqtt.CHANGED_STATUS_S", 0.1)
    numbers = LiveNumbers(CLASSES)
    sink = sink_for(broker, numbers=numbers)
    states: list[str] = []

    def state_is(wanted: str) -> bool:
        states[:] = [status["state"] for status in receiver.of("site/test/status")]
        return states[-1:] == [wanted]

    numbers.write(make_frame(), make_result())
    sink.write(make_frame(), make_result())
    until(lambda: state_is("stale"))
    numbers.write(make_frame(1), make_result())
    until(lambda: state_is("open"))
    numbers.watch_source("test", lambda: SourceCounts(captured=1, state="lost"))
    until(lambda: state_is("lost"))
    sink.close()


@pytest.mark.slow
def test_no_event_is_lost_while_the_broker_is_killed_and_comes_back(
    broker: Any, receiver: Any, make_frame: MakeFrame, make_result: MakeResult, make_event: MakeEvent
) -> None:
    sink = sink_for(broker, kept_events=1000)
    slowest_s = 0.0
    number = 0

    def events(count: int) -> None:
        nonlocal number, slowest_s
        for _ in range(count):
            number += 1
            frame, result = make_frame(number), make_result(events=(make_event(number, frame=number),))
            start_s = time.perf_counter()
            sink.write(frame, result)
            slowest_s = max(slowest_s, time.perf_counter() - start_s)
            time.sleep(0.002)

    for _ in range(3):
        events(150)
        broker.kill()  # in the middle of it
        events(150)
        broker.start()
        events(50)
    until(lambda: sink.counts().waiting == 0, within_s=60)
    until(lambda: len({event["seq"] for event in receiver.of("site/test/events")}) == number, within_s=30)
    sink.close()
    received = [event["seq"] for event in receiver.of("site/test/events")]
    assert list(dict.fromkeys(received)) == list(range(1, number + 1))  # first arrivals: all of them, in order
    assert sink.counts() == Counts(offered=number, written=number)
    assert slowest_s < 1  # who waits for a dead broker waits for seconds; a busy machine does for tenths


@pytest.mark.slow
def test_beyond_the_bound_the_oldest_go_and_are_counted(
    broker: Any, receiver: Any, make_frame: MakeFrame, make_result: MakeResult, make_event: MakeEvent
) -> None:
    faults = Faults()
    sink = sink_for(broker, kept_events=50, faults=faults)
    until(lambda: receiver.of("site/status"))
    broker.kill()
    until(lambda: faults.counts().get(("mqtt", "lost")))
    for number in range(200):
        sink.write(make_frame(number), make_result(events=(make_event(number),)))
    assert sink.counts() == Counts(offered=200, dropped=150, waiting=50)
    broker.start()
    until(lambda: sink.counts().waiting == 0, within_s=30)
    until(lambda: len(receiver.of("site/test/events")) >= 50)
    sink.close()
    assert [event["track"] for event in receiver.of("site/test/events")] == list(range(150, 200))
    assert sink.counts() == Counts(offered=200, written=50, dropped=150)


def test_the_last_will_tells_of_a_death(tmp_path: Path, broker: Any, receiver: Any) -> None:
    program = (
        "import sys, time\n"
        "from edgekit.sinks.live import LiveNumbers\n"
        "from edgekit.sinks.mqtt import Mqtt\n"
        "from edgekit.sinks.mqtt_address import parse_mqtt\n"
        f"Mqtt(parse_mqtt('mqtt://127.0.0.1:{broker.port}/site'), LiveNumbers(('person',)))\n"
        "time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program])
    until(lambda: receiver.of("site/status") == ["online"])
    process.kill()
    process.wait(10)
    until(lambda: receiver.of("site/status") == ["online", "offline"])


def test_a_broker_that_refuses(
    tmp_path: Path,
    start_broker: Callable[..., Any],
    make_frame: MakeFrame,
    make_result: MakeResult,
    make_event: MakeEvent,
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "passwords").touch(mode=0o600)
    subprocess.run(["mosquitto_passwd", "-b", str(tmp_path / "passwords"), "pole", "right-one"], check=True)
    broker = start_broker(more=f"allow_anonymous false\npassword_file {tmp_path}/passwords")
    faults = Faults()
    sink = sink_for(broker, user="pole:wrong-one@", faults=faults)
    sink.write(make_frame(), make_result(events=(make_event(),)))
    until(lambda: faults.counts().get(("mqtt", "refused")))
    sink.write(make_frame(1), make_result(events=(make_event(),)))
    sink.close()
    assert sink.counts() == Counts(offered=2, dropped=2)
    first = next(message for message in caplog.messages if message.startswith("mqtt:"))
    assert first == f"mqtt: no connection to mqtt://127.0.0.1:{broker.port}/site: Not authorized"
    assert "wrong-one" not in caplog.text
    sink = sink_for(broker, user="pole:right-one@")
    sink.write(make_frame(), make_result(events=(make_event(),)))
    until(lambda: sink.counts().written == 1)
    sink.close()
    assert "right-one" not in caplog.text + repr(sink.__dict__)


@pytest.fixture
def certificates(tmp_path: Path) -> None:
    """In ``tmp_path`` ca.pem, and key.pem and cert.pem of a broker at 127.0.0.1."""
    ca = trustme.CA()
    certificate = ca.issue_cert("127.0.0.1")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")


@pytest.mark.usefixtures("certificates")
def test_tls(
    tmp_path: Path,
    start_broker: Callable[..., Any],
    make_frame: MakeFrame,
    make_result: MakeResult,
    make_event: MakeEvent,
) -> None:
    tls = f"certfile {tmp_path}/cert.pem\nkeyfile {tmp_path}/key.pem"
    broker = start_broker(tls=tls)
    sink = sink_for(broker, tls_ca=tmp_path / "ca.pem")
    sink.write(make_frame(), make_result(events=(make_event(),)))
    until(lambda: sink.counts().written == 1)
    sink.close()

    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    faults = Faults()
    sink = sink_for(broker, tls_ca=tmp_path / "other.pem", faults=faults)
    sink.write(make_frame(), make_result(events=(make_event(),)))
    until(lambda: faults.counts().get(("mqtt", "tls")))
    sink.close()
    assert sink.counts().written == 0


def test_the_end_is_quick_without_a_broker(
    make_frame: MakeFrame, make_result: MakeResult, make_event: MakeEvent
) -> None:
    sink = Mqtt(parse_mqtt(f"mqtt://127.0.0.1:{broker_module.free_port()}"), LiveNumbers(CLASSES))
    sink.write(make_frame(), make_result(events=(make_event(),)))
    start_s = time.monotonic()
    sink.close()
    assert time.monotonic() - start_s < 1.9
    assert sink.counts() == Counts(offered=1, dropped=1)
    assert sink._faults.counts()["mqtt", "left"] == 1

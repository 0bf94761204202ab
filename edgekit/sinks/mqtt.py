"""Events, detections and status over MQTT 5, with Home Assistant's discovery.

============================ ======== ================================================================================
topic                        retained what
============================ ======== ================================================================================
``PREFIX/status``            yes      ``online`` or ``offline``; the broker's last will says the latter for us
``PREFIX/CAMERA/events``     no       each event of a track, in order; a gap in ``seq`` is where some were dropped
``PREFIX/CAMERA/detections`` no       the newest frame's, at most once a second by default
``PREFIX/CAMERA/status``     yes      ``count``, ``counts``, ``occupancy``, ``state`` and how it runs: ``fps`` and so on
============================ ======== ================================================================================

Events are kept while the broker is away, up to a bound; beyond it the oldest go, because the newest ones say how things
are now. What the broker has not acknowledged when a connection breaks is sent again before everything else: a receiver
may see an event twice, with the same ``seq``, but none is lost within the bound and the order stays.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
import ssl
import threading
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgekit.sinks.camera_name import camera_name
from edgekit.sinks.event_json import detections_json, event_json
from edgekit.sinks.faults import Faults
from edgekit.sinks.home_assistant import DISCOVERY_PREFIX, discovery
from edgekit.sinks.live import MOST_CAMERAS, LiveNumbers
from edgekit.sinks.mqtt_address import MqttAddress
from edgekit.sinks.mqtt_link import UNACKNOWLEDGED, Link, RefusedError, require_paho
from edgekit.sinks.outbox import Counts, Outbox

if TYPE_CHECKING:
    from edgekit.cameras import Frame
    from edgekit.pipeline import FrameResult

KEPT_EVENTS = 10_000
"""Some 3 MB, and a busy day of one camera."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
STATUS_S, CHANGED_STATUS_S = 10.0, 1.0
"""The status is sent so often, and so soon again when what is seen has changed."""

OCCUPIED_S = 5.0
"""A class counts as present for so long after it was last seen: detections flicker."""

STALE_S = 10.0
STEP_S = 0.2
"""What is rate-limited is looked at so often."""

CLOSING_S = 1.2
FAREWELL_S = 0.3


@dataclass(frozen=True, kw_only=True)
class _Message:
    topic: str
    payload: str


@dataclass(kw_only=True)
class _Camera:
    """What is sent of one camera besides events: always the newest."""

    frame: tuple[int, float, FrameResult] | None = None
    seen_s: dict[int, float]
    """Class id -> when it was last seen."""

    sent_frame: int = -1
    detections_due_s: float = 0.0
    status_sent_s: float = float("-inf")
    status: dict[str, Any] | None = None
    announced: bool = False


class Mqtt:
    """A sink with a thread of its own that keeps up the connection; ``write`` never waits for it.

    Args:
        address: see :func:`edgekit.sinks.mqtt_address.parse_mqtt`.
        numbers: of the run; frame rate and active share are taken from them.
        model: the detector's name, for Home Assistant.
        kept_events: the most events that wait for the broker.
        detections_every_s: the least time between two messages of detections of one camera; None sends none.
        discovery_prefix: Home Assistant's; None announces nothing.

    Raises:
        MissingDependencyError: paho-mqtt is not installed.
    """

    def __init__(
        self,
        address: MqttAddress,
        numbers: LiveNumbers,
        *,
        model: str = "detector",
        kept_events: int = KEPT_EVENTS,
        detections_every_s: float | None = 1.0,
        discovery_prefix: str | None = DISCOVERY_PREFIX,
        faults: Faults | None = None,
    ) -> None:
        require_paho()
        self._address, self._numbers, self._model = address, numbers, model
        self._detections_every_s, self._discovery_prefix = detections_every_s, discovery_prefix
        self._faults = faults or numbers.faults
        self._outbox: Outbox[_Message] = Outbox(kept_events)
        self._in_hand: dict[int, _Message] = {}  # number of the message -> what was sent, oldest first
        self._farewell: int | None = None  # number of the last message, until it is acknowledged
        self._cameras: dict[str, _Camera] = {}
        self._lock = threading.Lock()
        self._sequence = 0
        self._deadline_s = float("inf")
        self._waiting = False  # for the network, and to be woken
        self._client_id = f"edgekit-{uuid.uuid4().hex[:12]}"
        self._wake_read, self._wake_write = socket.socketpair()
        self._wake_read.setblocking(False)
        self._wake_write.setblocking(False)
        self._thread = threading.Thread(target=self._run, name="sink mqtt", daemon=True)
        self._thread.start()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Note what is newest, and queue the events."""
        name, now = camera_name(frame), time.monotonic()
        ids = result.detections.class_ids.tolist()
        if result.tracks is not None:
            ids += [track.class_id for track in result.tracks]
        with self._lock:
            if name in self._cameras or len(self._cameras) < MOST_CAMERAS:
                camera = self._cameras.setdefault(name, _Camera(seen_s={}))
                camera.frame = (frame.index, frame.time_s, result)
                camera.seen_s.update(dict.fromkeys(ids, now))
        for event in result.events:
            self._sequence += 1
            document = {"seq": self._sequence, "camera": name, "frame": event.frame, "time": round(event.time_s, 4)}
            document |= event_json(event, self._numbers.classes)
            self._outbox.offer(_Message(topic=self._topic(name, "events"), payload=_compact(document)))
        if result.events:
            self._wake()

    def counts(self) -> Counts:
        """What became of the events so far; written are those that the broker acknowledged."""
        return self._outbox.counts()

    def close(self) -> None:
        """Send what waits, within 1.2 s, and say that we are offline. What is left is dropped and counted."""
        self._deadline_s = time.monotonic() + CLOSING_S
        self._outbox.close()
        self._wake()
        self._thread.join(CLOSING_S + FAREWELL_S)
        left = self._outbox.drop_all()
        if left:
            self._faults.report("mqtt", "left", f"{left} events were not delivered to {self._address}")

    def _wake(self) -> None:
        """End the wait for the network; no system call where nobody waits, since it lets other threads go first."""
        if not self._waiting:
            return
        self._waiting = False
        with contextlib.suppress(OSError):  # full: it is awake; closed: it has ended
            self._wake_write.send(b"!")

    def _topic(self, camera: str, leaf: str) -> str:
        return f"{self._address.prefix}/{camera}/{leaf}"

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        try:
            while not self._outbox.closed or (self._outbox.counts().waiting and time.monotonic() < self._deadline_s):
                connected = self._connection()
                pause_s = FIRST_PAUSE_S if connected else min(2 * pause_s, LONGEST_PAUSE_S)
                if self._outbox.closed:
                    return  # one attempt to deliver the rest is all that closing has time for
                self._outbox.rest(pause_s * random.uniform(0.5, 1.0))  # not all cameras of a site at once
        finally:
            self._wake_read.close()
            self._wake_write.close()

    def _connection(self) -> bool:
        """Connect and serve until the connection breaks or the run ends; whether it came about."""
        status = f"{self._address.prefix}/status"
        try:
            link = Link(
                self._address,
                client_id=self._client_id,
                will=(status, "offline"),
                acknowledged=self._acknowledged,
                deadline_s=lambda: self._deadline_s,
            )
        except (OSError, ValueError) as error:
            self._faults.report("mqtt", _reason(error), f"no connection to {self._address}: {_words(error)}")
            return False
        try:
            link.publish(status, "online", retain=True)
            self._serve(link)
            self._say_offline(link, status)
        except (OSError, ValueError) as error:
            self._faults.report("mqtt", "lost", f"the connection to {self._address} broke: {_words(error)}")
        finally:
            link.close()
            self._outbox.put_back(self._in_hand.values())
            self._in_hand.clear()
        return True

    def _serve(self, link: Link) -> None:
        with self._lock:
            for camera in self._cameras.values():  # a broker without persistence has forgotten what it retained
                camera.announced, camera.status = False, None
        while True:
            while len(self._in_hand) < UNACKNOWLEDGED and (message := self._outbox.take()) is not None:
                self._in_hand[link.publish(message.topic, message.payload)] = message
            if self._outbox.closed and (not self._in_hand or time.monotonic() > self._deadline_s):
                return
            self._send_newest(link)
            self._waiting = True
            link.step(STEP_S, self._wake_read.fileno())
            self._waiting = False
            with contextlib.suppress(BlockingIOError):
                self._wake_read.recv(4096)

    def _say_offline(self, link: Link, topic: str) -> None:
        """The last will is for a broken connection; one that is closed in good order needs it said."""
        self._farewell = link.publish(topic, "offline", retain=True)
        end_s = time.monotonic() + FAREWELL_S
        while self._farewell is not None and time.monotonic() < end_s:
            link.step(0.05)

    def _acknowledged(self, number: int, refusal: str | None) -> None:
        if number == self._farewell:
            self._farewell = None
        if self._in_hand.pop(number, None) is None:
            return
        if refusal is None:
            self._outbox.written()
        else:
            self._outbox.failed()
            self._faults.report("mqtt", "refused", f"{self._address} would not have an event: {refusal}")

    def _send_newest(self, link: Link) -> None:
        now = time.monotonic()
        known = self._numbers.cameras()
        with self._lock:
            for name in known:
                self._cameras.setdefault(name, _Camera(seen_s={}))
            cameras = list(self._cameras.items())
        for name, camera in cameras:
            if not camera.announced:
                camera.announced = True
                self._announce(link, name)
            self._send_detections(link, name, camera, now)
            if name in known:
                self._send_status(link, name, camera, now)

    def _announce(self, link: Link, name: str) -> None:
        if self._discovery_prefix is None:
            return
        configurations = discovery(
            self._address.prefix,
            name,
            self._numbers.classes,
            model=self._model,
            discovery_prefix=self._discovery_prefix,
        )
        for topic, configuration in configurations.items():
            link.publish(topic, _compact(configuration), retain=True)

    def _send_detections(self, link: Link, name: str, camera: _Camera, now: float) -> None:
        if self._detections_every_s is None or camera.frame is None or now < camera.detections_due_s:
            return
        index, time_s, result = camera.frame
        if index == camera.sent_frame:
            return
        camera.sent_frame, camera.detections_due_s = index, now + self._detections_every_s
        detections = detections_json(result.detections, self._numbers.classes)
        document = {"camera": name, "frame": index, "time": round(time_s, 4), "detections": detections}
        link.publish(self._topic(name, "detections"), _compact(document), qos=0)

    def _send_status(self, link: Link, name: str, camera: _Camera, now: float) -> None:
        since_s = now - camera.status_sent_s
        if camera.status is not None and since_s < CHANGED_STATUS_S:
            return
        seen = self._seen(camera, now) | {"state": self._numbers.state(name, stale_s=STALE_S)}
        if camera.status is not None and since_s < STATUS_S and all(camera.status[key] == seen[key] for key in seen):
            return
        reading = self._numbers.read(name)
        age = reading.age_s.quantiles.get(0.5)
        status = seen | {
            "fps": round(reading.fps, 2),
            "active_share": round(reading.active_share, 4),
            "age_ms": None if age is None else round(1e3 * age, 1),
        }
        camera.status, camera.status_sent_s = status, now
        link.publish(self._topic(name, "status"), _compact(status), retain=True)

    def _seen(self, camera: _Camera, now: float) -> dict[str, Any]:
        classes = self._numbers.classes
        result = camera.frame[2] if camera.frame else None
        ids: list[int] = []
        if result is not None:
            followed = [] if result.tracks is None else [track.class_id for track in result.tracks]
            ids = followed if result.tracks is not None else result.detections.class_ids.tolist()
        with self._lock:
            seen_s = dict(camera.seen_s)
        present = {class_id for class_id, at_s in seen_s.items() if now - at_s < OCCUPIED_S}
        return {
            "count": len(ids),
            "counts": {classes[class_id]: ids.count(class_id) for class_id in sorted(set(ids))},
            "occupancy": {name: "ON" if class_id in present else "OFF" for class_id, name in enumerate(classes)},
        }


def _compact(document: dict[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _reason(error: Exception) -> str:
    if isinstance(error, RefusedError):
        return "refused"
    return "tls" if isinstance(error, ssl.SSLError) else "unreachable"


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

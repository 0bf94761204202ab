"""A real broker for tests, which can be killed and started again; and a receiver that outlives it."""

from __future__ import annotations

import getpass
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import PacketTypes, Properties


def find_mosquitto() -> str | None:
    """Where mosquitto is installed; distributions put it where only root looks."""
    return shutil.which("mosquitto", path="/usr/local/sbin:/usr/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Broker:
    """mosquitto on a port of its own; every change is on disk at once, so that a kill loses nothing of its own."""

    def __init__(self, folder: Path, *, more: str = "allow_anonymous true", tls: str = "") -> None:
        self.port = free_port()
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "mosquitto.conf").write_text(
            f"user {getpass.getuser()}\nlistener {self.port} 127.0.0.1\n{tls}\n{more}\npersistence true\n"
            f"persistence_location {folder}/\n"
            "autosave_on_changes true\nautosave_interval 1\nmax_queued_messages 100000\nlog_type all\n"
        )

    def start(self) -> None:
        program = find_mosquitto()
        assert program
        log = (self._folder / "mosquitto.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [program, "-c", str(self._folder / "mosquitto.conf")], stdout=log, stderr=subprocess.STDOUT
            )
        until(self._listens)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        self._process = None

    def close(self) -> None:
        if self._process is not None:
            self.kill()

    def log(self) -> str:
        return (self._folder / "mosquitto.log").read_text(errors="replace")

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


class Receiver:
    """Subscribes to everything, in a session that the broker keeps while it is away."""

    def __init__(self, port: int, *, user: str | None = None, password: str | None = None) -> None:
        self.messages: list[paho.MQTTMessage] = []
        self.subscribed = threading.Event()
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id="receiver", protocol=paho.MQTTv5)
        client.username_pw_set(user, password)
        client.on_connect = lambda *_: client.subscribe("#", qos=1)
        client.on_subscribe = lambda *_: self.subscribed.set()
        client.on_message = lambda _client, _data, message: self.messages.append(message)
        client.reconnect_delay_set(0.1, 0.2)  # type: ignore[arg-type]
        keep = Properties(PacketTypes.CONNECT)
        keep.SessionExpiryInterval = 3600
        client.connect("127.0.0.1", port, clean_start=False, properties=keep)
        client.loop_start()
        self._client = client
        assert self.subscribed.wait(10)

    def of(self, topic: str) -> list[Any]:
        """Payloads of one topic so far, in order; JSON where they are."""
        return [_value(message.payload) for message in list(self.messages) if message.topic == topic]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


def until(condition: Callable[[], object], *, within_s: float = 15.0) -> None:
    """Wait until it is true."""
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s, "in vain"
        time.sleep(0.01)


def _value(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except ValueError:
        return payload.decode()

"""News for systemd, read from a real socket."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.live.watchdog import FRESH_S, Watchdog


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.setblocking(False)
        yield listening


def said(listening: socket.socket) -> list[str]:
    messages = []
    while True:
        try:
            messages.append(listening.recv(100).decode())
        except BlockingIOError:
            return messages


def watchdog(listening: socket.socket, clock: list[float], timeout_us: str = "30000000") -> Watchdog:
    return Watchdog({"NOTIFY_SOCKET": listening.getsockname(), "WATCHDOG_USEC": timeout_us}, lambda: clock[0])


def test_it_is_petted_a_few_times_within_the_limit(systemd: socket.socket) -> None:
    clock = [0.0]
    dog = watchdog(systemd, clock)
    dog.ready()
    for tenth in range(300):
        clock[0] = tenth / 10
        dog.pet(age_s=0.1)
    assert said(systemd) == ["READY=1", "WATCHDOG=1", "WATCHDOG=1", "WATCHDOG=1"]
    dog.stopping()
    assert said(systemd) == ["STOPPING=1"]


def test_old_frames_do_not_count(systemd: socket.socket) -> None:
    dog = watchdog(systemd, [0.0])
    dog.pet(age_s=FRESH_S + 1)
    assert said(systemd) == []


def test_without_a_limit_only_the_start_is_told(systemd: socket.socket) -> None:
    dog = watchdog(systemd, [0.0], "")
    dog.ready()
    dog.pet()
    assert said(systemd) == ["READY=1"]


def test_outside_systemd_nothing_happens() -> None:
    dog = Watchdog({})
    dog.ready()
    dog.pet()
    dog.stopping()


def test_a_socket_that_is_gone_ends_nothing(tmp_path: Path) -> None:
    Watchdog({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


def test_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0edgekit-watchdog-test")
        listening.setblocking(False)
        Watchdog({"NOTIFY_SOCKET": "@edgekit-watchdog-test"}).ready()
        assert said(listening) == ["READY=1"]

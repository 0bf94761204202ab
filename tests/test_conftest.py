"""The guard that keeps tests off the network."""

from __future__ import annotations

import socket

import pytest


def test_tests_cannot_reach_the_network() -> None:
    with socket.socket() as outside, pytest.raises(RuntimeError, match=r"192\.0\.2\.1.*must not need the network"):
        outside.connect(("192.0.2.1", 80))  # TEST-NET-1, RFC 5737


def test_tests_can_reach_their_own_servers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()

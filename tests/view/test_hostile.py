"""Requests that are none, clients that mean ill: refused, counted, and nothing else happens."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from conftest import OpenSite, Site

TOKEN = "a-token-of-many-letters"


def until(condition: Callable[[], object], *, within_s: float = 10.0) -> None:
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def send(site: Site, data: bytes, *, wait_s: float = 2.0) -> bytes:
    """Send bytes, and read what comes back; what is no whole request is not answered."""
    received = b""
    with socket.create_connection(("127.0.0.1", site.port), timeout=wait_s) as channel, contextlib.suppress(OSError):
        channel.sendall(data)
        while (block := channel.recv(65536)) and len(received) < 1_000_000:
            if not received:
                channel.shutdown(socket.SHUT_WR)
            received += block
    return received


METHODS = st.sampled_from([b"GET", b"PUT", b"POST", b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT", b"get", b"G\xff", b""])
PATHS = st.one_of(
    st.sampled_from(
        [
            b"/",
            b"/metrics",
            b"/api/zones?camera=y%61rd",
            b"/picture.mjpg?camera=y%61rd",
            b"*",
            b"http://evil/",
            b"//",
            b"/../",
        ]
    ),
    st.binary(max_size=40),
)
HEADERS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                b"Host: 127.0.0.1",
                b"Host: evil",
                b"Content-Length: 5",
                b"Content-Length: -1",
                b"Content-Length: 99999999999999",
                b"Content-Length: 5, 6",
                b"Transfer-Encoding: chunked",
                b"Transfer-Encoding: gzip, chunked",
                b"Content-Encoding: deflate",
                b"Authorization: Bearer",
                b"Authorization: Basic YTpi",
                b"Authorization: Bearer \xff\xfe",
                b"Cookie: edgekit_1=x; =; ;;",
                b"Connection: Upgrade\r\nUpgrade: websocket",
                b"Expect: 100-continue",
                b"Origin: null",
                b" folded",
                b"no colon",
                b"Name\x00: x",
            ]
        ),
        st.binary(max_size=60),
    ),
    max_size=6,
)


@given(
    method=METHODS,
    path=PATHS,
    version=st.sampled_from([b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9", b""]),
    headers=HEADERS,
    body=st.binary(max_size=200),
)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_fuzzed_requests(
    guarded: Site, method: bytes, path: bytes, version: bytes, headers: list[bytes], body: bytes
) -> None:
    request = b" ".join((method, path, version)) + b"\r\n" + b"".join(line + b"\r\n" for line in headers)
    received = send(guarded, request + b"\r\n" + body, wait_s=0.1)
    for status in re.findall(rb"^HTTP/1\.[01] (\d{3})", received):
        assert status in (b"100", b"400", b"401", b"403", b"404", b"405", b"413", b"417", b"421", b"429")
    assert b"yard" not in received
    assert b"Traceback" not in received
    assert guarded.faults("unexpected") == 0
    assert guarded.server._thread.is_alive()


@given(st.binary(max_size=400))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_fuzzed_bytes(guarded: Site, data: bytes) -> None:
    received = send(guarded, data, wait_s=0.05)
    assert b" 200 " not in received
    assert guarded.faults("unexpected") == 0


@given(st.binary(max_size=300))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_fuzzed_zones(site: Site, body: bytes) -> None:
    before = site.ask("/api/zones?camera=yard").body
    assert site.put_zones(body).status == 400
    assert site.ask("/api/zones?camera=yard").body == before


def test_bad_requests_are_counted_and_told_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(10):
        assert b" 400 " in send(site, b"GARBAGE \x00\xff\r\n\r\n")
    assert site.faults("bad_request") == 10
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("view: refused")
    assert site.ask("/healthz").status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"".join(b"X-%d: a\r\n" % i for i in range(5000)) + b"\r\n",
    ],
)
def test_large_heads(site: Site, head: bytes) -> None:
    received = send(site, head)
    assert b" 200 " not in received
    assert site.faults("bad_request") == 1


def test_large_bodies(site: Site) -> None:
    head = b"PUT /api/zones?camera=yard HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    received = send(site, head + b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + b" " * 65536 + b"\r\n") * 32)
    assert b" 413 " in received or received == b""  # a connection that is closed early may lose the answer
    until(lambda: site.faults("too_large") == 1)


def test_requests_do_not_hide_in_others(guarded: Site) -> None:
    """A second request in the body of the first is answered on its own terms, or not at all."""
    inner = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
    outer = (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    )
    assert b"edgekit_" not in send(guarded, outer % len(inner) + inner)


def test_silent_connections_are_closed(open_site: OpenSite) -> None:
    site = open_site(idle_s=0.3)
    site.frame()
    with socket.create_connection(("127.0.0.1", site.port), timeout=5) as silent:
        assert silent.recv(1) == b""
    with socket.create_connection(("127.0.0.1", site.port), timeout=5) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\n")
        with contextlib.suppress(OSError):
            for _ in range(200):
                slow.sendall(b"X: y\r\n")
                time.sleep(0.02)
            pytest.fail("a head may take for ever")
    assert site.ask("/healthz").status == 200


def test_a_body_may_not_take_for_ever(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit.view.routes.BODY_S", 0.2)
    with socket.create_connection(("127.0.0.1", site.port), timeout=5) as slow:
        slow.sendall(
            b"PUT /api/zones?camera=yard HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        assert b" 408 " in slow.recv(1000)
    assert site.faults("slow") == 1


def test_connections_are_limited(open_site: OpenSite) -> None:
    site = open_site(most_connections=5, idle_s=1.0)
    site.frame()
    silent = [socket.create_connection(("127.0.0.1", site.port), timeout=5) for _ in range(5)]
    until(lambda: len(site.server._connections._idle_since) == 5)
    with socket.create_connection(("127.0.0.1", site.port), timeout=5) as refused, contextlib.suppress(OSError):
        assert refused.recv(1) == b""
    assert site.faults("connections") == 1
    until(lambda: not site.server._connections._idle_since)
    assert site.ask("/healthz").status == 200  # the silent ones have been let go
    for channel in silent:
        channel.close()

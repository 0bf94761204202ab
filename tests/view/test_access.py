"""Who gets in: tokens, cookies, host names, other sites."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import UsageError
from edgekit.view import access
from edgekit.view.address import parse_address

if TYPE_CHECKING:
    from conftest import OpenSite, Site

TOKEN = "a-token-of-many-letters"
SQUARE = {"polygons": [[[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]]]}

READABLE = ["/", "/page.js", "/page.css", "/charts.js", "/zones.js", "/picture.mjpg?camera=yard", "/api/live",
            "/api/history?camera=yard", "/api/zones?camera=yard", "/metrics", "/nothing", "/%2e%2e/etc/passwd",
            "/static/", "//", "/api"]  # fmt: skip


@pytest.mark.parametrize("path", READABLE)
@pytest.mark.parametrize("token", [None, "wrong-token-of-many-letters", TOKEN[:-1], TOKEN + "x"])
def test_nothing_is_readable_without_the_token(guarded: Site, path: str, token: str | None) -> None:
    answer = guarded.ask(path, token=token)
    assert answer.status == 401
    assert b"yard" not in answer.body
    assert b"edgekit_" not in answer.body
    assert "set-cookie" not in answer.headers


def test_nothing_is_writable_without_the_token(guarded: Site) -> None:
    assert guarded.put_zones(SQUARE).status == 401
    assert guarded.put_zones(SQUARE, token="wrong-token-of-many-letters").status == 401
    assert guarded.ask("/api/zones?camera=yard", token=TOKEN).json()["polygons"] == []


def test_health_is_for_everybody_and_terse(guarded: Site) -> None:
    answer = guarded.ask("/healthz")
    assert (answer.status, answer.json()) == (200, {"status": "ok"})


def test_the_token_opens_everything(guarded: Site) -> None:
    for path in ("/", "/page.js", "/metrics", "/api/history?camera=yard", "/api/zones?camera=yard"):
        assert guarded.ask(path, token=TOKEN).status == 200
    assert guarded.put_zones(SQUARE, token=TOKEN).status == 200


def test_a_token_in_the_address_becomes_a_cookie(guarded: Site) -> None:
    answer = guarded.ask(f"/?token={TOKEN}")
    assert answer.status == 200
    cookie = answer.headers["set-cookie"]
    assert re.search(r"HttpOnly", cookie)
    assert re.search(r"SameSite=Strict", cookie)
    assert TOKEN not in cookie
    pair = cookie.partition(";")[0]
    assert guarded.ask("/metrics", headers={"Cookie": pair}).status == 200
    assert guarded.ask("/metrics", headers={"Cookie": pair[:-1] + "!"}).status == 401
    assert guarded.ask(f"/metrics?token={TOKEN}").status == 401  # the page's address alone takes one


def test_the_login_page_tells_nothing(guarded: Site) -> None:
    answer = guarded.ask("/")
    assert answer.status == 401
    assert b"yard" not in answer.body
    assert b'name="token"' in answer.body


def test_guessing_is_slow(guarded: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(access.TRIES):
        assert guarded.ask("/metrics", token=f"wrong-token-{number:04}").status == 401
    assert guarded.ask("/metrics", token="wrong-token-again").status == 429
    assert guarded.ask("/metrics", token=TOKEN).status == 429  # or a guesser would learn that it is right
    assert guarded.faults("token") == access.TRIES
    assert guarded.faults("token_rate") == 2
    monkeypatch.setattr(access, "TRIES_S", 0.0)
    assert guarded.ask("/metrics", token=TOKEN).status == 200


def test_who_is_in_already_stays_in_while_others_guess(guarded: Site) -> None:
    pair = guarded.ask(f"/?token={TOKEN}").headers["set-cookie"].partition(";")[0]
    for number in range(access.TRIES + 1):
        guarded.ask("/metrics", token=f"wrong-token-{number:04}")
    assert guarded.ask("/metrics", headers={"Cookie": pair}).status == 200


def test_the_table_of_guessers_is_bounded() -> None:
    tries = access._Tries()
    for number in range(3 * access.MOST_ADDRESSES):
        tries.failed(str(number))
    assert len(tries._wrong) == access.MOST_ADDRESSES
    assert not tries.left("a new one")  # so many wrong ones in a minute are an attack


def test_off_this_machine_a_token_is_made_and_told_once(open_site: OpenSite, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "edgekit")
    site = open_site("0.0.0.0:0")
    (line,) = [message for message in caplog.messages if "token=" in message]
    token = line.partition("token=")[2]
    assert len(token) >= 40
    site.frame()
    assert site.ask("/metrics").status == 401
    assert site.ask("/metrics", token=token).status == 200
    assert sum(token in message for message in caplog.messages) == 1


def test_a_given_token_is_not_told(open_site: OpenSite, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    site = open_site("0.0.0.0:0", token=TOKEN)
    site.ask(f"/?token={TOKEN}")
    site.ask("/nothing", token=TOKEN)
    site.ask(f"/nothing?token={TOKEN}")
    assert TOKEN not in caplog.text


def test_tokens_from_the_environment(open_site: OpenSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_VIEW_TOKEN", TOKEN)
    assert open_site().ask("/metrics").status == 401


@pytest.mark.parametrize("token", ["short", "x" * 15, "ä" * 20, "line\nbreak of many letters"])
def test_weak_tokens(open_site: OpenSite, token: str) -> None:
    with pytest.raises(UsageError, match="the token must be at least 16 printable ASCII characters"):
        open_site(token=token)


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("127.0.0.1:{port}", True),
        ("localhost:{port}", True),
        ("LOCALHOST", True),
        ("[::1]:{port}", True),
        ("evil.example", False),
        ("evil.example:{port}", False),
        ("192.168.1.7", False),  # we do not listen there
        ("localhost.evil.example", False),
        ("127.0.0.1.nip.io", False),
        ("127.0.0.1@evil.example", False),
        ("", False),
        ("[::1", False),
        ("localhost:port", False),
        ("localhost/evil", False),
    ],
)
def test_host_names_here(site: Site, host: str, good: bool) -> None:
    for path in ("/api/history?camera=yard", "/healthz"):
        assert site.ask(path, headers={"Host": host.format(port=site.port)}).status == (200 if good else 421)
    assert site.faults("host") == (0 if good else 2)


@pytest.mark.parametrize(
    ("host", "good"), [("192.168.1.7:80", True), ("pole.lan", True), ("evil.example", False), ("[fe80::1]", True)]
)
def test_host_names_elsewhere(open_site: OpenSite, host: str, good: bool) -> None:
    site = open_site("0.0.0.0:0", token=TOKEN, names=["Pole.lan"])
    assert site.ask("/metrics", headers={"Host": host}, token=TOKEN).status == (200 if good else 421)


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost", "http://127.0.0.1.evil.example"],
)
def test_other_sites_do_not_write(site: Site, origin: str) -> None:
    answer = site.put_zones(SQUARE, headers={"Origin": origin})
    assert answer.status == 403
    assert site.ask("/api/zones?camera=yard").json()["polygons"] == []
    assert site.faults("origin") == 1


def test_our_page_and_programs_write(site: Site) -> None:
    own = f"http://127.0.0.1:{site.port}"
    assert site.put_zones(SQUARE, headers={"Origin": own, "Sec-Fetch-Site": "same-origin"}).status == 200
    assert site.put_zones(SQUARE).status == 200


@pytest.mark.parametrize("where", ["cross-site", "same-site"])
def test_other_sites_do_not_read(site: Site, where: str) -> None:
    headers = {"Sec-Fetch-Site": where, "Sec-Fetch-Mode": "no-cors"}
    for path in ("/", "/picture.mjpg?camera=yard", "/metrics", "/page.js"):
        assert site.ask(path, headers=headers).status == 403
    assert site.put_zones(SQUARE, headers=headers).status == 403
    assert site.faults("cross_site") == 5
    link = {"Sec-Fetch-Site": where, "Sec-Fetch-Mode": "navigate"}
    assert site.ask("/", headers=link).status == 200
    assert site.ask("/metrics", headers=link).status == 403


def test_headers_of_every_answer(site: Site) -> None:
    for path in ("/", "/nothing", "/metrics"):
        headers = site.ask(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["server"] == "edgekit"
        assert "access-control-allow-origin" not in headers


def test_refusals_are_told_on_one_line(guarded: Site, caplog: pytest.LogCaptureFixture) -> None:
    guarded.ask("/a%0d%0ab%1b[31m?token=hidden")
    (line,) = caplog.messages
    assert line == "view: refused 127.0.0.1: GET /a b [31m: a token is needed"
    for _ in range(20):
        guarded.ask("/x")
    assert len(caplog.messages) == 1
    assert guarded.faults("no_token") == 21


@pytest.mark.parametrize(
    ("text", "host", "port", "local"),
    [
        ("8080", "127.0.0.1", 8080, True),
        (":0", "127.0.0.1", 0, True),
        ("localhost:80", "localhost", 80, True),
        ("0.0.0.0:65535", "0.0.0.0", 65535, False),
        ("[::1]:80", "::1", 80, True),
        ("[::]:80", "::", 80, False),
        ("pole.lan:80", "pole.lan", 80, False),
    ],
)
def test_addresses(text: str, host: str, port: int, local: bool) -> None:
    address = parse_address(text)
    assert (address.host, address.port, address.is_local) == (host, port, local)


@given(st.text(max_size=30))
def test_any_text_is_an_address_or_an_error(text: str) -> None:
    try:
        address = parse_address(text)
    except UsageError:
        return
    assert 0 <= address.port <= 65535
    assert address.host

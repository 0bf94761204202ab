"""Webhooks with a real server: what it gets, what is tried again, and what is never told."""

from __future__ import annotations

import base64
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import trustme

from edgekit.errors import UsageError
from edgekit.sinks.faults import Faults
from edgekit.sinks.outbox import Counts
from edgekit.sinks.secret import read_secret, without_secrets
from edgekit.sinks.snapshot import annotated_jpeg
from edgekit.sinks.webhook import Webhook, signature
from edgekit.spec import DetectorSpec

if TYPE_CHECKING:
    from conftest import MakeEvent, MakeFrame, MakeResult

CLASSES = ("person", "cat")


class Receiver(ThreadingHTTPServer):
    """Answers with the given statuses in turn, then with 204; keeps what it got."""

    daemon_threads = True

    def __init__(self) -> None:
        self.answers: list[tuple[int, dict[str, str]]] = []
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.hold = threading.Event()
        self.hold.set()
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/hook/secret-path?token=secret-token"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append((self.path, dict(self.headers), body))
        self.server.hold.wait(10)
        status, headers = self.server.answers.pop(0) if self.server.answers else (204, {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def do_GET(self) -> None:
        self.server.requests.append((self.path, {}, b"a redirection was followed"))

    def log_message(self, *_args: Any) -> None:
        """Nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.hold.set()
    server.shutdown()
    thread.join()
    server.server_close()


def until(condition: Callable[[], object], *, within_s: float = 10.0) -> None:
    end_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < end_s
        time.sleep(0.005)


def test_a_request(
    receiver: Receiver, make_frame: MakeFrame, make_result: MakeResult, make_event: MakeEvent, spec: DetectorSpec
) -> None:
    url = receiver.url.replace("//", "//pole:pass%20word@")
    hook = Webhook(url, CLASSES, key="a key", snapshot=lambda frame, result: annotated_jpeg(frame.image, result, spec))
    hook.write(make_frame(3), make_result())  # no event, no request
    hook.write(make_frame(4), make_result(events=(make_event(9, frame=4),)))
    until(lambda: hook.counts().written == 1)
    hook.close()
    ((path, headers, body),) = receiver.requests
    assert path == "/hook/secret-path?token=secret-token"
    document = json.loads(body)
    jpeg = base64.b64decode(document.pop("snapshot_jpeg"))
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == (48, 64, 3)
    assert document["events"][0]["track"] == 9
    assert {key: document[key] for key in ("camera", "frame", "time")} == {"camera": "test", "frame": 4, "time": 0.4}
    assert headers["Authorization"] == "Basic " + base64.b64encode(b"pole:pass word").decode()
    assert headers["X-Edgekit-Signature"] == signature("a key", headers["X-Edgekit-Timestamp"], body)
    assert headers["Content-Type"] == "application/json"


def test_certificates_are_checked(
    tmp_path: Path, receiver: Receiver, make_frame: MakeFrame, make_result: MakeResult, make_event: MakeEvent
) -> None:
    ca, context = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(context)
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    url = receiver.url.replace("http:", "https:")
    faults = Faults()
    for ca_file in (None, tmp_path / "ca.pem"):
        hook = Webhook(url, CLASSES, ca_file=ca_file, faults=faults)
        hook.write(make_frame(), make_result(events=(make_event(),)))
        until(lambda hook=hook, known=ca_file: hook.counts().written if known else faults.counts())
        hook.close()
    assert set(faults.counts()) == {("webhook", "tls"), ("webhook", "left")}
    assert len(receiver.requests) == 1


def test_signatures_are_hmac() -> None:
    # printf '17.{}' | openssl dgst -sha256 -hmac key
    assert signature("key", "17", b"{}") == "sha256=e66392eac42eafc68c35a01c712811e016386c12456975fc3af80c9268568e3a"


def test_it_is_tried_again_in_order(
    receiver: Receiver,
    make_frame: MakeFrame,
    make_result: MakeResult,
    make_event: MakeEvent,
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver.answers = [(503, {}), (429, {"Retry-After": "0"})]
    faults = Faults()
    hook = Webhook(receiver.url, CLASSES, first_pause_s=0.01, faults=faults)
    for index in range(3):
        hook.write(make_frame(index), make_result(events=(make_event(frame=index),)))
    until(lambda: hook.counts().written == 3)
    hook.close()
    assert [json.loads(body)["frame"] for _, _, body in receiver.requests] == [0, 0, 0, 1, 2]
    deliveries = [headers["X-Edgekit-Delivery"] for _, headers, _ in receiver.requests]
    assert len(set(deliveries)) == 3
    assert deliveries[0] == deliveries[1] == deliveries[2]
    assert faults.counts() == {("webhook", "status 5xx"): 1, ("webhook", "status 4xx"): 1}
    assert "secret" not in caplog.text
    assert caplog.messages[0] == f"webhook: http://127.0.0.1:{receiver.server_address[1]}/... answered: 503"


@pytest.mark.parametrize(("status", "headers"), [(400, {}), (301, {}), (302, {}), (303, {}), (307, {}), (308, {})])
def test_final_answers(
    receiver: Receiver,
    make_frame: MakeFrame,
    make_result: MakeResult,
    make_event: MakeEvent,
    status: int,
    headers: dict[str, str],
) -> None:
    elsewhere = f"http://localhost:{receiver.server_address[1]}/elsewhere"
    receiver.answers = [(status, {"Location": elsewhere} if 300 <= status < 400 else headers)]
    hook = Webhook(receiver.url, CLASSES, first_pause_s=0.01)
    for index in range(2):
        hook.write(make_frame(index), make_result(events=(make_event(),)))
    until(lambda: hook.counts().written == 1)
    hook.close()
    assert hook.counts() == Counts(offered=2, written=1, failed=1)
    assert len(receiver.requests) == 2  # nobody went elsewhere


def test_a_receiver_that_hangs_holds_nothing_up(
    receiver: Receiver, make_frame: MakeFrame, make_result: MakeResult, make_event: MakeEvent
) -> None:
    receiver.hold.clear()
    hook = Webhook(receiver.url, CLASSES, kept=4)
    frames = [make_frame(index) for index in range(50)]
    result = make_result(events=(make_event(),))
    hook.write(frames[0], result)
    until(lambda: receiver.requests)
    start_s = time.perf_counter()
    for frame in frames[1:]:
        hook.write(frame, result)
    assert time.perf_counter() - start_s < 0.2
    assert hook.counts() == Counts(offered=50, dropped=46, waiting=4)
    start_s = time.monotonic()
    hook.close()
    assert time.monotonic() - start_s < 1.9
    assert not hook._thread.is_alive()
    assert hook.counts() == Counts(offered=50, dropped=50)


def test_timeouts_are_tried_again(
    receiver: Receiver, make_frame: MakeFrame, make_result: MakeResult, make_event: MakeEvent
) -> None:
    receiver.hold.clear()
    faults = Faults()
    hook = Webhook(receiver.url, CLASSES, timeout_s=0.1, first_pause_s=0.01, faults=faults)
    hook.write(make_frame(), make_result(events=(make_event(),)))
    until(lambda: faults.counts().get(("webhook", "unreachable")))
    receiver.hold.set()
    until(lambda: hook.counts().written == 1)
    hook.close()


def test_nobody_there(
    make_frame: MakeFrame, make_result: MakeResult, make_event: MakeEvent, caplog: pytest.LogCaptureFixture
) -> None:
    server = Receiver()
    server.server_close()
    hook = Webhook(server.url, CLASSES)
    hook.write(make_frame(), make_result(events=(make_event(),)))
    until(lambda: caplog.messages)
    hook.close()
    assert hook.counts() == Counts(offered=1, dropped=1)
    assert caplog.messages[0].endswith("/... cannot be reached: Connection refused")
    assert caplog.messages[1].startswith("webhook: 1 requests were not delivered")
    assert "secret" not in caplog.text


@pytest.mark.parametrize(
    "url", ["ftp://secret/", "https://", "file:///secret", "http://[secret", "http://h:99999/", "http://h/\nsecret"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(UsageError, match="the webhook's address") as caught:
        Webhook(url, CLASSES)
    assert "secret" not in str(caught.value)


def test_keys_from_files_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_secret("EDGEKIT_TEST") is None
    monkeypatch.setenv("EDGEKIT_TEST", "from the environment")
    assert read_secret("EDGEKIT_TEST") == "from the environment"
    path = tmp_path / "key"
    path.write_text("from a file\n")
    monkeypatch.setenv("EDGEKIT_TEST_FILE", str(path))
    assert read_secret("EDGEKIT_TEST") == "from a file"
    path.write_text("")
    with pytest.raises(UsageError, match="must hold one secret on one line"):
        read_secret("EDGEKIT_TEST")
    path.write_bytes(b"\xff\xfe hidden")
    with pytest.raises(UsageError, match="must be text in UTF-8") as caught:
        read_secret("EDGEKIT_TEST")
    assert "hidden" not in str(caught.value)
    with pytest.raises(UsageError, match=r"the secret in .*/no cannot be read: No such file"):
        read_secret("EDGEKIT_TEST", tmp_path / "no")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@hooks.example.com/services/T0/B0/xyz?k=v", "https://hooks.example.com/..."),
        ("http://[::1]:80", "http://[::1]:80"),
        ("http://[::1", "an unreadable address"),
    ],
)
def test_shown_addresses(url: str, shown: str) -> None:
    assert without_secrets(url) == shown

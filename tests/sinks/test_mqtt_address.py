"""Addresses of brokers, and where passwords come from and do not go."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import UsageError
from edgekit.sinks.mqtt_address import parse_mqtt


@pytest.fixture(autouse=True)
def _no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USER", "PASSWORD", "PASSWORD_FILE"):
        monkeypatch.delenv(f"EDGEKIT_MQTT_{name}", raising=False)


@pytest.mark.parametrize(
    ("url", "shown", "user", "password"),
    [
        ("mqtt://broker", "mqtt://broker:1883/edgekit", None, None),
        ("mqtts://broker", "mqtts://broker:8883/edgekit", None, None),
        ("mqtt://u:p%40ss@10.0.0.1:99/a/b", "mqtt://10.0.0.1:99/a/b", "u", "p@ss"),
        ("mqtt://u@[::1]/", "mqtt://[::1]:1883/edgekit", "u", None),
    ],
)
def test_addresses(url: str, shown: str, user: str | None, password: str | None) -> None:
    address = parse_mqtt(url)
    assert (str(address), address.user, address.password) == (shown, user, password)


def test_a_password_on_the_command_line_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    address = parse_mqtt("mqtt://u:hidden@broker")
    assert "better set EDGEKIT_MQTT_PASSWORD" in caplog.text
    assert "hidden" not in caplog.text + repr(address) + str(address)


def test_passwords_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_MQTT_USER", "pole")
    monkeypatch.setenv("EDGEKIT_MQTT_PASSWORD", "one")
    assert parse_mqtt("mqtt://broker").password == "one"
    (tmp_path / "password").write_text("two\n")
    address = parse_mqtt("mqtt://broker", password_file=tmp_path / "password")
    assert (address.user, address.password) == ("pole", "two")


@pytest.mark.parametrize(
    "url", ["http://hidden", "mqtt://", "mqtt:broker", "mqtt://b/a?hidden", "mqtt://[hidden", "mqtt://b:hidden/",
            "mqtt://b/a%2b", "mqtt://b/a%23", "mqtt://b/$SYS"],
)  # fmt: skip
def test_no_addresses(url: str) -> None:
    with pytest.raises(UsageError, match=r"the address of the MQTT broker|the MQTT prefix") as caught:
        parse_mqtt(url)
    assert "hidden" not in str(caught.value)


def test_what_does_not_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="a CA file is for mqtts://"):
        parse_mqtt("mqtt://broker", ca_file=tmp_path / "ca.pem")
    with pytest.raises(UsageError, match="no file of CA certificates"):
        parse_mqtt("mqtts://broker", ca_file=tmp_path / "ca.pem")
    monkeypatch.setenv("EDGEKIT_MQTT_PASSWORD", "hidden")
    with pytest.raises(UsageError, match="password without a user") as caught:
        parse_mqtt("mqtt://broker")
    assert "hidden" not in str(caught.value)


@given(text=st.text(max_size=60))
def test_any_text_is_an_address_or_an_error_in_words(text: str) -> None:
    for url in (text, f"mqtt://{text}", f"mqtt://host/{text}"):
        try:
            address = parse_mqtt(url)
        except UsageError:
            continue
        assert address.host
        assert not set(address.prefix) & set("+#\0")

"""Where the broker is and who we are there, read from ``mqtt[s]://user:password@host:port/prefix``."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgekit.errors import UsageError
from edgekit.sinks.secret import read_secret

log = logging.getLogger("edgekit")

PORTS = {"mqtt": 1883, "mqtts": 8883}
PREFIX = "edgekit"
USER_VARIABLE, PASSWORD_VARIABLE = "EDGEKIT_MQTT_USER", "EDGEKIT_MQTT_PASSWORD"


@dataclass(frozen=True, kw_only=True)
class MqttAddress:
    """A broker, and the topics below which everything lies."""

    host: str
    port: int
    tls: bool
    prefix: str
    """``PREFIX/status``, ``PREFIX/CAMERA/events``, ..."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None
    """Certificates that the broker's one is checked with; None is the system's."""

    def __str__(self) -> str:
        """Without user and password."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}/{self.prefix}"


def parse_mqtt(url: str, *, ca_file: Path | None = None, password_file: Path | None = None) -> MqttAddress:
    """Read an address.

    User and password are taken from the URL or else from ``EDGEKIT_MQTT_USER`` and ``EDGEKIT_MQTT_PASSWORD``; the
    password also from ``password_file`` or the file that ``EDGEKIT_MQTT_PASSWORD_FILE`` names. What is on a command
    line, everybody on the machine can read.

    Raises:
        UsageError: not such a URL, or a file that cannot be read. The message holds no password.
    """
    expected = "expected mqtt://HOST, or in full mqtts://USER:PASSWORD@HOST:PORT/PREFIX"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"the address of the MQTT broker cannot be read; {expected}") from error
    if parts.scheme not in PORTS or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"the address of the MQTT broker is not understood; {expected}")
    if ca_file is not None and parts.scheme != "mqtts":
        raise UsageError("a CA file is for mqtts://; mqtt:// is not encrypted")
    if ca_file is not None and not ca_file.is_file():
        raise UsageError(f"there is no file of CA certificates {str(ca_file)!r}")
    user = unquote(parts.username) if parts.username else read_secret(USER_VARIABLE)
    if parts.password:
        password: str | None = unquote(parts.password)
        log.warning("the MQTT password is on the command line, where `ps` shows it: better set %s", PASSWORD_VARIABLE)
    else:
        password = read_secret(PASSWORD_VARIABLE, password_file)
    if password is not None and user is None:
        raise UsageError(f"there is an MQTT password without a user: put USER@ before the host, or set {USER_VARIABLE}")
    return MqttAddress(
        host=parts.hostname,
        port=port or PORTS[parts.scheme],
        tls=parts.scheme == "mqtts",
        prefix=_prefix(unquote(parts.path.strip("/"))),
        user=user,
        password=password,
        ca_file=ca_file,
    )


def _prefix(path: str) -> str:
    if any(character in path for character in "+#\0") or path.startswith("$") or len(path) > 200:
        raise UsageError(
            f"the MQTT prefix {path[:60]!r} must not hold +, # or NUL, nor begin with $, nor be longer than 200"
        )
    return path or PREFIX

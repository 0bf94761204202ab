"""One connection to a broker: MQTT 5 through paho-mqtt, driven by the thread that owns it.

A new connection is a new client, so nothing of an old one is left to be sent: what was not acknowledged, the caller
knows and sends again in order.
"""

from __future__ import annotations

import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from edgekit.errors import MissingDependencyError
from edgekit.sinks.mqtt_address import MqttAddress

if TYPE_CHECKING:
    import paho.mqtt.client as paho
    from paho.mqtt.properties import Properties
    from paho.mqtt.reasoncodes import ReasonCode

CONNECTING_S = 5.0
KEEP_ALIVE_S = 20
"""The broker misses us after one and a half of it, and tells others by the last will."""


UNACKNOWLEDGED = 8
"""Messages on the way at once: so many are sent again after a break, and the default limit of brokers is 20."""


class RefusedError(OSError):
    """The broker answered and does not want us; the message is its reason."""


def require_paho() -> None:
    """Raises ``MissingDependencyError`` unless paho-mqtt is installed."""
    try:
        import paho.mqtt.client  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependencyError("paho-mqtt", "mqtt", "send to an MQTT broker") from error


class _Context(ssl.SSLContext):
    """Remembers its socket, which paho forgets to close when the other side's certificate is not trusted."""

    latest: ssl.SSLSocket | None = None

    def wrap_socket(self, *args: Any, **options: Any) -> ssl.SSLSocket:
        self.latest = super().wrap_socket(*args, **options)
        return self.latest


class Link:
    """An open connection; use it from one thread.

    Args:
        address: of the broker.
        client_id: the same for each connection of a run, so that a broker lets go of one that is half dead.
        will: topic and payload that the broker publishes, retained, when the connection breaks.
        acknowledged: is called with the number that :meth:`publish` gave, and the reason if the broker would not have
            the message, otherwise None.
        deadline_s: ``time.monotonic()`` after which no answer to CONNECT is waited for, as it is at that moment.

    Raises:
        RefusedError: the broker does not want us.
        OSError: it cannot be reached, or its certificate is not trusted.
    """

    def __init__(
        self,
        address: MqttAddress,
        *,
        client_id: str,
        will: tuple[str, str],
        acknowledged: Callable[[int, str | None], None],
        deadline_s: Callable[[], float],
    ) -> None:
        import paho.mqtt.client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        self._acknowledged = acknowledged
        self._answer: str | None = None  # to CONNECT: "" is yes
        self._lost: str | None = None
        self._tls: _Context | None = None
        client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id, protocol=paho.MQTTv5)
        client.connect_timeout = CONNECTING_S
        client.max_inflight_messages_set(UNACKNOWLEDGED)
        client.username_pw_set(address.user, address.password)
        client.will_set(will[0], will[1], qos=1, retain=True)
        if address.tls:
            self._tls = _Context(ssl.PROTOCOL_TLS_CLIENT)  # checks certificate and host name
            if address.ca_file is None:
                self._tls.load_default_certs()
            else:
                self._tls.load_verify_locations(address.ca_file)
            client.tls_set_context(self._tls)
        client.on_connect, client.on_disconnect, client.on_publish = self._on_connect, self._on_disconnect, self._on_ack
        self._client = client
        try:
            client.connect(address.host, address.port, keepalive=KEEP_ALIVE_S)
            if refusal := self._wait_for_answer(deadline_s):
                raise RefusedError(refusal)
        except BaseException:
            self.close()
            raise

    def _wait_for_answer(self, deadline_s: Callable[[], float]) -> str:
        """What the broker says to CONNECT: nothing, or why not."""
        end_s = time.monotonic() + CONNECTING_S
        while self._answer is None:
            if time.monotonic() > min(end_s, deadline_s()):
                raise TimeoutError("no answer to CONNECT")
            self.step(0.1)
        return self._answer

    def publish(self, topic: str, payload: str | bytes, *, qos: int = 1, retain: bool = False) -> int:
        """Send a message; its number, which is acknowledged later if ``qos`` is 1."""
        return self._client.publish(topic, payload, qos=qos, retain=retain).mid

    def step(self, timeout_s: float, wake: int | None = None) -> None:
        """Wait for the network for at most ``timeout_s``, or until the file descriptor ``wake`` can be read.

        Raises:
            ConnectionError: the connection is lost.
        """
        from paho.mqtt.client import error_string
        from paho.mqtt.enums import MQTTErrorCode

        channel = cast("socket.socket | None", self._client.socket())
        if channel is None or self._lost is not None:
            raise ConnectionError(self._lost or "the connection was closed")
        pending = isinstance(channel, ssl.SSLSocket) and channel.pending() > 0
        writers = [channel] if self._client.want_write() else []
        readers: list[socket.socket | int] = [channel] if wake is None else [channel, wake]
        ready, writable, _ = select.select(readers, writers, [], 0 if pending else timeout_s)
        code = MQTTErrorCode.MQTT_ERR_SUCCESS
        if pending or channel in ready:
            code = self._client.loop_read()
        if writable and code == MQTTErrorCode.MQTT_ERR_SUCCESS:
            code = self._client.loop_write()
        if code == MQTTErrorCode.MQTT_ERR_SUCCESS:
            code = self._client.loop_misc()
        if self._answer:  # refused: the broker has closed, and its reason says more than that
            return
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise ConnectionError(self._lost or error_string(code))

    def close(self) -> None:
        """Say good-bye, so that the broker forgets the last will, and close the socket."""
        self._client.on_disconnect = None
        self._client.disconnect()
        if self._client.want_write():
            self._client.loop_write()
        channel = self._client.socket()
        if channel is not None:
            channel.close()
        if self._tls is not None and self._tls.latest is not None:
            self._tls.latest.close()

    def _on_connect(
        self,
        _client: paho.Client,
        _data: object,
        _flags: paho.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._answer = str(reason) if reason.is_failure else ""

    def _on_disconnect(
        self,
        _client: paho.Client,
        _data: object,
        _flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._lost = str(reason)

    def _on_ack(
        self, _client: paho.Client, _data: object, mid: int, reason: ReasonCode, _properties: Properties
    ) -> None:
        self._acknowledged(mid, str(reason) if reason.is_failure else None)

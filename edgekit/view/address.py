"""Where the page is served: ``PORT``, ``:PORT``, ``HOST:PORT`` or ``[IPV6]:PORT``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from edgekit.errors import UsageError

LOCAL = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Address:
    """An address to listen at."""

    host: str
    port: int
    """0 is any that is free."""

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach it."""
        return is_loopback(self.host)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read an address; without a host it is this machine's own, which others do not reach.

    Raises:
        UsageError: it is none.
    """
    found = re.fullmatch(r"(?:(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]*)):)?([0-9]{1,5})", text.strip())
    if found is None or int(found[3]) > 65535:
        raise UsageError(
            f"{text[:80]!r} is no address to serve at: expected [HOST:]PORT with a port up to 65535, "
            "e.g. 8080 for this machine alone, or 0.0.0.0:8080 for the network"
        )
    host = found[1] or found[2] or LOCAL
    if found[1]:
        try:
            ipaddress.IPv6Address(host)
        except ValueError:
            raise UsageError(f"{text[:80]!r}: {host} is no IPv6 address") from None
    return Address(host=host, port=int(found[3]))


def is_loopback(host: str) -> bool:
    """Whether a host, a name or an IP address, can only mean this machine."""
    if host.lower() == "localhost":
        return True
    address = ip_address(host)
    return address is not None and address.is_loopback


def ip_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that ``host`` is, or None where it is a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None

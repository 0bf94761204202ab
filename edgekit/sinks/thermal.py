"""How hot the board is, and whether it runs slower because of it; from files of the kernel."""

from __future__ import annotations

from pathlib import Path

RASPBERRY_PI = "sys/devices/platform/soc/soc:firmware/get_throttled"
"""The firmware's bits in hexadecimal: 0 under-voltage, 1 clock capped, 2 throttled, 3 soft temperature limit."""

NOW = 0b1111
"""Bits of the present; 16 to 19 say the same of the time since the start."""


def temperature_c(root: Path = Path("/")) -> float | None:
    """The hottest thermal zone in degrees Celsius; None where there is none to read."""
    zones = (_number(path) for path in sorted((root / "sys/class/thermal").glob("thermal_zone*/temp")))
    plausible = [millis / 1000 for millis in zones if millis is not None and -40_000 < millis < 150_000]
    return max(plausible, default=None)


class Throttling:
    """Tells whether the processor is being slowed down at the moment.

    On a Raspberry Pi the firmware says so. On x86 the kernel counts such moments, and a count that has grown since the
    last look means yes. Elsewhere nobody says: None.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._before = self._events()

    def now(self) -> bool | None:
        """Look."""
        firmware = _number(self._root / RASPBERRY_PI, base=16)
        if firmware is not None:
            return bool(firmware & NOW)
        events, before = self._events(), self._before
        self._before = events
        return None if events is None or before is None else events > before

    def _events(self) -> int | None:
        folder = self._root / "sys/devices/system/cpu"
        paths = folder.glob("cpu[0-9]*/thermal_throttle/*_throttle_count")
        counts = [count for count in map(_number, paths) if count is not None]
        return sum(counts) if counts else None


def _number(path: Path, base: int = 10) -> int | None:
    try:
        return int(path.read_text().strip(), base)
    except (OSError, ValueError):
        return None

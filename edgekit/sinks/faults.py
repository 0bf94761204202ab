"""Faults that must not end the loop: one line each in the log, not too often, and a counter that metrics can show."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

log = logging.getLogger("edgekit")

QUIET_S = 30.0
"""The same fault is logged once in this time: a broker that is away for a night must not fill the disk with lines."""

MOST_KINDS = 64
"""Pairs of component and reason that are told apart. Each is a time series for ever in a metrics database."""

LONGEST_DETAIL = 300
"""Characters of a detail: some come from the other end of a wire."""


@dataclass(kw_only=True)
class _Fault:
    count: int = 0
    logged_s: float = float("-inf")
    unlogged: int = 0


class Faults:
    """Counts faults by component and reason; every thread may report.

    Args:
        quiet_s: seconds for which a fault that was logged is only counted.
    """

    def __init__(self, *, quiet_s: float = QUIET_S) -> None:
        self._quiet_s = quiet_s
        self._lock = threading.Lock()
        self._faults: dict[tuple[str, str], _Fault] = {}

    def report(self, component: str, reason: str, detail: str) -> None:
        """Count a fault and log it, unless the same one was logged a moment ago.

        Args:
            component: what is at fault, e.g. ``mqtt``.
            reason: one of few words, e.g. ``refused``: it becomes a label.
            detail: the rest of the line for people; line breaks become spaces. Must hold no secrets.
        """
        now = time.monotonic()
        with self._lock:
            key = (component, reason)
            if key not in self._faults and len(self._faults) >= MOST_KINDS:
                key = (component if any(name == component for name, _ in self._faults) else "other", "other")
            fault = self._faults.setdefault(key, _Fault())
            fault.count += 1
            if now - fault.logged_s < self._quiet_s:
                fault.unlogged += 1
                return
            before, fault.unlogged, fault.logged_s = fault.unlogged, 0, now
        line = one_line(detail)
        log.warning("%s: %s%s", component, line, f" ({before} more before)" if before else "")

    def counts(self) -> dict[tuple[str, str], int]:
        """(component, reason) -> how often."""
        with self._lock:
            return {key: fault.count for key, fault in self._faults.items()}


def one_line(text: str) -> str:
    """``text`` in printable characters on one line of bounded length, for a log that others write into."""
    clean = "".join(character if character.isprintable() else " " for character in text[: 4 * LONGEST_DETAIL])
    clean = " ".join(clean.split())
    return clean if len(clean) <= LONGEST_DETAIL else clean[: LONGEST_DETAIL - 3] + "..."

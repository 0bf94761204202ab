"""Where the dense engine overtakes the native one: the time of each against the share of active cells."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgekit.bundle.sparse_part import NATIVE


@dataclass(frozen=True, kw_only=True)
class ShareCurve:
    """The native engine's time by share, and the fastest dense engine's, which does not depend on it."""

    shares: tuple[float, ...]
    """Of active cells, 0..1, ascending; the last is 1."""

    native_ms: tuple[float, ...]
    """Median at each share."""

    dense_engine: str | None
    """None where there is no dense engine to compare with."""

    dense_ms: float | None

    @property
    def break_even(self) -> float | None:
        """The largest share up to which the native engine is not slower: 1 if it never is, 0 if it always is."""
        return None if self.dense_ms is None else crossing(self.shares, self.native_ms, self.dense_ms)


def share_curve(rows: Sequence[Mapping[str, Any]], dense_engines: Sequence[str]) -> ShareCurve:
    """The curve in rows of :func:`edgekit.profiling.shares.time_by_share`, which has the native engine and share 1.

    Args:
        rows: of one precision.
        dense_engines: those among which to look for the fastest.
    """
    native = sorted((row["active"], row["ms_median"]) for row in rows if row["engine"] == NATIVE)
    times = {name: [row["ms_median"] for row in rows if row["engine"] == name] for name in dense_engines}
    dense = min(((statistics.median(values), name) for name, values in times.items() if values), default=None)
    return ShareCurve(
        shares=tuple(share for share, _ in native),
        native_ms=tuple(time for _, time in native),
        dense_engine=dense[1] if dense else None,
        dense_ms=dense[0] if dense else None,
    )


def crossing(shares: Sequence[float], sparse_ms: Sequence[float], dense_ms: float) -> float:
    """The share at which a time that rises with it passes ``dense_ms``; between measured shares it is a straight line.

    Args:
        shares: ascending, at least one.
        sparse_ms: the time at each; one that falls is noise, and is evened out.
        dense_ms: constant.

    Returns:
        1 if it stays at ``dense_ms`` or below, 0 if it is above from the first share on.
    """
    times = rising(sparse_ms)
    if times[0] > dense_ms:
        return 0.0
    for index in range(1, len(times)):
        low, high = times[index - 1], times[index]
        if high > dense_ms:
            left, right = shares[index - 1], shares[index]
            return left + (right - left) * (dense_ms - low) / (high - low)
    return 1.0


def rising(values: Sequence[float]) -> list[float]:
    """The sequence nearest to ``values`` (least squares) that never falls: neighbours out of order become their mean.

    The pool-adjacent-violators algorithm (Ayer et al. 1955).
    """
    pools: list[tuple[float, int]] = []
    for value in values:
        mean, count = value, 1
        while pools and pools[-1][0] > mean:
            before, many = pools.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        pools.append((mean, count))
    return [mean for mean, count in pools for _ in range(count)]

"""Times of rivals that are to be compared: taken in turns, so that a machine's moods meet all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def interleave(rivals: Mapping[str, Callable[[], object]], *, rounds: int, burst: int) -> dict[str, tuple[float, ...]]:
    """Milliseconds of every run of every rival.

    In each round every rival runs ``burst`` times in a row after one run that does not count: what the others left in
    the caches is gone, as it is in a loop that runs one of them alone.

    Args:
        rivals: name -> what is timed.
        rounds: turns of each rival, at least 1.
        burst: runs that count in a turn, at least 1.

    Raises:
        ValueError: ``rounds`` or ``burst`` is not positive.
    """
    if rounds < 1 or burst < 1:
        raise ValueError(f"expected at least one round and one run, got {rounds} and {burst}")
    samples: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, call in rivals.items():
            call()
            for _ in range(burst):
                start = time.perf_counter_ns()
                call()
                samples[name].append((time.perf_counter_ns() - start) / 1e6)
    return {name: tuple(times) for name, times in samples.items()}

"""The largest program that is allowed, and how everything beyond it is refused.

The limits are far above what our models need and low enough that no size overflows.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.errors import SparseProgramError

MAX_LEVELS = 64
MAX_TENSORS = 4096
MAX_OPERATIONS = 4096
MAX_OUTPUTS = 16
MAX_MASK = 256
MAX_SIDE = 8192
MAX_CHANNELS = 32768
MAX_KERNEL = 15
MAX_STRIDE = 4
MAX_FACTOR = 8
"""Of UPSAMPLE."""

MAX_ANCHORS = 64
MAX_OUTPUT_ROWS, MAX_OUTPUT_COLUMNS = 1 << 24, 1 << 16
MAX_NAME = 32
MAX_SCALE = 2.0**64
"""Of an operand in units of the result, and of the multipliers of integers: no result is infinite, no sum NaN."""

MAX_BYTES = 1 << 31
"""All tensors and outputs together, dense."""


def expect(condition: bool, expected: str, got: object, where: str = "the sparse program") -> None:
    """Raise :class:`SparseProgramError` unless ``condition``; ``where`` names what is looked at."""
    if not condition:
        raise SparseProgramError(f"{where}: expected {expected}, got {got}")


def check_index(index: int | None, things: Sequence[object], name: str, where: str) -> None:
    """Refuse an ``index`` that is none of ``things``, which are called ``name``."""
    known = index is not None and 0 <= index < len(things)
    expect(known, f"one of {len(things)} {name}s", "none" if index is None else f"number {index}", where)

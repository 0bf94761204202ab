"""The order of a sparse program's operations, where more than one is right.

A residual block ends by adding a shortcut, and graphs have the shortcut's convolution between the branch and the sum.
An engine that computes a branch row by row, so that what lies between its operations stays in the cache, needs them one
behind the other.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgekit.sparse.program import Kind, Operation


def shortcuts_first(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """``operations`` with each convolution of a shortcut in front of the branch that its result is added to.

    Only where the branch is a line, each operation reading the one before and the first what the shortcut reads: what
    has several arms is not computed row by row.
    """
    ordered: list[Operation] = []
    for operation in operations:
        shortcut = ordered[-1] if ordered else None
        if (
            shortcut is not None
            and shortcut.kind is Kind.CONV
            and shortcut.second is None
            and operation.kind is Kind.CONV
            and operation.second == shortcut.output
            and (start := _start_of_line(ordered[:-1], operation.input, shortcut.input)) is not None
        ):
            ordered.insert(start, ordered.pop())
        ordered.append(operation)
    return tuple(ordered)


def _start_of_line(operations: Sequence[Operation], last: int | None, first: int | None) -> int | None:
    """Where the operations begin that end ``operations`` and lead from tensor ``first`` to ``last``, if any do."""
    wanted = last
    for index in range(len(operations) - 1, -1, -1):
        operation = operations[index]
        if operation.kind is Kind.OUTPUT or operation.output != wanted or operation.second is not None:
            return None
        if any(other.output == wanted and other.kind is not Kind.OUTPUT for other in operations[:index]):
            return None  # one of several parts of a concatenation
        if operation.input == first:
            return index
        wanted = operation.input
    return None

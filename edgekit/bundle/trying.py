"""A self-test on every engine of a bundle: those that are absent or fail are part of the result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from edgekit.errors import EngineError, MissingDependencyError, SparseProgramError

Check = TypeVar("Check")


def try_engines(
    names: Sequence[str], check: Callable[[str], Check], unable: Callable[[str, str, str], Check]
) -> tuple[Check, ...]:
    """What ``check`` says of each engine, best first.

    Args:
        names: engines.
        check: runs one.
        unable: makes the result of one that ``check`` could not run: its name, ``not installed`` or ``error``, and why.

    Raises:
        MissingDependencyError: none is installed; the error is the first one's.
    """
    checks, absent = [], list[MissingDependencyError]()
    for name in names:
        try:
            checks.append(check(name))
        except MissingDependencyError as error:
            absent.append(error)
            checks.append(unable(name, "not installed", str(error)))
        except (EngineError, SparseProgramError) as error:
            checks.append(unable(name, "error", str(error)))
    if len(absent) == len(names):
        raise absent[0]
    return tuple(checks)

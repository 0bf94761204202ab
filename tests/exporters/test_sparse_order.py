"""The order of a sparse program's operations."""

from __future__ import annotations

from typing import Any

from edgekit.exporters.sparse_order import shortcuts_first
from edgekit.sparse.program import Kind, Operation


def conv(source: int, output: int, **fields: Any) -> Operation:
    return Operation(kind=Kind.CONV, input=source, output=output, **fields)


IMAGE = Operation(kind=Kind.INPUT, output=0)


def test_a_shortcut_goes_before_the_branch_that_it_is_added_to() -> None:
    branch, shortcut = [conv(0, 1), conv(1, 2)], conv(0, 3)
    end = conv(2, 4, second=3)
    behind = conv(4, 5)
    assert shortcuts_first([IMAGE, *branch, shortcut, end, behind]) == (IMAGE, shortcut, *branch, end, behind)


def test_every_block_of_a_network() -> None:
    program = [IMAGE]
    for first in (0, 4, 8):
        program += [conv(first, first + 1), conv(first + 1, first + 2), conv(first, first + 3)]
        program.append(conv(first + 2, first + 4, second=first + 3))
    assert [one.output for one in shortcuts_first(program)] == [0, 3, 1, 2, 4, 7, 5, 6, 8, 11, 9, 10, 12]


def test_a_branch_of_several_arms_keeps_its_order() -> None:
    arms = [conv(0, 1), conv(0, 2), conv(2, 1, channel_offset=8)]
    program = [IMAGE, *arms, conv(0, 3), conv(1, 4, second=3)]
    assert shortcuts_first(program) == tuple(program)


def test_an_identity_has_no_operation_to_move() -> None:
    program = [IMAGE, conv(0, 1), conv(1, 2), conv(2, 3, second=0)]
    assert shortcuts_first(program) == tuple(program)


def test_the_convolution_before_is_no_shortcut_if_its_result_is_not_what_is_added() -> None:
    program = [IMAGE, conv(0, 1), conv(0, 2), conv(1, 3, second=0)]
    assert shortcuts_first(program) == tuple(program)


def test_a_shortcut_of_something_else_than_the_branch_reads_stays() -> None:
    program = [IMAGE, conv(0, 1), conv(1, 2), conv(2, 3), conv(0, 4), conv(3, 5, second=4)]
    first = shortcuts_first([IMAGE, *program[1:]])
    assert [one.output for one in first] == [0, 4, 1, 2, 3, 5]  # the line reaches back to what the shortcut reads
    other = [IMAGE, conv(0, 1), conv(1, 2), conv(2, 3), conv(9, 4), conv(3, 5, second=4)]
    assert shortcuts_first(other) == tuple(other)

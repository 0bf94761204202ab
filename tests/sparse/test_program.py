"""Programs as values: equal or not, and in the numbers of the file."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgekit.sparse.program import Operation, Program

WEIGHTS = np.linspace(-1, 1, 81, dtype=np.float32).reshape(3, 3, 3, 3)
"""Those of the plain program's C.ReLU."""


@pytest.mark.parametrize(
    "changes",
    [
        {"weights": WEIGHTS + np.float32(1)},
        {"weights": WEIGHTS.astype(np.float64)},
        {"weights": WEIGHTS.reshape(3, 27)},
        {"multipliers": None},
        {"low": -1.0},
        {"channel_offset": 1},
    ],
)
def test_operations_that_differ_are_not_equal(plain: Program, changes: dict[str, Any]) -> None:
    operation = plain.operations[1]
    assert np.array_equal(operation.weights, WEIGHTS)
    assert replace(operation, weights=WEIGHTS.copy()) == operation
    assert hash(replace(operation, weights=WEIGHTS.copy())) == hash(operation)
    changed = replace(operation, **changes)
    assert changed != operation
    assert replace(plain, operations=(plain.operations[0], changed, *plain.operations[2:])) != plain


def test_an_operation_is_nothing_else(plain: Program) -> None:
    assert plain.operations[0] != "INPUT"


def test_numbers_are_held_as_the_file_holds_them(plain: Program) -> None:
    assert replace(plain.tensors[3], scale=0.1).scale == float(np.float32(0.1))
    operation = replace(plain.operations[1], first_scale=1 / 3, low=-0.0)
    assert operation.first_scale == float(np.float32(1 / 3))
    assert str(operation.low) == "0.0"


def test_a_field_has_a_default_or_must_be_given() -> None:
    with pytest.raises(TypeError, match="kind"):
        Operation(output=0)  # type: ignore[call-arg]

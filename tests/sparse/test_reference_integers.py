"""Integer operations of the reference executor, bit for bit: one site and channel after the other, in plain loops.

Tensors have the scale 1, so an output is q less the zero point.
"""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.sparse.program import DType, Kind, Operation

RANDOM = np.random.default_rng(0)
MASK = np.array([[1, 0], [0, 1], [1, 1]], np.bool_)
MASKS = {"some": MASK, "all": np.ones((3, 2), np.bool_), "none": np.zeros((3, 2), np.bool_)}
BYTE = {"dtype": DType.UINT8, "zero_point": 107}


def normal(*shape: int) -> Any:
    return RANDOM.normal(size=shape).astype(np.float32)


def bytes_of(*shape: int) -> Any:
    return RANDOM.integers(-127, 128, shape).astype(np.int8)


def rounded(value: np.float32, low: int = 0, high: int = 255) -> int:
    """What is stored of a value, less the zero point; ``round`` is to even, like rint."""
    return min(max(round(float(value)) + 107, low), high) - 107


def sums(x: NDArray[Any], w: NDArray[Any], stride: int, pads: Any, size: tuple[int, int]) -> NDArray[np.int64]:
    """[rows, columns, filters] of x [rows, columns, channels] and w [filters, rows, columns, channels]."""
    found = np.zeros((*size, len(w)), np.int64)
    for y, column, k in np.ndindex(found.shape):
        for i, j, c in np.ndindex(w.shape[1:]):
            row, place = y * stride - pads[0] + i, column * stride - pads[1] + j
            if 0 <= row < x.shape[0] and 0 <= place < x.shape[1]:
                found[y, column, k] += int(x[row, place, c]) * int(w[k, i, j, c])
    return found


def integers(rows: int, columns: int, channels: int) -> NDArray[np.float32]:
    """An image of what uint8 numbers at scale 1 stand for."""
    return (RANDOM.integers(0, 256, (rows, columns, channels)) - 107).astype(np.float32)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize(
    ("kernel", "stride", "pads", "size"),
    [((3, 3), 1, (1, 1), (6, 4)), ((3, 2), 2, (0, 1), (3, 2)), ((1, 1), 1, (0, 0), (6, 4))],
)
def test_integer_convolution(single: ModuleType, kernel: Any, stride: int, pads: Any, size: Any, mask: Any) -> None:
    image, weights = integers(6, 4, 4), bytes_of(4, *kernel, 4)
    bias, factors = RANDOM.integers(-9000, 9000, 4).astype(np.int32), np.float32(3e-3) * np.abs(normal(4))
    operation = Operation(
        kind=Kind.CONV, input=0, output=1, weights=weights, bias=bias, multipliers=factors, low=20, high=230,
        **single.window(kernel, stride, (*pads, 0, 0)),
    )  # fmt: skip
    with_residual = replace(operation, second=0, second_scale=0.3)
    for one in (operation, with_residual) if size == (6, 4) else (operation,):
        found = single.result(single.program([(6, 4), size], [4, 4], one, kinds=BYTE), image, mask)
        x = single.masked(image, mask)
        acc = sums(x, weights, stride, pads, size)
        expected = np.zeros(found.shape)
        for place in np.ndindex(found.shape):
            v = np.float32(acc[place] + bias[place[2]]) * factors[place[2]]
            if one.second is not None:
                v = v + np.float32(x[place]) * np.float32(0.3)
            expected[place] = rounded(v, 20, 230)
        assert np.array_equal(found, single.masked(expected, mask))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_integer_depthwise_convolution(single: ModuleType, mask: Any) -> None:
    image, weights = integers(6, 4, 3), bytes_of(3, 3, 3)
    bias, factors = RANDOM.integers(-900, 900, 3).astype(np.int32), np.float32(3e-3) * np.abs(normal(3))
    operation = Operation(
        kind=Kind.DEPTHWISE, input=0, output=1, weights=weights, bias=bias, multipliers=factors, low=0, high=255,
        **single.window((3, 3), 2, (1, 1, 1, 1)),
    )  # fmt: skip
    found = single.result(single.program([(6, 4), (3, 2)], [3, 3], operation, kinds=BYTE), image, mask)
    x, expected = single.masked(image, mask), np.zeros(found.shape)
    for c in range(3):
        acc = sums(x[..., c : c + 1], weights[None, ..., c : c + 1], 2, (1, 1), (3, 2))
        for y, column in np.ndindex(3, 2):
            expected[y, column, c] = rounded(np.float32(acc[y, column, 0] + bias[c]) * factors[c])
    assert np.array_equal(found, single.masked(expected, mask))


def test_integer_deconvolution(single: ModuleType) -> None:
    image, weights = integers(3, 2, 3), bytes_of(4, 4, 3)
    bias, factors = RANDOM.integers(-900, 900, 3).astype(np.int32), np.float32(3e-3) * np.abs(normal(3))
    operation = Operation(
        kind=Kind.DECONV, input=0, output=1, weights=weights, bias=bias, multipliers=factors, low=0, high=255,
        **single.window((4, 4), 2, (1, 1, 1, 1)),
    )  # fmt: skip
    found = single.result(single.program([(3, 2), (6, 4)], [3, 3], operation, kinds=BYTE), image, MASK)
    x, expected = single.masked(image, MASK), np.zeros(found.shape)
    for y, column, c in np.ndindex(found.shape):
        acc = 0
        for i, j in np.ndindex(4, 4):
            row, place = y + 1 - i, column + 1 - j
            if row % 2 == 0 and place % 2 == 0 and 0 <= row < 6 and 0 <= place < 4:
                acc += int(x[row // 2, place // 2, c]) * int(weights[i, j, c])
        expected[y, column, c] = rounded(np.float32(acc + bias[c]) * factors[c])
    assert np.array_equal(found, single.masked(expected, MASK))


def test_integer_crelu(single: ModuleType) -> None:
    image, weights = integers(3, 2, 2), bytes_of(3, 1, 1, 2)
    bias = RANDOM.integers(-9000, 9000, 6).astype(np.int32)
    factors = np.float32(5e-3) * np.repeat([1, -1], 3).astype(np.float32)
    operation = Operation(
        kind=Kind.CONV, input=0, output=1, crelu=True, weights=weights, bias=bias, multipliers=factors, low=107,
        high=255,
    )  # fmt: skip
    found = single.result(single.program([(3, 2), (3, 2)], [2, 6], operation, kinds=BYTE), image, MASK)
    acc = sums(single.masked(image, MASK), weights, 1, (0, 0), (3, 2))
    expected = np.zeros(found.shape)
    for place in np.ndindex(found.shape):
        value = np.float32(acc[(*place[:2], place[2] % 3)] + bias[place[2]]) * factors[place[2]]
        expected[place] = rounded(value, 107)
    assert np.array_equal(found, single.masked(expected, MASK))


def test_integer_pools_and_sums(single: ModuleType) -> None:
    image = integers(6, 4, 3)
    x = single.masked(image, MASK)
    blocks = x.reshape(3, 2, 2, 2, 3).astype(np.int64)
    fields = {"kernel_rows": 2, "kernel_columns": 2, "stride": 2, "low": 0, "high": 255}
    operation = Operation(kind=Kind.MAXPOOL, input=0, output=1, **fields)
    found = single.result(single.program([(6, 4), (3, 2)], [3, 3], operation, kinds=BYTE), image, MASK)
    assert np.array_equal(found, single.masked(blocks.max(axis=(1, 3)), MASK))
    operation = Operation(kind=Kind.AVGPOOL, input=0, output=1, first_scale=0.3, **fields)
    found = single.result(single.program([(6, 4), (3, 2)], [3, 3], operation, kinds=BYTE), image, MASK)
    total = blocks.sum(axis=(1, 3))
    expected = [rounded(np.float32(value) * np.float32(0.3)) for value in total.ravel()]
    assert np.array_equal(found, single.masked(np.reshape(expected, total.shape), MASK))
    operation = Operation(
        kind=Kind.ADD, input=0, second=0, output=1, first_scale=0.7, second_scale=0.45, low=50, high=200
    )
    found = single.result(single.program([(6, 4), (6, 4)], [3, 3], operation, kinds=BYTE), image, MASK)
    values = [np.float32(value) for value in x.ravel()]
    expected = [rounded(v * np.float32(0.7) + v * np.float32(0.45), 50, 200) for v in values]
    assert np.array_equal(found, single.masked(np.reshape(expected, x.shape), MASK))


def test_ties_go_to_even(single: ModuleType) -> None:
    image = np.arange(-6, 6, dtype=np.float32).reshape(3, 2, 2)
    operation = Operation(
        kind=Kind.DEPTHWISE, input=0, output=1, low=0, high=255, weights=np.ones((1, 1, 2), np.int8),
        bias=np.zeros(2, np.int32), multipliers=np.full(2, 0.5, np.float32),
    )  # fmt: skip
    found = single.result(single.program([(3, 2), (3, 2)], [2, 2], operation, kinds=BYTE), image, MASKS["all"])
    assert found.ravel().tolist() == [-3, -2, -2, -2, -1, 0, 0, 0, 1, 2, 2, 2]

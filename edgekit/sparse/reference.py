"""The program in numpy, one operation after the other on dense maps: slow, and easy to see to be right.

Engines are tested against it. uint8 operations are exact, bit for bit; float convolutions sum in float64, so an
engine's float32 sums differ by their own rounding. Maps are [rows, columns, channels]; inactive sites hold a real 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import UsageError
from edgekit.masks.pyramid import Mask, mask_at
from edgekit.sparse.program import DType, Kind, Operation, Program, Tensor

Values = NDArray[Any]
"""[rows, columns, channels], of the tensor's type or in real numbers."""


def run_reference(
    program: Program, image: NDArray[np.uint8] | NDArray[np.float32], mask: Mask | None
) -> dict[str, NDArray[np.float32]]:
    """Run ``program`` once.

    Args:
        program: as ``read_program`` returns it, or checked by ``check_program``.
        image: [rows, columns, channels]; uint8 pixels, or float32 values that are normalised already.
        mask: of the program's size; ``None`` for a program that takes none, else all ones.

    Returns:
        Output name -> [rows, columns].

    Raises:
        UsageError: the image or the mask is of another shape or type.
    """
    run = _Run(program, image, mask)
    for operation in program.operations:
        COMPUTE[operation.kind](run, operation)
    return {output.name: values for output, values in zip(program.outputs, run.outputs, strict=True)}


class _Run:
    """All values of one run."""

    def __init__(self, program: Program, image: NDArray[Any], mask: Mask | None) -> None:
        self.program = program
        self.image = image
        first = program.tensors[program.operations[0].output]
        level = program.levels[first.level]
        expected = (level.rows, level.columns, first.channels)
        if image.shape != expected or image.dtype not in (np.uint8, np.float32):
            raise UsageError(f"expected a uint8 or float32 image {expected}, got {image.dtype.name} {image.shape}")
        self.active = _active(program, mask)
        self.maps = [self._empty(tensor) for tensor in program.tensors]
        self.outputs = [np.zeros((output.rows, output.columns), np.float32) for output in program.outputs]

    def _empty(self, tensor: Tensor) -> Values:
        level = self.program.levels[tensor.level]
        dtype = np.uint8 if tensor.dtype is DType.UINT8 else np.float32
        return np.full((level.rows, level.columns, tensor.channels), tensor.zero_point, dtype)

    def tensor(self, index: int | None) -> Tensor:
        """An input or output; only INPUT has no input."""
        assert index is not None
        return self.program.tensors[index]

    def centred(self, index: int | None) -> Values:
        """A tensor as what is summed up: float64, or whole numbers q - zero_point, in float64 too.

        float64 holds every integer below 2**53, so sums of products below 2**31 are as exact as in int64, and BLAS
        does them.
        """
        assert index is not None
        return self.maps[index].astype(np.float64) - self.tensor(index).zero_point

    def real(self, index: int | None) -> NDArray[np.float32]:
        """A tensor in real numbers."""
        scale = np.float32(self.tensor(index).scale)
        return np.asarray(self.centred(index).astype(np.float32) * scale, np.float32)

    def store(self, operation: Operation, values: Values) -> None:
        """Write ``values`` of the output tensor's type at its active sites."""
        first, last = operation.channel_offset, operation.channel_offset + values.shape[2]
        active = self.active[self.tensor(operation.output).level]
        self.maps[operation.output][active, first:last] = values[active]

    def shape(self, tensor: int) -> tuple[int, int]:
        """Rows and columns."""
        level = self.program.levels[self.program.tensors[tensor].level]
        return level.rows, level.columns


def _active(program: Program, mask: Mask | None) -> list[Mask]:
    shape = (program.mask_rows, program.mask_columns)
    if mask is None:
        mask = np.ones(shape, np.bool_)
    elif shape == (0, 0):
        raise UsageError(f"expected no mask, because the program takes none, got one of {mask.shape}")
    if mask.shape != shape or mask.dtype != np.bool_:
        raise UsageError(f"expected a bool mask {shape}, got {mask.dtype.name} {mask.shape}")
    return [
        mask_at(mask, rows=level.rows, columns=level.columns)
        if level.masked
        else np.ones((level.rows, level.columns), np.bool_)
        for level in program.levels
    ]


def _input(run: _Run, operation: Operation) -> None:
    x = run.image
    if x.dtype == np.uint8:
        x = (x.astype(np.float32) - _constant(operation.weights)) / _constant(operation.bias)
    tensor = run.tensor(operation.output)
    run.store(operation, _quantised(x, tensor) if tensor.dtype is DType.UINT8 else x)


def _convolution(run: _Run, operation: Operation) -> None:
    weights = _constant(operation.weights).astype(np.float64)  # [K, kh, kw, C], or [kh, kw, C] if depthwise
    sums: Values = np.zeros((*run.shape(operation.output), 1))
    for row, column, window in _windows(run, operation, run.centred(operation.input), 0.0):
        dense = operation.kind is Kind.CONV
        sums = sums + (window @ weights[:, row, column].T if dense else window * weights[row, column])
    _finish(run, operation, sums)


def _deconvolution(run: _Run, operation: Operation) -> None:
    weights, values = _constant(operation.weights).astype(np.float64), run.centred(operation.input)
    rows, columns = run.shape(operation.output)
    sums = np.zeros((rows + 2, columns + 2, values.shape[2]))  # with the border of 1 that the pad cuts off
    for row in range(4):
        for column in range(4):
            sums[row : row + rows - 1 : 2, column : column + columns - 1 : 2] += values * weights[row, column]
    _finish(run, operation, sums[1:-1, 1:-1])


def _finish(run: _Run, operation: Operation, sums: Values) -> None:
    """From sums to the values that are stored."""
    if operation.crelu:
        sums = np.concatenate([sums, sums], axis=2)
    bias = _constant(operation.bias)
    if run.tensor(operation.input).dtype is DType.UINT8:
        v = (sums.astype(np.int64) + bias).astype(np.float32)
    else:
        v = sums.astype(np.float32) + bias
    if operation.multipliers is not None:
        v = v * operation.multipliers
    target = run.tensor(operation.output)
    if operation.second is not None:
        residual = run.centred(operation.second).astype(np.float32)
        v = v + (residual * np.float32(operation.second_scale) if target.dtype is DType.UINT8 else residual)
    run.store(operation, _rounded(v, target, operation.low, operation.high))


def _max_pool(run: _Run, operation: Operation) -> None:
    assert operation.input is not None
    values = run.maps[operation.input]
    lowest = 0 if values.dtype == np.uint8 else -np.inf
    largest = np.full((*run.shape(operation.output), values.shape[2]), lowest, values.dtype)
    for _, _, window in _windows(run, operation, values, lowest):
        largest = np.maximum(largest, window)
    run.store(operation, largest)


def _average_pool(run: _Run, operation: Operation) -> None:
    values = run.centred(operation.input)
    sums = np.zeros((*run.shape(operation.output), values.shape[2]))
    for _, _, window in _windows(run, operation, values, 0.0):
        sums += window
    v = sums.astype(np.float32) * np.float32(operation.first_scale)
    target = run.tensor(operation.output)
    run.store(operation, _rounded(v, target, 0, 255) if target.dtype is DType.UINT8 else v)


def _upsample(run: _Run, operation: Operation) -> None:
    assert operation.input is not None
    repeated = np.repeat(run.maps[operation.input], operation.stride, axis=0)
    run.store(operation, np.repeat(repeated, operation.stride, axis=1))


def _add(run: _Run, operation: Operation) -> None:
    first, second = (run.centred(index).astype(np.float32) for index in (operation.input, operation.second))
    target = run.tensor(operation.output)
    if target.dtype is DType.UINT8:
        first, second = first * np.float32(operation.first_scale), second * np.float32(operation.second_scale)
    run.store(operation, _rounded(first + second, target, operation.low, operation.high))


def _quantise(run: _Run, operation: Operation) -> None:
    run.store(operation, _quantised(run.real(operation.input), run.tensor(operation.output)))


def _dequantise(run: _Run, operation: Operation) -> None:
    run.store(operation, run.real(operation.input))


def _output(run: _Run, operation: Operation) -> None:
    values = run.real(operation.input)
    active = run.active[run.tensor(operation.input).level]
    output = run.outputs[operation.output]
    first, sites = operation.row_offset, active.size
    rows = output[first : first + sites * operation.anchors].reshape(sites, -1)  # [sites, channels]
    rows[active.ravel()] = values[active]


COMPUTE: dict[Kind, Callable[[_Run, Operation], None]] = {
    Kind.INPUT: _input,
    Kind.CONV: _convolution,
    Kind.DEPTHWISE: _convolution,
    Kind.MAXPOOL: _max_pool,
    Kind.AVGPOOL: _average_pool,
    Kind.UPSAMPLE: _upsample,
    Kind.ADD: _add,
    Kind.QUANTISE: _quantise,
    Kind.DEQUANTISE: _dequantise,
    Kind.OUTPUT: _output,
    Kind.DECONV: _deconvolution,
}


def _windows(run: _Run, operation: Operation, values: Values, outside: float) -> Iterator[tuple[int, int, Values]]:
    """For each tap (row, column) of the kernel, what it sees at every output site, [rows, columns, channels]."""
    stride, pads = operation.stride, []
    kernels = (operation.kernel_rows, operation.kernel_columns)
    befores = (operation.pad_top, operation.pad_left)
    shape = run.shape(operation.output)
    for size, out, kernel, before in zip(values.shape, shape, kernels, befores, strict=False):
        pads.append((before, max(0, (out - 1) * stride + kernel - before - size)))
    padded = np.pad(values, [*pads, (0, 0)], constant_values=outside)
    for row in range(kernels[0]):
        for column in range(kernels[1]):
            taken = padded[row : row + (shape[0] - 1) * stride + 1, column : column + (shape[1] - 1) * stride + 1]
            yield row, column, taken[::stride, ::stride]


def _rounded(v: Values, target: Tensor, low: float, high: float) -> Values:
    """float32 values as the output tensor stores them, clamped to ``low``..``high``."""
    if target.dtype is DType.FLOAT32:
        return np.clip(v, np.float32(low), np.float32(high))
    return np.clip(np.rint(v) + np.float32(target.zero_point), low, high).astype(np.uint8)


def _quantised(x: NDArray[np.float32], target: Tensor) -> Values:
    """Real numbers as a uint8 tensor stores them."""
    return _rounded(x * (np.float32(1) / np.float32(target.scale)), target, 0, 255)


def _constant(values: NDArray[Any] | None) -> NDArray[Any]:
    assert values is not None  # the checks
    return values

"""What one operation obeys, given those before it."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from math import isnan, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.sparse.constants import WEIGHTED, ConstantShape, constant_shapes
from edgekit.sparse.limits import (
    MAX_ANCHORS,
    MAX_CHANNELS,
    MAX_FACTOR,
    MAX_KERNEL,
    MAX_OUTPUT_ROWS,
    MAX_SCALE,
    MAX_STRIDE,
    check_index,
    expect,
)
from edgekit.sparse.program import DType, Kind, Level, Operation, Program, Tensor, channels_written

_WINDOW = frozenset({"kernel_rows", "kernel_columns", "stride"})
_PADS = frozenset({"pad_top", "pad_left"})
_PLACE = frozenset({"input", "channel_offset"})
_WEIGHTS = frozenset({"weights", "bias", "multipliers"})

USES: dict[Kind, frozenset[str]] = {
    Kind.INPUT: frozenset({"weights", "bias"}),
    Kind.CONV: _PLACE | _WINDOW | _PADS | _WEIGHTS | {"second", "second_scale", "crelu"},
    Kind.DEPTHWISE: _PLACE | _WINDOW | _PADS | _WEIGHTS,
    Kind.MAXPOOL: _PLACE | _WINDOW | _PADS,
    Kind.AVGPOOL: _PLACE | _WINDOW | {"first_scale"},
    Kind.UPSAMPLE: _PLACE | {"stride"},
    Kind.ADD: _PLACE | {"second", "first_scale", "second_scale"},
    Kind.QUANTISE: _PLACE,
    Kind.DEQUANTISE: _PLACE,
    Kind.OUTPUT: frozenset({"input", "row_offset", "anchors"}),
    Kind.DECONV: _PLACE | _WINDOW | _PADS | _WEIGHTS,
}
"""Fields that have a meaning, besides ``kind``, ``output``, ``low`` and ``high``; all others keep their default."""

_DEFAULTS = {item.name: item.default for item in fields(Operation) if item.default is not MISSING}


@dataclass(kw_only=True)
class Progress:
    """What has been written so far."""

    channels: list[NDArray[np.bool_]]
    """Of each tensor, [channels]."""

    rows: list[NDArray[np.bool_]]
    """Of each output, [rows]."""


def check_operation(program: Program, index: int, operation: Operation, progress: Progress) -> None:
    """Refuse an operation that an engine could not run safely, and add what it writes to ``progress``.

    Args:
        program: whose levels, tensors and outputs have been checked.
        index: the operation's number.
        operation: what is checked.
        progress: what the operations before it have written.

    Raises:
        SparseProgramError: saying what was expected and what came, and naming the operation.
    """
    step = _Step(program, index, operation, progress)
    step.check_fields()
    step.check_bounds()
    if operation.kind is Kind.OUTPUT:
        step.check_output()
        return
    if operation.kind is not Kind.INPUT:
        step.check_types()
        step.check_geometry()
    step.check_constants()
    if operation.second is not None:
        step.check_second(operation.second)
    step.check_channels()


@dataclass(frozen=True)
class _Step:
    """One operation, and what came before it."""

    program: Program
    index: int
    operation: Operation
    progress: Progress

    @property
    def where(self) -> str:
        return f"operation {self.index} ({self.operation.kind.name})"

    @property
    def source(self) -> Tensor:
        assert self.operation.input is not None  # check_fields
        return self.program.tensors[self.operation.input]

    @property
    def target(self) -> Tensor:
        return self.program.tensors[self.operation.output]

    def expect(self, condition: bool, expected: str, got: object) -> None:
        expect(condition, expected, got, self.where)

    def within(self, name: str, low: int, high: int) -> None:
        value = getattr(self.operation, name)
        self.expect(low <= value <= high, f"{name} in {low}..{high}", value)

    def check_fields(self) -> None:
        operation, kind = self.operation, self.operation.kind
        self.expect((kind is Kind.INPUT) == (self.index == 0), "INPUT as operation 0 and nowhere else", kind.name)
        for name, default in _DEFAULTS.items():
            value = getattr(operation, name)
            if name not in USES[kind] | {"low", "high"}:
                same = value is None if default is None else value == default
                self.expect(same, f"no {name}", "an array" if isinstance(value, np.ndarray) else value)
        if kind is not Kind.INPUT:
            check_index(operation.input, self.program.tensors, "tensor", f"{self.where}: input")
            self.check_ready("input", operation.input)
        if kind is Kind.ADD or operation.second is not None:
            check_index(operation.second, self.program.tensors, "tensor", f"{self.where}: second")
            self.check_ready("second", operation.second)
        if kind is Kind.OUTPUT:
            check_index(operation.output, self.program.outputs, "output", f"{self.where}: output")
        else:
            check_index(operation.output, self.program.tensors, "tensor", f"{self.where}: output")
        for name in ("kernel_rows", "kernel_columns"):
            self.within(name, 1, MAX_KERNEL)
        self.within("stride", 1, MAX_FACTOR if kind is Kind.UPSAMPLE else MAX_STRIDE)
        self.within("pad_top", 0, operation.kernel_rows - 1)
        self.within("pad_left", 0, operation.kernel_columns - 1)
        for name in ("first_scale", "second_scale"):
            value = getattr(operation, name)
            self.expect(0 < value <= MAX_SCALE, f"{name} above 0 and at most 2**64", value)

    def check_ready(self, name: str, tensor: int | None) -> None:
        assert tensor is not None  # check_index
        written = self.progress.channels[tensor]
        self.expect(
            bool(written.all()),
            f"all of its {name}, tensor {tensor}, written before it",
            f"{int(written.sum())} of {len(written)} channels",
        )

    def check_bounds(self) -> None:
        low, high = self.operation.low, self.operation.high
        got = f"{low}..{high}"
        self.expect(not isnan(low) and not isnan(high) and low <= high, "a clamp from low to high", got)
        if self.operation.kind is not Kind.OUTPUT and self.target.dtype is DType.UINT8:
            whole = low >= 0 and high <= 255 and low == int(low) and high == int(high)
            self.expect(whole, "a clamp of integers in 0..255 for a uint8 output", got)

    def check_types(self) -> None:
        kind, source, target = self.operation.kind, self.source, self.target
        types = f"{source.dtype.name} to {target.dtype.name}"
        if kind is Kind.QUANTISE:
            self.expect((source.dtype, target.dtype) == (DType.FLOAT32, DType.UINT8), "FLOAT32 to UINT8", types)
        elif kind is Kind.DEQUANTISE:
            self.expect((source.dtype, target.dtype) == (DType.UINT8, DType.FLOAT32), "UINT8 to FLOAT32", types)
        elif kind in WEIGHTED:
            allowed = source.dtype is DType.UINT8 or target.dtype is DType.FLOAT32
            self.expect(allowed, "a FLOAT32 output of a FLOAT32 input", types)
        else:
            self.expect(source.dtype is target.dtype, "input and output of one type", types)
        if kind in (Kind.MAXPOOL, Kind.UPSAMPLE):
            before, after = (source.scale, source.zero_point), (target.scale, target.zero_point)
            self.expect(before == after, f"scale and zero point {before} of its input in its output", after)

    def check_geometry(self) -> None:
        operation = self.operation
        before, after = (self.program.levels[tensor.level] for tensor in (self.source, self.target))
        self.expect(before.masked == after.masked, "input and output both masked or neither", _describe(before, after))
        if operation.kind in (Kind.CONV, Kind.DEPTHWISE, Kind.MAXPOOL, Kind.AVGPOOL):
            rows = _fits(before.rows, after.rows, operation.kernel_rows, operation.stride, operation.pad_top)
            columns = _fits(
                before.columns, after.columns, operation.kernel_columns, operation.stride, operation.pad_left
            )
            self.expect(rows and columns, "an output level that the window gives", _describe(before, after))
            return
        factor = 1
        if operation.kind is Kind.UPSAMPLE:
            factor = operation.stride
        if operation.kind is Kind.DECONV:
            window = (operation.kernel_rows, operation.kernel_columns, operation.stride)
            self.expect(window == (4, 4, 2), "a kernel of 4x4 and stride 2", window)
            self.expect((operation.pad_top, operation.pad_left) == (1, 1), "pads of 1", operation.pad_top)
            factor = 2
        grown = (before.rows * factor, before.columns * factor)
        self.expect(
            grown == (after.rows, after.columns), f"an output of {grown[0]}x{grown[1]}", _describe(before, after)
        )

    def check_constants(self) -> None:
        operation = self.operation
        filters = 0
        if operation.kind is Kind.CONV and operation.weights is not None:
            self.expect(operation.weights.ndim == 4, "weights of 4 dimensions", operation.weights.ndim)
            filters = len(operation.weights)
            self.expect(1 <= filters <= MAX_CHANNELS, f"1..{MAX_CHANNELS} filters", filters)
        source = None if operation.kind is Kind.INPUT else self.source
        for name, expected in constant_shapes(operation, source, self.target, filters).items():
            self.check_constant(name, getattr(operation, name), expected)
        if operation.kind is Kind.INPUT and operation.bias is not None:
            self.expect(bool((operation.bias > 0).all()), "a std above 0", operation.bias.min())
        if operation.kind in WEIGHTED and self.source.dtype is DType.UINT8:
            self.check_sums()

    def check_constant(self, name: str, value: NDArray[Any] | None, expected: ConstantShape) -> None:
        if value is None:
            self.expect(not expected.required, f"{name} of shape {expected.shape}", "none")
            return
        wanted = f"{name} of {np.dtype(expected.dtype).name} {list(expected.shape)}"
        same = value.shape == expected.shape and value.dtype == expected.dtype
        self.expect(same, wanted, f"{value.dtype.name} {list(value.shape)}")
        if value.dtype == np.float32:
            self.expect(bool(np.isfinite(value).all()), f"finite {name}", "infinity or NaN")

    def check_sums(self) -> None:
        """int32 suffices. An engine may sum q * w and zero_point * w apart, and each reaches 255 * 128 a product."""
        assert self.operation.weights is not None  # check_constants, like the bias
        assert self.operation.bias is not None
        weights = self.operation.weights
        products = prod(weights.shape[1:] if self.operation.kind is Kind.CONV else weights.shape[:2])
        largest = 2 * products * 255 * 128 + int(np.abs(self.operation.bias.astype(np.int64)).max())
        self.expect(largest < 2**31, "sums below 2**31", largest)
        assert self.operation.multipliers is not None  # check_constants
        multiplier = float(np.abs(self.operation.multipliers).max())
        self.expect(multiplier <= MAX_SCALE, "multipliers of integers of at most 2**64", multiplier)

    def check_second(self, second: int) -> None:
        target, other = self.target, self.program.tensors[second]
        levels = self.program.levels
        self.expect(other.dtype is target.dtype, f"a second operand of {target.dtype.name}", other.dtype.name)
        self.expect(
            levels[other.level] == levels[target.level],
            "a second operand on the output's level",
            _describe(levels[other.level], levels[target.level]),
        )
        written = channels_written(self.program, self.operation)
        self.expect(other.channels == written, f"a second operand of {written} channels", other.channels)

    def check_channels(self) -> None:
        first, count = self.operation.channel_offset, channels_written(self.program, self.operation)
        channels = self.progress.channels[self.operation.output]
        got = f"{first}..{first + count - 1}"
        fits = first >= 0 and first + count <= len(channels)
        self.expect(fits, f"channels of its output, 0..{len(channels) - 1}", got)
        written = channels[first : first + count]
        self.expect(not written.any(), "channels that nothing else writes", got)
        written[:] = True

    def check_output(self) -> None:
        operation, output = self.operation, self.program.outputs[self.operation.output]
        self.within("anchors", 1, MAX_ANCHORS)
        self.within("row_offset", 0, MAX_OUTPUT_ROWS)
        wanted = operation.anchors * output.columns
        self.expect(self.source.channels == wanted, f"{wanted} channels (anchors * columns)", self.source.channels)
        level = self.program.levels[self.source.level]
        end = operation.row_offset + level.rows * level.columns * operation.anchors
        got = f"{operation.row_offset}..{end - 1}"
        self.expect(end <= output.rows, f"rows of output {output.name!r}, 0..{output.rows - 1}", got)
        rows = self.progress.rows[operation.output][operation.row_offset : end]
        self.expect(not rows.any(), f"rows of output {output.name!r} that nothing else writes", got)
        rows[:] = True


def _fits(before: int, after: int, kernel: int, stride: int, pad: int) -> bool:
    """Whether a window over ``before`` sites, with some padding behind them that is less than it, gives ``after``."""
    if (after - 1) * stride - pad >= before:
        return False
    return any((before + pad + end - kernel) // stride + 1 == after for end in range(kernel))


def _describe(before: Level, after: Level) -> str:
    words = [f"{level.rows}x{level.columns}{' masked' if level.masked else ''}" for level in (before, after)]
    return " and ".join(words)

"""Random sparse programs that use everything a program may, small enough for the reference, and inputs for them.

Weights are scaled so that values stay around 1, and every uint8 tensor uses its range: what an operation gives is
measured with the reference before the scale of its output is chosen, and a little of it is clipped. Sizes are chosen
around those at which kernels change their ways: 1, a vector, a vector and one more.
"""

from __future__ import annotations

from dataclasses import replace
from math import gcd, inf
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgekit.masks.pyramid import Mask
from edgekit.sparse.levels import path_to_level
from edgekit.sparse.program import DType, Kind, Level, Operation, Output, Program, Tensor
from edgekit.sparse.reference import run_reference

CHANNELS = (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 96, 127, 128, 129, 130)
KERNELS = (1, 1, 1, 3, 3, 3, 5, 7)
STRIDES = (1, 1, 1, 2, 2, 3, 4)
MOST_SUMMED = 24_000
"""Products of integers in one sum, which has to fit into 32 bits with its bias."""

MOST_PRODUCTS = 1_500_000
"""Multiplications of one convolution on all sites."""

MOST_SITES = 40
"""A side."""

WINDOWED = (Kind.CONV, Kind.DEPTHWISE, Kind.MAXPOOL, Kind.AVGPOOL)


def random_program(
    rng: np.random.Generator, *, dtype: Literal["float32", "uint8"], masked: bool | None = None, steps: int = 8
) -> Program:
    """A valid program of about ``steps`` operations between INPUT and OUTPUT.

    Args:
        rng: the source of all chance.
        dtype: ``uint8`` has float32 parts too.
        masked: whether it takes a mask; ``None`` for either.
        steps: how many operations are tried.
    """
    builder = _Builder(rng, quantised=dtype == "uint8", masked=bool(rng.integers(4)) if masked is None else masked)
    for _ in range(steps):
        builder.step()
    return builder.finish()


def random_inputs(program: Program, rng: np.random.Generator) -> tuple[NDArray[Any], Mask | None]:
    """An image, uint8 or float32, and the mask if there is one: all, none, one cell, or a share of the cells."""
    tensor = program.tensors[program.operations[0].output]
    level = program.levels[tensor.level]
    shape = (level.rows, level.columns, tensor.channels)
    image: NDArray[Any] = rng.integers(0, 256, shape, np.uint8)
    if rng.integers(4) == 0:
        image = rng.normal(size=shape).astype(np.float32)
    if not program.mask_rows:
        return image, None
    cells = (program.mask_rows, program.mask_columns)
    mask = rng.random(cells) < rng.choice([0.0, 0.1, 0.3, 0.6, 0.9, 2.0])
    if rng.integers(4) == 0:
        mask[...] = False
        mask[rng.integers(cells[0]), rng.integers(cells[1])] = True
    return image, mask


class _Window(NamedTuple):
    level: int
    fields: dict[str, int]


class _Affine(NamedTuple):
    """Scale and zero point of a uint8 tensor; none for float32."""

    scale: float
    zero_point: int


class _Pending(NamedTuple):
    """An operation that does not know its output tensor yet."""

    operation: Operation
    level: int
    written: int
    affine: _Affine | None


class _Builder:
    def __init__(self, rng: np.random.Generator, *, quantised: bool, masked: bool) -> None:
        self.rng = rng
        self.quantised = quantised
        self.mask = (int(rng.integers(1, 6)), int(rng.integers(1, 6))) if masked else (0, 0)
        factor = int(rng.choice([1, 2, 4, 4, 6]))
        rows, columns = (side * factor if masked else int(rng.integers(1, 20)) for side in self.mask)
        self.levels = [Level(rows=rows, columns=columns, masked=masked)]
        self.tensors: list[Tensor] = []
        self.operations: list[Operation] = []
        channels = int(rng.choice([1, 3, 3, 3, 4]))
        self.image = rng.integers(0, 256, (rows, columns, channels), np.uint8)
        mean, std = (rng.uniform(*limits, channels).astype(np.float32) for limits in ((100, 150), (40, 80)))
        operation = Operation(kind=Kind.INPUT, output=0, weights=mean, bias=std)
        affine = _Affine(scale=0.03, zero_point=int(rng.integers(100, 150))) if quantised and rng.integers(4) else None
        self.commit(_Pending(operation=operation, level=0, written=channels, affine=affine))

    def pick(self, values: Any) -> Any:
        return values[self.rng.integers(len(values))]

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def step(self) -> None:
        """Add one operation, or two that share an output, if what chance asks for exists."""
        source = self.pick(range(max(0, len(self.tensors) - 4), len(self.tensors)))
        kinds = [Kind.CONV] * 5 + [Kind.DEPTHWISE] * 2 + [Kind.MAXPOOL, Kind.AVGPOOL, Kind.UPSAMPLE, Kind.DECONV]
        kinds += [Kind.ADD] * 2
        if self.quantised:
            kinds += [Kind.DEQUANTISE] if self.is_integer(source) else [Kind.QUANTISE] * 6
        pending = self.attempt(self.pick(kinds), source)
        if pending is None:
            return
        parts = [pending]
        while self.chance(0.25):
            other = self.beside(pending)
            if other is not None:
                parts.append(other)
        self.rng.shuffle(parts)
        self.commit(*parts)

    def beside(self, pending: _Pending) -> _Pending | None:
        """A convolution on the same level as ``pending``, into a tensor of the same kind."""
        integer = pending.affine is not None
        levels = [tensor.level for tensor in self.tensors]
        sources = [i for i, level in enumerate(levels) if level == pending.level and self.is_integer(i) >= integer]
        if not sources:
            return None
        window = _Window(level=pending.level, fields={})
        return self.convolution(self.pick(sources), window, integer=integer, affine=pending.affine)

    def attempt(self, kind: Kind, source: int) -> _Pending | None:
        if kind in (Kind.CONV, Kind.DEPTHWISE, Kind.DECONV):
            window = self.doubled(source) if kind is Kind.DECONV else self.window(source)
            integer = self.is_integer(source) and self.chance(0.85)
            if window is None:
                return None
            return self.convolution(source, window, integer=integer, depthwise=kind if kind is not Kind.CONV else None)
        if kind in (Kind.MAXPOOL, Kind.AVGPOOL):
            return self.pool(source, kind)
        if kind is Kind.UPSAMPLE:
            return self.upsample(source)
        if kind is Kind.ADD:
            return self.addition(source)
        affine = _Affine(scale=0.02, zero_point=120) if kind is Kind.QUANTISE else None
        operation = Operation(kind=kind, input=source, output=0)
        return self.pending(operation, self.tensors[source].level, self.tensors[source].channels, affine)

    def window(self, source: int, *, pads: bool = True) -> _Window | None:
        """A kernel with a stride and pads that leads to a level which may be."""
        before = self.shape(source)
        for _ in range(20):
            kernels, stride = (self.pick(KERNELS), self.pick(KERNELS)), self.pick(STRIDES)
            if self.chance(0.7):
                kernels = (kernels[0], kernels[0])
            fits = [
                _fits(size, kernel, stride, pads=pads)
                for size, kernel in zip((before.rows, before.columns), kernels, strict=True)
            ]
            pairs = [(a, b) for a in fits[0] for b in fits[1] if self.may_be(a[0], b[0], before.masked)]
            if pairs:
                (rows, top), (columns, left) = self.pick(pairs)
                fields = {"kernel_rows": kernels[0], "kernel_columns": kernels[1], "stride": stride}
                fields |= {"pad_top": top, "pad_left": left} if pads else {}
                return _Window(level=self.level(rows, columns, before.masked), fields=fields)
        return None

    def may_be(self, rows: int, columns: int, masked: bool) -> bool:
        mask_rows, mask_columns = self.mask if masked else (1, 1)
        path = path_to_level(mask_rows=mask_rows, mask_columns=mask_columns, rows=rows, columns=columns)
        return max(rows, columns) <= MOST_SITES and path is not None

    def level(self, rows: int, columns: int, masked: bool) -> int:
        level = Level(rows=rows, columns=columns, masked=masked)
        if level not in self.levels:
            self.levels.append(level)
        return self.levels.index(level)

    def grown(self, source: int, factor: int) -> int | None:
        before = self.shape(source)
        size = (before.rows * factor, before.columns * factor, before.masked)
        return self.level(*size) if self.may_be(*size) else None

    def doubled(self, source: int) -> _Window | None:
        level = self.grown(source, 2)
        fields = {"kernel_rows": 4, "kernel_columns": 4, "stride": 2, "pad_top": 1, "pad_left": 1}
        return None if level is None else _Window(level=level, fields=fields)

    def convolution(
        self,
        source: int,
        window: _Window,
        *,
        integer: bool,
        depthwise: Kind | None = None,
        affine: _Affine | None = None,
    ) -> _Pending | None:
        """CONV, or the kind ``depthwise``; ``integer`` asks for a uint8 output of a uint8 input."""
        level = self.levels[window.level]
        inputs = self.tensors[source].channels
        rows, columns = window.fields.get("kernel_rows", 1), window.fields.get("kernel_columns", 1)
        if rows * columns * inputs > MOST_SUMMED:
            return None
        most = max(1, MOST_PRODUCTS // (level.rows * level.columns * rows * columns * inputs))
        residual = None if depthwise else self.residual(window.level, most, integer)
        if depthwise:
            crelu, count = False, inputs
        elif residual is not None:
            written = self.tensors[residual].channels
            crelu = written % 2 == 0 and self.chance(0.2)
            count = written // 2 if crelu else written
        else:
            crelu, count = self.chance(0.2), min(int(self.pick(CHANNELS)), most)
        written = 2 * count if crelu else count
        fan_in = rows * columns if depthwise else rows * columns * inputs
        shape = (rows, columns, inputs) if depthwise else (count, rows, columns, inputs)
        weights = self.rng.normal(0, 1.3 / np.sqrt(fan_in), shape)
        factors = self.rng.uniform(0.5, 1.5, written) * np.repeat([1, -1 if crelu else 1], [count, written - count])
        constants = self.constants(source, weights, depthwise is not None, self.rng.normal(0, 0.4, written), factors)
        if self.tensors[source].dtype is DType.FLOAT32 and not crelu and self.chance(0.8):
            del constants["multipliers"]
        fields = constants | window.fields | self.clamp() | {"crelu": crelu, "second": residual}
        operation = Operation(kind=depthwise or Kind.CONV, input=source, output=0, **fields)
        chosen = affine or (self.measured(operation, window.level, written) if integer else None)
        return self.pending(operation, window.level, written, chosen)

    def constants(
        self, source: int, weights: NDArray[Any], depthwise: bool, bias: NDArray[Any], factors: NDArray[Any]
    ) -> dict[str, Any]:
        """Weights and biases; multipliers lead to real numbers."""
        if self.tensors[source].dtype is DType.FLOAT32:
            values = {"weights": weights, "bias": bias, "multipliers": factors}
            return {name: value.astype(np.float32) for name, value in values.items()}
        axes = (0, 1) if depthwise else (1, 2, 3)
        scales = np.abs(weights).max(axis=axes, keepdims=True) / 127
        units = np.tile(scales.ravel() * self.tensors[source].scale, len(factors) // scales.size)
        return {
            "weights": np.rint(weights / scales).astype(np.int8),
            # A tensor that hardly varies has a tiny unit, and sums must fit into 32 bits.
            "bias": np.clip(np.rint(bias / units), -(2**29), 2**29).astype(np.int32),
            "multipliers": (units * factors).astype(np.float32),
        }

    def clamp(self) -> dict[str, float]:
        """Bounds in real numbers."""
        bounds = self.pick([(-inf, inf), (-inf, inf), (0.0, inf), (0.0, 6.0), (0.0, 1.0), (-0.7, 0.8)])
        return dict(zip(("low", "high"), bounds, strict=True))

    def residual(self, level: int, most: int, integer: bool) -> int | None:
        """A tensor of at most ``most`` channels to add, half of the times that there is one."""
        small = [
            index for index, tensor in enumerate(self.tensors) if tensor.level == level and tensor.channels <= most
        ]
        fitting = [index for index in small if self.is_integer(index) == integer]
        return self.pick(fitting) if fitting and self.chance(0.5) else None

    def pool(self, source: int, kind: Kind) -> _Pending | None:
        window = self.window(source, pads=kind is Kind.MAXPOOL)
        if window is None:
            return None
        affine = self.affine(source)
        operation = Operation(kind=kind, input=source, output=0, **window.fields)
        if kind is Kind.AVGPOOL:
            share = 1 / (operation.kernel_rows * operation.kernel_columns)
            if affine is not None:
                affine = affine._replace(scale=affine.scale * float(self.rng.uniform(0.4, 1.1)))
                share *= self.tensors[source].scale / affine.scale
            operation = replace(operation, first_scale=share)
        return self.pending(operation, window.level, self.tensors[source].channels, affine)

    def upsample(self, source: int) -> _Pending | None:
        factor = int(self.pick([1, 2, 2, 3]))
        level = self.grown(source, factor)
        if level is None:
            return None
        operation = Operation(kind=Kind.UPSAMPLE, input=source, output=0, stride=factor)
        return self.pending(operation, level, self.tensors[source].channels, self.affine(source))

    def addition(self, source: int) -> _Pending:
        """A tensor plus another of its shape, or itself."""
        tensor = self.tensors[source]
        shape = (tensor.level, tensor.channels, tensor.dtype)
        others = [i for i, other in enumerate(self.tensors) if (other.level, other.channels, other.dtype) == shape]
        other = self.pick(others)
        operation = Operation(kind=Kind.ADD, input=source, second=other, output=0, **self.clamp())
        affine = self.affine(source)
        if affine is not None:
            scale = affine.scale + 0.6 * self.tensors[other].scale
            affine = _Affine(scale=scale, zero_point=int(self.rng.integers(60, 180)))
            scales = {"first_scale": tensor.scale / scale, "second_scale": self.tensors[other].scale / scale}
            operation = replace(operation, **scales)
        return self.pending(operation, tensor.level, tensor.channels, affine)

    def measured(self, operation: Operation, level: int, written: int) -> _Affine:
        """What covers nearly everything that a convolution gives on a sample image, all sites active."""
        target = len(self.tensors)
        probe = replace(operation, output=target, second=None, low=-inf, high=inf)
        sites = self.levels[level].rows * self.levels[level].columns
        program = Program(
            mask_rows=self.mask[0],
            mask_columns=self.mask[1],
            levels=tuple(self.levels),
            tensors=(*self.tensors, Tensor(level=level, channels=written)),
            operations=(*self.operations, probe, Operation(kind=Kind.OUTPUT, input=target, output=0, anchors=1)),
            outputs=(Output(name="probe", rows=sites, columns=written),),
        )
        values = run_reference(program, self.image, None)["probe"]
        low, high = (float(bound) for bound in np.percentile(values, [1, 99]))
        if operation.second is not None:
            other = self.tensors[operation.second]
            low -= 0.5 * other.scale * other.zero_point
            high += 0.5 * other.scale * (255 - other.zero_point)
        low, high = max(min(low, 0.0), operation.low), min(max(high, 0.1), operation.high)
        scale = (high - low) / 255
        return _Affine(scale=scale, zero_point=int(np.clip(round(-low / scale), 0, 255)))

    def pending(self, operation: Operation, level: int, written: int, affine: _Affine | None) -> _Pending:
        """With bounds and multipliers brought to the units of the output."""
        low, high = operation.low, operation.high
        if affine is None:
            return _Pending(operation=operation, level=level, written=written, affine=None)
        low, high = (float(np.clip(np.rint(x / affine.scale) + affine.zero_point, 0, 255)) for x in (low, high))
        operation = replace(operation, low=low, high=high)
        if operation.multipliers is not None:
            multipliers = (operation.multipliers / np.float32(affine.scale)).astype(np.float32)
            operation = replace(operation, multipliers=multipliers)
            if operation.second is not None:
                operation = replace(operation, second_scale=self.tensors[operation.second].scale / affine.scale)
        return _Pending(operation=operation, level=level, written=written, affine=affine)

    def commit(self, *parts: _Pending) -> None:
        """Add operations that write one tensor, each its channels."""
        first, channel = parts[0], 0
        tensor = Tensor(level=first.level, channels=sum(part.written for part in parts))
        if first.affine is not None:
            tensor = replace(tensor, dtype=DType.UINT8, scale=first.affine.scale, zero_point=first.affine.zero_point)
        self.tensors.append(tensor)
        for part in parts:
            operation = replace(part.operation, output=len(self.tensors) - 1, channel_offset=channel)
            if first.affine is not None and operation.kind is Kind.INPUT:
                operation = replace(operation, low=0, high=255)
            self.operations.append(operation)
            channel += part.written

    def affine(self, source: int) -> _Affine | None:
        tensor = self.tensors[source]
        return _Affine(scale=tensor.scale, zero_point=tensor.zero_point) if self.is_integer(source) else None

    def is_integer(self, source: int) -> bool:
        return self.tensors[source].dtype is DType.UINT8

    def shape(self, source: int) -> Level:
        return self.levels[self.tensors[source].level]

    def finish(self) -> Program:
        """The last tensors become outputs: alone, or two in one, with rows between them that nothing writes."""
        outputs: list[Output] = []
        operations = list(self.operations)
        left = list(range(max(0, len(self.tensors) - 4), len(self.tensors)))
        while left:
            sources = [left.pop() for _ in range(min(len(left), int(self.rng.integers(1, 3))))]
            columns = gcd(*(self.tensors[source].channels for source in sources))
            if max(self.tensors[source].channels for source in sources) // columns > 64:
                sources, columns = sources[:1], self.tensors[sources[0]].channels
            row = 0
            for source in sources:
                row += int(self.rng.integers(2))
                fields = {
                    "output": len(outputs),
                    "row_offset": row,
                    "anchors": self.tensors[source].channels // columns,
                }
                operations.append(Operation(kind=Kind.OUTPUT, input=source, **fields))
                row += self.shape(source).rows * self.shape(source).columns * fields["anchors"]
            outputs.append(Output(name=f"output_{len(outputs)}", rows=row, columns=columns))
        return Program(
            mask_rows=self.mask[0],
            mask_columns=self.mask[1],
            levels=tuple(self.levels),
            tensors=tuple(self.tensors),
            operations=tuple(operations),
            outputs=tuple(outputs),
        )


def _fits(size: int, kernel: int, stride: int, *, pads: bool) -> list[tuple[int, int]]:
    """(result, padding before) of a window over ``size`` sites."""
    found = set()
    for before in range(kernel if pads else 1):
        for behind in range(kernel):
            result = (size + before + behind - kernel) // stride + 1
            if result >= 1 and (result - 1) * stride - before < size:
                found.add((result, before))
    return sorted(found)

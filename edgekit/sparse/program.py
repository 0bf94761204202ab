"""A sparse program: the masked region of one graph as a flat list of operations, with its weights.

A *level* is a resolution of rows x columns sites. The active sites of a masked level are those of
``edgekit.masks.pyramid.mask_at``, of any other level all sites. A *tensor* lives on one level and has a value
[channels] at every active site. Whoever reads it at an inactive site, or outside the map, reads a real 0; only MAXPOOL
skips positions outside the map (an inactive site inside it counts as 0). uint8: real = scale * (q - zero_point).

Arithmetic is float32, with int32 sums in integer convolutions. ``rint`` rounds to nearest, ties to even; products are
rounded before they are added (no fused multiply-add). What each operation computes stands beside its :class:`Kind`;
``edgekit.sparse.format`` is the file, ``edgekit.sparse.checks`` what a program must obey,
``edgekit.sparse.reference`` the same in numpy.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray


class DType(IntEnum):
    """What a tensor's values are stored as."""

    FLOAT32 = 0
    UINT8 = 1


class Kind(IntEnum):
    """What an operation does. Every kind but OUTPUT writes channels [channel_offset, + written) of its output tensor;
    written is the input's number of channels where nothing else is said."""

    INPUT = 1
    """The image into a whole tensor; operation 0, and the only one. uint8 pixels: x = (f32(pixel) - mean) / std, with
    ``weights`` the mean and ``bias`` the std, f32 [C] each; a float32 image is x itself. A uint8 tensor gets
    clip(rint(x * (f32(1) / scale)) + zero_point, 0, 255)."""

    CONV = 2
    """``weights`` [K, kernel_rows, kernel_columns, C], f32 or (uint8 input) int8. Site (y, x) reads input rows
    y * stride - pad_top + i; acc_k = sum over taps and channels of (x, or q - zero_point) * w. Written: K channels, or
    with C.ReLU 2 K, of which channel K + k uses acc_k too. float32 input: v = (acc + bias) * multiplier, where absent
    multipliers are 1; uint8 input: v = f32(acc + i32 bias) * multiplier, with multipliers in_scale * w_scale
    / out_scale for a uint8 output and in_scale * w_scale for a float32 one. ``second`` is a residual of the output's
    type: v += r, or f32(q_r - zero_point_r) * second_scale. float32 output: clamp(v, low, high); uint8 output:
    clamp(rint(v) + zero_point, low, high). A float32 input gives a float32 output only."""

    DEPTHWISE = 3
    """As CONV, with ``weights`` [kernel_rows, kernel_columns, C] and neither residual nor C.ReLU."""

    MAXPOOL = 4
    """The largest value of each window; scale and zero point stay."""

    AVGPOOL = 5
    """Without pads; n = kernel_rows * kernel_columns always. float32: sum * first_scale, which is 1 / n; uint8:
    clamp(rint(f32(sum - n * zero_point_in) * first_scale) + zero_point, 0, 255), where first_scale is
    scale_in / (n * scale)."""

    UPSAMPLE = 6
    """Repetition by the factor ``stride``; scale and zero point stay. The factor 1 copies."""

    ADD = 7
    """Of ``input`` and ``second``: clamp(a + b), or clamp(rint(f32(q_a - zero_point_a) * first_scale + f32(q_b -
    zero_point_b) * second_scale) + zero_point), with the clamp low, high."""

    QUANTISE = 8
    """float32 to uint8, as INPUT does."""

    DEQUANTISE = 9
    """uint8 to float32: f32(q - zero_point) * scale."""

    OUTPUT = 10
    """The channels (dequantised) of active site s = y * columns + x become the rows from row_offset + s * anchors on of
    the output numbered ``output``: ``anchors`` rows, so channels = anchors * its columns."""

    DECONV = 11
    """Depthwise transposed convolution 4x4, stride 2, pad 1, to twice the rows and columns, with ``weights``
    [4, 4, C]; bias, multipliers and clamp are those of DEPTHWISE."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """One resolution."""

    rows: int
    columns: int
    masked: bool


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """One feature map."""

    level: int
    """Index of its level."""

    channels: int
    dtype: DType = DType.FLOAT32
    scale: float = 1.0
    """Held in float32, as in the file; 1 for a float32 tensor."""

    zero_point: int = 0
    """0..255; 0 for a float32 tensor."""

    def __post_init__(self) -> None:
        _round(self, "scale")


@dataclass(frozen=True, kw_only=True)
class Output:
    """A dense float32 array [rows, columns] for the caller, 0 where nothing is written."""

    name: str
    """At most 32 printable ASCII characters."""

    rows: int
    columns: int


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One step. A field that the kind does not use keeps its default, but ``low`` and ``high`` always suit the output:
    anything for float32, integers in 0..255 (quantised units) for uint8."""

    kind: Kind
    input: int | None = None
    """Tensor; INPUT has none."""

    second: int | None = None
    """Tensor: the residual of a CONV, the second operand of ADD."""

    output: int
    """Tensor; of OUTPUT, the index of the output."""

    channel_offset: int = 0
    """The first channel of the output that is written: this is how tensors are concatenated."""

    kernel_rows: int = 1
    kernel_columns: int = 1
    stride: int = 1
    pad_top: int = 0
    pad_left: int = 0
    crelu: bool = False
    low: float = -inf
    high: float = inf
    first_scale: float = 1.0
    second_scale: float = 1.0
    row_offset: int = 0
    anchors: int = 0
    weights: NDArray[Any] | None = None
    bias: NDArray[Any] | None = None
    """f32, or i32 in units of the sum where the input is uint8; [channels that are written]."""

    multipliers: NDArray[Any] | None = None
    """f32 [channels that are written]."""

    def __post_init__(self) -> None:
        _round(self, "low", "high", "first_scale", "second_scale")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Operation):
            return NotImplemented
        return all(_same(getattr(self, field.name), getattr(other, field.name)) for field in fields(Operation))

    def __hash__(self) -> int:
        return hash((self.kind, self.input, self.output, self.channel_offset, self.row_offset))


@dataclass(frozen=True, kw_only=True)
class Program:
    """A whole graph; see the module."""

    mask_rows: int = 0
    """0, like ``mask_columns``, where the program takes no mask; then no level is masked."""

    mask_columns: int = 0
    levels: tuple[Level, ...]
    tensors: tuple[Tensor, ...]
    operations: tuple[Operation, ...]
    outputs: tuple[Output, ...]


def channels_written(program: Program, operation: Operation) -> int:
    """How many channels of its output tensor an operation writes; OUTPUT writes none."""
    if operation.kind is Kind.OUTPUT:
        return 0
    if operation.kind is Kind.CONV and operation.weights is not None:
        return len(operation.weights) * (2 if operation.crelu else 1)
    tensor = operation.output if operation.input is None else operation.input
    return program.tensors[tensor].channels


def _round(instance: object, *names: str) -> None:
    """Bring fields to float32, so that a program equals itself after a trip through a file."""
    for name in names:
        with np.errstate(over="ignore"):  # an infinite scale is a program's fault, which the checks name
            object.__setattr__(instance, name, float(np.float32(getattr(instance, name))) + 0.0)  # -0 becomes 0


def _same(left: object, right: object) -> bool:
    if isinstance(left, np.ndarray) and isinstance(right, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    return type(left) is type(right) and left == right

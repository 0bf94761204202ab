"""Which constants an operation has, and in which shape."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgekit.sparse.program import DType, Kind, Operation, Tensor

WEIGHTED = frozenset({Kind.CONV, Kind.DEPTHWISE, Kind.DECONV})
"""Kinds with weights, bias and multipliers."""


@dataclass(frozen=True, kw_only=True)
class ConstantShape:
    """What a constant of an operation must be."""

    shape: tuple[int, ...]
    dtype: type[np.generic]
    required: bool = True


def constant_shapes(
    operation: Operation, source: Tensor | None, target: Tensor, filters: int
) -> dict[str, ConstantShape]:
    """Field -> constant, for the fields that an operation of this kind may have.

    Args:
        operation: its constants are not looked at.
        source: the tensor that it reads; INPUT has none.
        target: the tensor that it writes.
        filters: K of a CONV.
    """
    if operation.kind is Kind.INPUT:
        channels = ConstantShape(shape=(target.channels,), dtype=np.float32)
        return {"weights": channels, "bias": channels}
    if operation.kind not in WEIGHTED or source is None:
        return {}
    kernel, quantised = (operation.kernel_rows, operation.kernel_columns), source.dtype is DType.UINT8
    if operation.kind is Kind.CONV:
        shape: tuple[int, ...] = (filters, *kernel, source.channels)
        written = filters * (2 if operation.crelu else 1)
    else:
        shape, written = (*kernel, source.channels), source.channels
    return {
        "weights": ConstantShape(shape=shape, dtype=np.int8 if quantised else np.float32),
        "bias": ConstantShape(shape=(written,), dtype=np.int32 if quantised else np.float32),
        "multipliers": ConstantShape(shape=(written,), dtype=np.float32, required=quantised or operation.crelu),
    }

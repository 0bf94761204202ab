"""What the tests of the sparse programs share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit.sparse.program import DType, Kind, Level, Operation, Output, Program, Tensor


@pytest.fixture(scope="session")
def plain() -> Program:
    """Small, with every kind: 8x8 pixels under a mask of 2x2 cells."""
    levels = tuple(Level(rows=side, columns=side, masked=True) for side in (8, 4, 2))
    quantised = {"dtype": DType.UINT8, "scale": 0.05, "zero_point": 100}
    tensors = (
        Tensor(level=0, channels=3),
        Tensor(level=1, channels=8),  # 1: C.ReLU of 3, DEPTHWISE of 3, MAXPOOL would not fit: + 2 of a CONV
        Tensor(level=1, channels=8),
        Tensor(level=1, channels=8, **quantised),
        Tensor(level=1, channels=8, **quantised),
        Tensor(level=1, channels=8),
        Tensor(level=2, channels=8),
        Tensor(level=2, channels=8),
        Tensor(level=1, channels=8),
        Tensor(level=1, channels=8),
    )
    byte = {"low": 0, "high": 255}
    operations = (
        Operation(kind=Kind.INPUT, output=0, weights=_floats(3), bias=np.full(3, 2, np.float32)),
        Operation(
            kind=Kind.CONV, input=0, output=1, kernel_rows=3, kernel_columns=3, stride=2, pad_top=1, pad_left=1,
            crelu=True, weights=_floats(3, 3, 3, 3), bias=_floats(6), multipliers=_floats(6), low=0.0,
        ),
        Operation(
            kind=Kind.CONV, input=0, output=1, channel_offset=6, stride=2, weights=_floats(2, 1, 1, 3), bias=_floats(2)
        ),
        Operation(
            kind=Kind.DEPTHWISE, input=1, output=2, kernel_rows=5, kernel_columns=3, pad_top=2, pad_left=1,
            weights=_floats(5, 3, 8), bias=_floats(8), low=0.0, high=6.0,
        ),
        Operation(kind=Kind.QUANTISE, input=2, output=3, **byte),
        Operation(
            kind=Kind.CONV, input=3, second=3, output=4, second_scale=1.0, low=100, high=255,
            weights=np.arange(-32, 32, dtype=np.int8).reshape(8, 1, 1, 8), bias=np.arange(8, dtype=np.int32),
            multipliers=np.full(8, 0.01, np.float32),
        ),
        Operation(kind=Kind.DEQUANTISE, input=4, output=5),
        Operation(kind=Kind.AVGPOOL, input=5, output=6, kernel_rows=2, kernel_columns=2, stride=2, first_scale=0.25),
        Operation(
            kind=Kind.MAXPOOL, input=5, output=7, kernel_rows=3, kernel_columns=3, stride=2, pad_top=1, pad_left=1
        ),
        Operation(
            kind=Kind.DECONV, input=6, output=8, kernel_rows=4, kernel_columns=4, stride=2, pad_top=1, pad_left=1,
            weights=_floats(4, 4, 8), bias=_floats(8),
        ),
        Operation(kind=Kind.ADD, input=8, second=5, output=9),
        Operation(kind=Kind.OUTPUT, input=9, output=0, row_offset=8, anchors=2),
        Operation(kind=Kind.OUTPUT, input=7, output=0, anchors=2),
    )  # fmt: skip
    return Program(
        mask_rows=2,
        mask_columns=2,
        levels=levels,
        tensors=tensors,
        operations=operations,
        outputs=(Output(name="class_logits", rows=40, columns=4),),
    )


def _floats(*shape: int) -> Any:
    return np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)

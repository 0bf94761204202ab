"""Programs that keep every rule of the format, and would still take all of a board: the native engine refuses them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgekit.sparse import _native
from edgekit.sparse.format import write_program
from edgekit.sparse.program import DType, Kind, Level, Operation, Output, Program, Tensor

BYTE: dict[str, Any] = {"dtype": DType.UINT8, "scale": 0.1, "zero_point": 100}


def program(levels: list[Level], tensors: list[Tensor], *operations: Operation) -> Program:
    """INPUT into tensor 0, ``operations``, and OUTPUT of the last tensor."""
    channels = tensors[0].channels
    constants = {"weights": np.zeros(channels, np.float32), "bias": np.ones(channels, np.float32)}
    first = Operation(kind=Kind.INPUT, output=0, low=0, high=255, **constants)
    last = Operation(kind=Kind.OUTPUT, input=len(tensors) - 1, output=0, anchors=1)
    level = levels[tensors[-1].level]
    outputs = (Output(name="x", rows=level.rows * level.columns, columns=tensors[-1].channels),)
    return Program(levels=tuple(levels), tensors=tuple(tensors), operations=(first, *operations, last), outputs=outputs)


def convolution(source: int, output: int, channels: int, filters: int, *, kernel: int, pad: int = 0) -> Operation:
    return Operation(
        kind=Kind.CONV, input=source, output=output, kernel_rows=kernel, kernel_columns=kernel, pad_top=pad,
        pad_left=pad, weights=np.zeros((filters, kernel, kernel, channels), np.int8),
        bias=np.zeros(filters, np.int32), multipliers=np.ones(filters, np.float32), low=0, high=255,
    )  # fmt: skip


def square(side: int) -> Level:
    return Level(rows=side, columns=side, masked=False)


def test_lists_of_sites_that_nothing_uses() -> None:
    levels = [square(1)] + [square(8192)] * 3  # the tensors need 4 bytes
    made = program(levels, [Tensor(level=0, channels=1, **BYTE)])
    with pytest.raises(_native.ProgramError, match="needs more than 2 GiB of memory"):
        _native.Engine(write_program(made), 1)


def test_channels_that_fill_blocks_of_16() -> None:
    # 8 x 17 MB dense, of which every channel takes 16.
    tensors = [Tensor(level=0, channels=1, **BYTE) for _ in range(8)]
    copies = [Operation(kind=Kind.UPSAMPLE, input=i, output=i + 1, low=0, high=255) for i in range(7)]
    with pytest.raises(_native.ProgramError, match="needs more than 2 GiB of memory"):
        _native.Engine(write_program(program([square(4096)], tensors, *copies)), 1)


def test_frames_around_single_sites() -> None:
    # 15x15 windows with pads of 14 around 1x1 sites: 29x29 of them.
    channels = 16384
    tensors = [Tensor(level=0, channels=channels, **BYTE)]
    window = {"kernel_rows": 15, "kernel_columns": 15, "pad_top": 14, "pad_left": 14, "low": 0, "high": 255}
    operations = []
    for i in range(200):
        tensors.append(Tensor(level=0, channels=channels, **BYTE))
        operations.append(Operation(kind=Kind.MAXPOOL, input=i, output=i + 1, **window))
    with pytest.raises(_native.ProgramError, match="needs more than 2 GiB of memory"):
        _native.Engine(write_program(program([square(1)], tensors, *operations)), 1)


def test_a_frame_that_never_ends() -> None:
    tensors = [Tensor(level=0, channels=16, **BYTE) for _ in range(6)]
    operations = [convolution(i, i + 1, 16, 16, kernel=15, pad=7) for i in range(5)]
    made = program([square(2048)], tensors, *operations)
    with pytest.raises(_native.ProgramError, match=r"more than 10\^12 multiplications a frame"):
        _native.Engine(write_program(made), 1)

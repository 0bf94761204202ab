"""Sparse programs of one operation between INPUT and OUTPUT, under masks of 3x2 cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.masks.pyramid import mask_at
from edgekit.sparse.checks import check_program
from edgekit.sparse.program import DType, Kind, Level, Operation, Output, Program, Tensor
from edgekit.sparse.reference import run_reference


def program(
    sizes: list[tuple[int, int]],
    channels: list[int],
    *operations: Operation,
    kinds: dict[str, Any],
    masked: bool = True,
) -> Program:
    """INPUT into tensor 0, ``operations``, OUTPUT of the last tensor; one tensor on each of ``sizes``."""
    levels = list(dict.fromkeys(Level(rows=rows, columns=columns, masked=masked) for rows, columns in sizes))
    tensors = [
        Tensor(level=levels.index(Level(rows=rows, columns=columns, masked=masked)), channels=count, **kinds)
        for (rows, columns), count in zip(sizes, channels, strict=True)
    ]
    bounds = {} if tensors[0].dtype is DType.FLOAT32 else {"low": 0, "high": 255}
    constants = {"weights": np.zeros(channels[0], np.float32), "bias": np.ones(channels[0], np.float32)}
    last = Operation(kind=Kind.OUTPUT, input=len(sizes) - 1, output=0, anchors=1)
    made = Program(
        mask_rows=3 if masked else 0,
        mask_columns=2 if masked else 0,
        levels=tuple(levels),
        tensors=tuple(tensors),
        operations=(Operation(kind=Kind.INPUT, output=0, **constants, **bounds), *operations, last),
        outputs=(Output(name="result", rows=sizes[-1][0] * sizes[-1][1], columns=channels[-1]),),
    )
    check_program(made)
    return made


def result(made: Program, image: NDArray[Any], mask: NDArray[np.bool_] | None) -> NDArray[np.float32]:
    """[rows, columns, channels]"""
    level = made.levels[made.tensors[-1].level]
    return run_reference(made, image, mask)["result"].reshape(level.rows, level.columns, -1)


def masked(values: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[Any]:
    return np.where(mask_at(mask, rows=values.shape[0], columns=values.shape[1])[..., None], values, 0)


def expected(dense: Any, mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """A result of PyTorch [1, channels, rows, columns] as [rows, columns, channels], 0 at inactive sites."""
    return masked(dense[0].numpy().transpose(1, 2, 0), mask)


def window(kernel: tuple[int, int], stride: int, pads: tuple[int, int, int, int]) -> dict[str, int]:
    rows, columns = kernel
    return {
        "kernel_rows": rows, "kernel_columns": columns, "stride": stride, "pad_top": pads[0], "pad_left": pads[1]
    }  # fmt: skip

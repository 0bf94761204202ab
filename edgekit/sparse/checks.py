"""What every sparse program obeys, whoever wrote it: an engine may then run it without looking again."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

import numpy as np

from edgekit.sparse.levels import path_to_level
from edgekit.sparse.limits import (
    MAX_BYTES,
    MAX_CHANNELS,
    MAX_LEVELS,
    MAX_MASK,
    MAX_NAME,
    MAX_OPERATIONS,
    MAX_OUTPUT_COLUMNS,
    MAX_OUTPUT_ROWS,
    MAX_OUTPUTS,
    MAX_SIDE,
    MAX_TENSORS,
    check_index,
    expect,
)
from edgekit.sparse.operation_checks import Progress, check_operation
from edgekit.sparse.program import DType, Level, Output, Program, Tensor


def check_program(program: Program) -> None:
    """Refuse whatever an engine could not run safely.

    Raises:
        SparseProgramError: saying what was expected and what came, and naming the operation.
    """
    _check_counts(program)
    for index, level in enumerate(program.levels):
        _check_level(program, index, level)
    for index, tensor in enumerate(program.tensors):
        _check_tensor(program, index, tensor)
    _check_outputs(program.outputs)
    _check_memory(program)
    progress = Progress(
        channels=[np.zeros(tensor.channels, np.bool_) for tensor in program.tensors],
        rows=[np.zeros(output.rows, np.bool_) for output in program.outputs],
    )
    for index, operation in enumerate(program.operations):
        check_operation(program, index, operation, progress)
    for index, channels in enumerate(progress.channels):
        expect(bool(channels.all()), f"all {len(channels)} channels written", int(channels.sum()), f"tensor {index}")


def _check_counts(program: Program) -> None:
    for name, things, most in (
        ("levels", program.levels, MAX_LEVELS),
        ("tensors", program.tensors, MAX_TENSORS),
        ("operations", program.operations, MAX_OPERATIONS),
        ("outputs", program.outputs, MAX_OUTPUTS),
    ):
        expect(1 <= len(things) <= most, f"1..{most} {name}", len(things))
    mask = (program.mask_rows, program.mask_columns)
    some = all(1 <= side <= MAX_MASK for side in mask)
    expect(mask == (0, 0) or some, f"a mask of 1..{MAX_MASK} cells a side, or 0x0", f"{mask[0]}x{mask[1]}")


def _check_level(program: Program, index: int, level: Level) -> None:
    where = f"level {index}"
    sides = f"{level.rows}x{level.columns}"
    for side in (level.rows, level.columns):
        expect(1 <= side <= MAX_SIDE, f"1..{MAX_SIDE} rows and columns", sides, where)
    if level.masked:
        mask = f"{program.mask_rows}x{program.mask_columns}"
        expect(program.mask_rows > 0, "no masked level, as the program takes no mask", "one", where)
        path = path_to_level(
            mask_rows=program.mask_rows, mask_columns=program.mask_columns, rows=level.rows, columns=level.columns
        )
        expect(path is not None, f"a size that a mask of {mask} reaches", sides, where)


def _check_tensor(program: Program, index: int, tensor: Tensor) -> None:
    where = f"tensor {index}"
    check_index(tensor.level, program.levels, "level", where)
    expect(1 <= tensor.channels <= MAX_CHANNELS, f"1..{MAX_CHANNELS} channels", tensor.channels, where)
    expect(isfinite(tensor.scale) and tensor.scale > 0, "a finite scale above 0", tensor.scale, where)
    expect(0 <= tensor.zero_point <= 255, "a zero point in 0..255", tensor.zero_point, where)
    if tensor.dtype is DType.FLOAT32:
        plain = (tensor.scale, tensor.zero_point) == (1.0, 0)
        expect(plain, "scale 1 and zero point 0 for FLOAT32", (tensor.scale, tensor.zero_point), where)


def _check_outputs(outputs: Sequence[Output]) -> None:
    for index, output in enumerate(outputs):
        where = f"output {index}"
        printable = 1 <= len(output.name) <= MAX_NAME and all("!" <= letter <= "~" for letter in output.name)
        expect(printable, f"a name of 1..{MAX_NAME} printable ASCII characters", repr(output.name), where)
        expect(1 <= output.rows <= MAX_OUTPUT_ROWS, f"1..{MAX_OUTPUT_ROWS} rows", output.rows, where)
        expect(1 <= output.columns <= MAX_OUTPUT_COLUMNS, f"1..{MAX_OUTPUT_COLUMNS} columns", output.columns, where)
    names = [output.name for output in outputs]
    expect(len(set(names)) == len(names), "outputs of different names", ", ".join(names))


def _check_memory(program: Program) -> None:
    needed = sum(4 * output.rows * output.columns for output in program.outputs)
    for tensor in program.tensors:
        level = program.levels[tensor.level]
        needed += level.rows * level.columns * tensor.channels * (1 if tensor.dtype is DType.UINT8 else 4)
    expect(needed <= MAX_BYTES, f"tensors and outputs of at most {MAX_BYTES} bytes", needed)

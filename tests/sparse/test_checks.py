"""What a sparse program must obey: each rule is broken once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import inf, nan
from typing import Any

import numpy as np
import pytest

from edgekit.errors import SparseProgramError
from edgekit.sparse.format import read_program, write_program
from edgekit.sparse.program import DType, Kind, Level, Operation, Output, Program, Tensor

Change = Callable[[Program], Program]

INPUT, CRELU, CONV, DEPTHWISE, QUANTISE, INTEGER, DEQUANTISE, AVGPOOL, MAXPOOL, DECONV, ADD, OUTPUT = range(12)
"""Where each kind is in the plain program."""


def floats(*shape: int) -> Any:
    return np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)


def operation(index: int, **changes: Any) -> Change:
    def change(program: Program) -> Program:
        operations = list(program.operations)
        operations[index] = replace(operations[index], **changes)
        return replace(program, operations=tuple(operations))

    return change


def tensor(index: int, **changes: Any) -> Change:
    def change(program: Program) -> Program:
        tensors = list(program.tensors)
        tensors[index] = replace(tensors[index], **changes)
        return replace(program, tensors=tuple(tensors))

    return change


def level(index: int, **changes: Any) -> Change:
    def change(program: Program) -> Program:
        levels = list(program.levels)
        levels[index] = replace(levels[index], **changes)
        return replace(program, levels=tuple(levels))

    return change


def output(**changes: Any) -> Change:
    return lambda program: replace(program, outputs=(replace(program.outputs[0], **changes),))


def whole(**changes: Any) -> Change:
    return lambda program: replace(program, **changes)


def both(*changes: Change) -> Change:
    def change(program: Program) -> Program:
        for one in changes:
            program = one(program)
        return program

    return change


def replaced(index: int, new: Operation) -> Change:
    def change(program: Program) -> Program:
        operations = list(program.operations)
        operations[index] = new
        return replace(program, operations=tuple(operations))

    return change


REFUSALS: list[tuple[str, Change, str]] = [
    ("no levels", whole(levels=()), "the sparse program: expected 1..64 levels, got 0"),
    ("many levels", whole(levels=(Level(rows=1, columns=1, masked=False),) * 65), "expected 1..64 levels, got 65"),
    ("many outputs", whole(outputs=(Output(name="x", rows=1, columns=1),) * 17), "expected 1..16 outputs, got 17"),
    ("mask of one side", whole(mask_rows=0), "expected a mask of 1..256 cells a side, or 0x0, got 0x2"),
    ("large mask", whole(mask_columns=257), "expected a mask of 1..256 cells a side, or 0x0, got 2x257"),
    ("no mask", whole(mask_rows=0, mask_columns=0), "level 0: expected no masked level, as the program takes no mask"),
    ("no rows", level(1, rows=0), "level 1: expected 1..8192 rows and columns, got 0x4"),
    ("many columns", level(1, columns=8193), "level 1: expected 1..8192 rows and columns, got 4x8193"),
    ("unreachable", level(1, rows=5), "level 1: expected a size that a mask of 2x2 reaches, got 5x4"),
    ("no such level", tensor(2, level=3), "tensor 2: expected one of 3 levels, got number 3"),
    ("no channels", tensor(2, channels=0), "tensor 2: expected 1..32768 channels, got 0"),
    ("many channels", tensor(2, channels=32769), "tensor 2: expected 1..32768 channels, got 32769"),
    ("scale of 0", tensor(3, scale=0.0), "tensor 3: expected a finite scale above 0, got 0.0"),
    ("infinite scale", tensor(3, scale=1e300), "tensor 3: expected a finite scale above 0, got inf"),
    ("scale of NaN", tensor(3, scale=nan), "tensor 3: expected a finite scale above 0, got nan"),
    ("zero point", tensor(3, zero_point=256), r"tensor 3: expected a zero point in 0\.\.255, got 256"),
    ("float with scale", tensor(2, scale=0.5), "tensor 2: expected scale 1 and zero point 0 for FLOAT32"),
    ("float with zero", tensor(2, zero_point=1), "tensor 2: expected scale 1 and zero point 0 for FLOAT32"),
    ("no name", output(name=""), "output 0: expected a name of 1..32 printable ASCII characters, got ''"),
    ("long name", output(name="x" * 33), "output 0: expected a name of 1..32 printable"),
    ("name with NUL", output(name="a\0b"), r"output 0: expected a name .*got 'a\\x00b'"),
    ("foreign name", output(name="Größe"), "output 0: expected a name of 1..32 printable"),
    ("no output rows", output(rows=0), "output 0: expected 1..16777216 rows, got 0"),
    ("no output columns", output(columns=0), "output 0: expected 1..65536 columns, got 0"),
    ("same names", whole(outputs=(Output(name="x", rows=1, columns=1),) * 2), "expected outputs of different names, g"),
    ("much memory", output(rows=1 << 24, columns=64), "expected tensors and outputs of at most 2147483648 bytes"),
    ("no input", replaced(INPUT, Operation(kind=Kind.ADD, output=0)),
     r"operation 0 \(ADD\): expected INPUT as operation 0 and nowhere else, got ADD"),
    ("second image", lambda program: replaced(CONV, program.operations[INPUT])(program),
     r"operation 2 \(INPUT\): expected INPUT as operation 0 and nowhere else"),
    ("input of INPUT", operation(INPUT, input=0), r"operation 0 \(INPUT\): expected no input, got 0"),
    ("no input tensor", operation(CONV, input=None), r"operation 2 \(CONV\): input: expected one of 10 tensors, got n"),
    ("no such input", operation(CONV, input=10), r"operation 2 \(CONV\): input: expected one of 10 tensors, got num"),
    ("no such second", operation(ADD, second=10), r"operation 10 \(ADD\): second: expected one of 10 tensors, got nu"),
    ("no second", operation(ADD, second=None), r"operation 10 \(ADD\): second: expected one of 10 tensors, got none"),
    ("no such output", operation(CONV, output=10), r"operation 2 \(CONV\): output: expected one of 10 tensors"),
    ("no such result", operation(OUTPUT, output=1), r"operation 11 \(OUTPUT\): output: expected one of 1 outputs"),
    ("read too early", operation(DEPTHWISE, input=5),
     r"operation 3 \(DEPTHWISE\): expected all of its input, tensor 5, written before it, got 0 of 8 channels"),
    ("half written", lambda program: replace(program, operations=(*program.operations[:2], *program.operations[3:])),
     r"operation 2 \(DEPTHWISE\): expected all of its input, tensor 1, written before it, got 6 of 8 channels"),
    ("added too early", operation(INTEGER, second=4),
     r"operation 5 \(CONV\): expected all of its second, tensor 4, written before it, got 0 of 8"),
    ("unused field", operation(ADD, anchors=1), r"operation 10 \(ADD\): expected no anchors, got 1"),
    ("unused constant", operation(ADD, weights=floats(8)), r"operation 10 \(ADD\): expected no weights, got an array"),
    ("unused pads", operation(AVGPOOL, pad_top=1), r"operation 7 \(AVGPOOL\): expected no pad_top, got 1"),
    ("C.ReLU by channel", operation(DEPTHWISE, crelu=True), r"operation 3 \(DEPTHWISE\): expected no crelu, got True"),
    ("no kernel", operation(CONV, kernel_rows=0), r"operation 2 \(CONV\): expected kernel_rows in 1\.\.15, got 0"),
    ("large kernel", operation(CONV, kernel_columns=16), r"CONV\): expected kernel_columns in 1\.\.15, got 16"),
    ("large stride", operation(CONV, stride=5), r"operation 2 \(CONV\): expected stride in 1\.\.4, got 5"),
    ("large pad", operation(DEPTHWISE, pad_top=5), r"\(DEPTHWISE\): expected pad_top in 0\.\.4, got 5"),
    ("left pad", operation(DEPTHWISE, pad_left=3), r"\(DEPTHWISE\): expected pad_left in 0\.\.2, got 3"),
    ("first scale", operation(AVGPOOL, first_scale=nan),
     r"\(AVGPOOL\): expected first_scale above 0 and at most 2\*\*64, got nan"),
    ("second scale", operation(INTEGER, second_scale=0),
     r"operation 5 \(CONV\): expected second_scale above 0 and at most 2\*\*64, got 0.0"),
    ("huge scale", operation(INTEGER, second_scale=2.0**65), "expected second_scale above 0 and at most .*, got 3"),
    ("huge multiplier", operation(INTEGER, multipliers=np.full(8, -1e20, np.float32)),
     r"operation 5 \(CONV\): expected multipliers of integers of at most 2\*\*64, got 1.00000"),
    ("clamp of NaN", operation(CONV, low=nan), r"operation 2 \(CONV\): expected a clamp from low to high, got nan"),
    ("clamp reversed", operation(DEPTHWISE, low=7.0), r"\(DEPTHWISE\): expected a clamp from low to high, got 7.0"),
    ("clamp of OUTPUT", operation(OUTPUT, high=nan), r"\(OUTPUT\): expected a clamp from low to high"),
    ("clamp beyond", operation(INTEGER, high=256), r"\(CONV\): expected a clamp of integers in 0\.\.255 for a uint8 o"),
    ("clamp below", operation(QUANTISE, low=-inf), r"\(QUANTISE\): expected a clamp of integers in 0\.\.255"),
    ("clamp between", operation(INTEGER, low=0.5), r"\(CONV\): expected a clamp of integers in 0\.\.255"),
    ("float to uint8", operation(CONV, output=3, channel_offset=0, low=0, high=255),
     r"operation 2 \(CONV\): expected a FLOAT32 output of a FLOAT32 input, got FLOAT32 to UINT8"),
    ("quantised twice", operation(QUANTISE, output=5, low=0, high=255), r"\(QUANTISE\): expected FLOAT32 to UINT8, go"),
    ("nothing to undo", operation(DEQUANTISE, input=2), r"\(DEQUANTISE\): expected UINT8 to FLOAT32, got FLOAT32 to F"),
    ("pool of types", both(tensor(7, dtype=DType.UINT8), operation(MAXPOOL, low=0, high=255)),
     r"\(MAXPOOL\): expected input and output of one type, got FLOAT32 to UINT8"),
    ("pool of scales", both(tensor(7, dtype=DType.UINT8, scale=2), operation(MAXPOOL, input=4, low=0, high=255)),
     r"\(MAXPOOL\): expected scale and zero point \(0.05\d+, 100\) of its input in its output, got \(2.0, 0\)"),
    ("mask mixed", level(2, masked=False), r"\(AVGPOOL\): expected input and output both masked or neither, got 4x4 m"),
    ("wrong size", operation(CONV, stride=1), r"\(CONV\): expected an output level that the window gives, got 8x8 mas"),
    ("beyond the end", operation(AVGPOOL, stride=4, kernel_rows=4, kernel_columns=4),
     r"\(AVGPOOL\): expected an output level that the window gives"),
    ("deconvolution of 3x3", operation(DECONV, kernel_rows=3), r"\(DECONV\): expected a kernel of 4x4 and stride 2, g"),
    ("deconvolution padded", operation(DECONV, pad_top=0), r"\(DECONV\): expected pads of 1, got 0"),
    ("deconvolution of the same size", operation(DECONV, input=5),
     r"operation 9 \(DECONV\): expected an output of 8x8, got 4x4 masked and 4x4 masked"),
    ("no weights", operation(CONV, weights=None), r"\(CONV\): expected weights of shape \(0, 1, 1, 3\), got none"),
    ("no bias", operation(CONV, bias=None), r"operation 2 \(CONV\): expected bias of shape \(2,\), got none"),
    ("no multipliers", operation(CRELU, multipliers=None), r"\(CONV\): expected multipliers of shape \(6,\), got none"),
    ("integers without multipliers", operation(INTEGER, multipliers=None), r"\(CONV\): expected multipliers of shape"),
    ("flat weights", operation(CONV, weights=floats(6)), r"\(CONV\): expected weights of 4 dimensions, got 1"),
    ("no filters", operation(CONV, weights=floats(0, 1, 1, 3)), r"\(CONV\): expected 1\.\.32768 filters, got 0"),
    ("weights of a shape", operation(CONV, weights=floats(2, 1, 1, 4)),
     r"\(CONV\): expected weights of float32 \[2, 1, 1, 3\], got float32 \[2, 1, 1, 4\]"),
    ("weights of a type", operation(INTEGER, weights=floats(8, 1, 1, 8)),
     r"\(CONV\): expected weights of int8 \[8, 1, 1, 8\], got float32"),
    ("infinite weights", operation(CONV, weights=np.full((2, 1, 1, 3), np.inf, np.float32)),
     r"operation 2 \(CONV\): expected finite weights, got infinity or NaN"),
    ("std of 0", operation(INPUT, bias=np.zeros(3, np.float32)), r"operation 0 \(INPUT\): expected a std above 0, got"),
    ("overflow", operation(INTEGER, bias=np.full(8, 2**31 - 1000, np.int32)), r"\(CONV\): expected sums below 2\*\*31"),
    ("second of a type", operation(INTEGER, second=2), r"\(CONV\): expected a second operand of UINT8, got FLOAT32"),
    ("second of a level", operation(ADD, second=6),
     r"\(ADD\): expected a second operand on the output's level, got 2x2 masked and 4x4 masked"),
    ("second of a width", operation(CONV, second=0, output=0, stride=1), r"\(CONV\): expected a second operand of 2 c"),
    ("beyond the channels", operation(CONV, channel_offset=7),
     r"operation 2 \(CONV\): expected channels of its output, 0\.\.7, got 7\.\.8"),
    ("written twice", operation(CONV, channel_offset=5), r"\(CONV\): expected channels that nothing else writes, got"),
    ("the image overwritten", operation(CONV, output=0, channel_offset=0, stride=1),
     r"\(CONV\): expected channels that nothing else writes, got 0\.\.1"),
    ("never written", lambda program: replace(program, tensors=(*program.tensors, Tensor(level=0, channels=2))),
     "tensor 10: expected all 2 channels written, got 0"),
    ("no anchors", operation(OUTPUT, anchors=0), r"operation 11 \(OUTPUT\): expected anchors in 1\.\.64, got 0"),
    ("other anchors", operation(OUTPUT, anchors=3), r"\(OUTPUT\): expected 12 channels \(anchors \* columns\), got 8"),
    ("beyond the rows", operation(OUTPUT, row_offset=9),
     r"\(OUTPUT\): expected rows of output 'class_logits', 0\.\.39, got 9\.\.40"),
    ("rows written twice", operation(OUTPUT, row_offset=7), r"\(OUTPUT\): expected rows of output 'class_logits' that"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), [entry[1:] for entry in REFUSALS], ids=[entry[0] for entry in REFUSALS])
def test_refuses_a_program(plain: Program, change: Change, message: str) -> None:
    program = change(plain)
    with pytest.raises(SparseProgramError, match=message):
        write_program(program)


def test_upsampling_is_checked(plain: Program) -> None:
    """The plain program has none."""
    program = replaced(DECONV, Operation(kind=Kind.UPSAMPLE, input=6, output=8, stride=2))(plain)
    assert read_program(write_program(program)) == program
    with pytest.raises(SparseProgramError, match=r"\(UPSAMPLE\): expected stride in 1\.\.8, got 9"):
        write_program(operation(DECONV, stride=9)(program))
    with pytest.raises(SparseProgramError, match=r"\(UPSAMPLE\): expected an output of 6x6, got 2x2"):
        write_program(operation(DECONV, stride=3)(program))

"""The file of a sparse program: one checksummed block of little-endian numbers, suffix ``.sparse``.

Header, 64 bytes::

     0  char[8]   "EKSPARSE"
     8  u32       version, 1
    12  u32       zlib.crc32 of bytes 16..end
    16  u64       length of the file
    24  u32 u32   rows and columns of the mask, both 0 if the program takes none
    32  u32 * 4   numbers of levels, tensors, operations and outputs
    48  u64 u64   offset (a multiple of 64) and length of the constants

Without gaps follow levels (16 bytes each), tensors (32), operations (128) and outputs (64), then zeros up to a multiple
of 64, then the constants up to the end.

Level: u32 rows, u32 columns, u32 masked (0 or 1), u32 0.
Tensor: u32 level, u32 channels, u32 dtype, f32 scale, i32 zero_point, u32[3] 0.
Output: char[32] name (ASCII, NUL padded), u32 rows, u32 columns, u32[6] 0.

Operation, 128 bytes, fields as in ``edgekit.sparse.program``::

     0  u32 * 4   kind, input, second, output; 0xFFFFFFFF for no input or second
    16  u32       channel_offset
    20  u32 * 5   kernel_rows, kernel_columns, stride, pad_top, pad_left
    40  u32       flags: bit 0 is C.ReLU
    44  f32 * 4   low, high, first_scale, second_scale
    60  u32 u32   row_offset, anchors
    68  u32       0
    72  u64 * 3   weights, bias, multipliers: offsets into the constants, multiples of 64, or 2**64 - 1 for none
    96  u32       K, the filters of a CONV; 0 for other kinds
   100  u32[7]    0

A file is untrusted: reading checks everything, see ``edgekit.sparse.checks``.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import SparseProgramError
from edgekit.sparse.checks import check_program
from edgekit.sparse.constants import ConstantShape, constant_shapes
from edgekit.sparse.limits import (
    MAX_CHANNELS,
    MAX_LEVELS,
    MAX_OPERATIONS,
    MAX_OUTPUTS,
    MAX_TENSORS,
    check_index,
    expect,
)
from edgekit.sparse.program import DType, Kind, Level, Operation, Output, Program, Tensor

MAGIC = b"EKSPARSE"
VERSION = 1
SUFFIX = ".sparse"

NONE = 0xFFFFFFFF
NO_CONSTANT = 2**64 - 1
ALIGNMENT = 64
"""Of constants in the file, a cache line."""

CRELU = 1
"""Bit of the flags."""

_HEADER = struct.Struct("<8sIIQIIIIIIQQ")
_LEVEL = struct.Struct("<4I")
_TENSOR = struct.Struct("<IIIfi3I")
_OPERATION = struct.Struct("<11I4f3I3Q8I")
_OUTPUT = struct.Struct("<32s8I")
_CHECKED_FROM = 16
"""The first byte that the checksum covers."""

_CONSTANTS = ("weights", "bias", "multipliers")
_DAMAGED = "\nThe file is damaged or incomplete; copy it again, or export the bundle again."


def write_program(program: Program) -> bytes:
    """The file of ``program``; equal programs give equal bytes.

    Raises:
        SparseProgramError: the program breaks a rule of ``edgekit.sparse.checks``.
    """
    check_program(program)
    constants = bytearray()
    tables = bytearray()
    for level in program.levels:
        tables += _LEVEL.pack(level.rows, level.columns, level.masked, 0)
    for tensor in program.tensors:
        tables += _TENSOR.pack(tensor.level, tensor.channels, tensor.dtype, tensor.scale, tensor.zero_point, 0, 0, 0)
    for operation in program.operations:
        tables += _pack_operation(operation, constants)
    for output in program.outputs:
        tables += _OUTPUT.pack(output.name.encode("ascii"), output.rows, output.columns, *[0] * 6)
    tables += bytes(-(_HEADER.size + len(tables)) % ALIGNMENT)
    start = _HEADER.size + len(tables)
    header = _HEADER.pack(
        MAGIC,
        VERSION,
        0,
        start + len(constants),
        program.mask_rows,
        program.mask_columns,
        len(program.levels),
        len(program.tensors),
        len(program.operations),
        len(program.outputs),
        start,
        len(constants),
    )
    return with_checksum(header + tables + constants)


def with_checksum(data: bytes) -> bytes:
    """``data`` with the checksum that its other bytes call for."""
    checksum = struct.pack("<I", zlib.crc32(data[_CHECKED_FROM:]))
    return data[:12] + checksum + data[_CHECKED_FROM:]


def read_program(data: bytes) -> Program:
    """The inverse of :func:`write_program`.

    Raises:
        SparseProgramError: the file is damaged, of another version, or breaks a rule; the message says what was
            expected and what came, and names the operation.
    """
    header = _read_header(data)
    program = Program(
        mask_rows=header.mask_rows,
        mask_columns=header.mask_columns,
        levels=tuple(_read_level(data, at, index) for index, at in enumerate(header.levels)),
        tensors=tuple(_read_tensor(data, at, index) for index, at in enumerate(header.tensors)),
        operations=(),
        outputs=tuple(_read_output(data, at, index) for index, at in enumerate(header.outputs)),
    )
    constants = memoryview(data)[header.constants :]
    operations = tuple(
        _read_operation(program, data, at, index, constants) for index, at in enumerate(header.operations)
    )
    program = replace(program, operations=operations)
    check_program(program)
    return program


@dataclass(frozen=True, kw_only=True)
class _Header:
    """Where everything lies."""

    mask_rows: int
    mask_columns: int
    levels: range
    tensors: range
    operations: range
    outputs: range
    """Offsets of the entries of each table."""

    constants: int


def _read_header(data: bytes) -> _Header:
    if len(data) < _HEADER.size:
        _refuse(f"at least {_HEADER.size} bytes", len(data))
    magic, version, checksum, length, rows, columns, *rest = _HEADER.unpack_from(data)
    if magic != MAGIC:
        _refuse(f"a file that begins with {MAGIC.decode()}", magic)
    if version != VERSION:
        raise SparseProgramError(
            f"the sparse program: expected version {VERSION}, got {version}.\n"
            "It comes from another edgekit: pip install --upgrade edgekit-vision, or export the bundle again."
        )
    if length != len(data):
        _refuse(f"{length} bytes, as its header says", len(data))
    if checksum != (found := zlib.crc32(memoryview(data)[_CHECKED_FROM:])):
        _refuse(f"the checksum {checksum:08x}, as its header says", f"{found:08x}")
    *counts, start, size = rest
    limits = (MAX_LEVELS, MAX_TENSORS, MAX_OPERATIONS, MAX_OUTPUTS)
    for name, count, most in zip(("levels", "tensors", "operations", "outputs"), counts, limits, strict=True):
        expect(1 <= count <= most, f"1..{most} {name}", count)
    tables, at = [], _HEADER.size
    for count, entry in zip(counts, (_LEVEL, _TENSOR, _OPERATION, _OUTPUT), strict=True):
        tables.append(range(at, at + count * entry.size, entry.size))
        at += count * entry.size
    expected = at + -at % ALIGNMENT
    expect(start == expected <= len(data), f"constants at {expected}", f"{start} in {len(data)} bytes")
    expect(size == len(data) - start, f"{len(data) - start} bytes of constants up to the end", size)
    expect(not any(data[at:start]), "zeros before the constants", "other bytes")
    levels, tensors, operations, outputs = tables
    return _Header(
        mask_rows=rows,
        mask_columns=columns,
        levels=levels,
        tensors=tensors,
        operations=operations,
        outputs=outputs,
        constants=start,
    )


def _read_level(data: bytes, at: int, index: int) -> Level:
    rows, columns, masked, reserved = _LEVEL.unpack_from(data, at)
    expect(masked in (0, 1), "0 or 1 for masked", masked, f"level {index}")
    _check_reserved([reserved], f"level {index}")
    return Level(rows=rows, columns=columns, masked=bool(masked))


def _read_tensor(data: bytes, at: int, index: int) -> Tensor:
    level, channels, dtype, scale, zero_point, *reserved = _TENSOR.unpack_from(data, at)
    expect(dtype in tuple(DType), "the type 0 (float32) or 1 (uint8)", dtype, f"tensor {index}")
    _check_reserved(reserved, f"tensor {index}")
    return Tensor(level=level, channels=channels, dtype=DType(dtype), scale=scale, zero_point=zero_point)


def _read_output(data: bytes, at: int, index: int) -> Output:
    name, rows, columns, *reserved = _OUTPUT.unpack_from(data, at)
    _check_reserved(reserved, f"output {index}")
    # Latin-1 takes every byte; the checks refuse what is no printable ASCII, and a NUL inside the name too.
    return Output(name=name.rstrip(b"\0").decode("latin-1"), rows=rows, columns=columns)


def _read_operation(program: Program, data: bytes, at: int, index: int, constants: memoryview) -> Operation:
    values = _OPERATION.unpack_from(data, at)
    kind, source, second, target, channel_offset, *window, flags = values[:11]
    low, high, first_scale, second_scale, row_offset, anchors, reserved = values[11:18]
    *offsets, filters = values[18:22]
    expect(kind in tuple(Kind), f"a kind in {min(Kind)}..{max(Kind)}", kind, f"operation {index}")
    where = f"operation {index} ({Kind(kind).name})"
    _check_reserved([reserved, *values[22:]], where)
    expect(flags in (0, CRELU), "flags of 0 or 1", flags, where)
    most = MAX_CHANNELS if kind == Kind.CONV else 0
    expect(filters <= most, f"at most {most} filters", filters, where)
    operation = Operation(
        kind=Kind(kind),
        input=None if source == NONE else source,
        second=None if second == NONE else second,
        output=target,
        channel_offset=channel_offset,
        kernel_rows=window[0],
        kernel_columns=window[1],
        stride=window[2],
        pad_top=window[3],
        pad_left=window[4],
        crelu=flags == CRELU,
        low=low,
        high=high,
        first_scale=first_scale,
        second_scale=second_scale,
        row_offset=row_offset,
        anchors=anchors,
    )
    shapes = _shapes(program, operation, filters, where)
    found: dict[str, Any] = {}
    for name, offset in zip(_CONSTANTS, offsets, strict=True):
        if offset != NO_CONSTANT:
            expect(name in shapes, f"no {name}", f"some at {offset}", where)
            found[name] = _read_constant(constants, offset, shapes[name], f"{where}: {name}")
    return replace(operation, **found)


def _shapes(program: Program, operation: Operation, filters: int, where: str) -> dict[str, ConstantShape]:
    if operation.kind is Kind.OUTPUT:
        return {}
    check_index(operation.output, program.tensors, "tensor", f"{where}: output")
    source = None
    if operation.kind is not Kind.INPUT:
        check_index(operation.input, program.tensors, "tensor", f"{where}: input")
        assert operation.input is not None  # check_index
        source = program.tensors[operation.input]
    return constant_shapes(operation, source, program.tensors[operation.output], filters)


def _read_constant(constants: memoryview, offset: int, expected: ConstantShape, where: str) -> NDArray[Any]:
    stored = np.dtype(expected.dtype).newbyteorder("<")
    size = prod(expected.shape) * stored.itemsize
    expect(offset % ALIGNMENT == 0, f"an offset that is a multiple of {ALIGNMENT}", offset, where)
    expect(offset + size <= len(constants), f"{size} bytes within the {len(constants)} of constants", offset, where)
    values = np.frombuffer(constants[offset : offset + size], stored)
    # No copy on little-endian machines: thousands of operations may name the same megabytes.
    return values.astype(expected.dtype, copy=False).reshape(expected.shape)


def _pack_operation(operation: Operation, constants: bytearray) -> bytes:
    """The operation's entry; its arrays are appended to ``constants``."""
    offsets = []
    for name in _CONSTANTS:
        values = getattr(operation, name)
        if values is None:
            offsets.append(NO_CONSTANT)
            continue
        constants += bytes(-len(constants) % ALIGNMENT)
        offsets.append(len(constants))
        constants += np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    filters = len(operation.weights) if operation.kind is Kind.CONV and operation.weights is not None else 0
    return _OPERATION.pack(
        operation.kind,
        NONE if operation.input is None else operation.input,
        NONE if operation.second is None else operation.second,
        operation.output,
        operation.channel_offset,
        operation.kernel_rows,
        operation.kernel_columns,
        operation.stride,
        operation.pad_top,
        operation.pad_left,
        CRELU if operation.crelu else 0,
        operation.low,
        operation.high,
        operation.first_scale,
        operation.second_scale,
        operation.row_offset,
        operation.anchors,
        0,
        *offsets,
        filters,
        *[0] * 7,
    )


def _check_reserved(values: list[int], where: str) -> None:
    expect(not any(values), "0 in reserved fields", next(filter(None, values), 0), where)


def _refuse(expected: str, got: object) -> None:
    raise SparseProgramError(f"the sparse program: expected {expected}, got {got}.{_DAMAGED}")

"""The file of a sparse program: what goes in comes out, and nothing else is taken for a program."""

from __future__ import annotations

import struct
from collections.abc import Callable
from math import inf
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import SparseProgramError
from edgekit.sparse.format import read_program, with_checksum, write_program
from edgekit.sparse.program import Program

CRELU, INTEGER, ADD = 1, 5, 10
"""Where some operations are in the plain program."""


def test_the_plain_program_returns(plain: Program) -> None:
    data = write_program(plain)
    assert read_program(data) == plain
    assert write_program(read_program(data)) == data
    assert len(data) % 4 == 0
    assert data[:8] == b"EKSPARSE"


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_random_programs_return(programs: ModuleType, dtype: str) -> None:
    for seed in range(25):
        program = programs.random_program(np.random.default_rng(seed), dtype=dtype)
        data = write_program(program)
        assert read_program(data) == program
        assert write_program(read_program(data)) == data


def test_the_documented_offsets(plain: Program) -> None:
    """The header and an operation, read by hand as the C++ engine reads them."""
    data = write_program(plain)
    assert struct.unpack_from("<8I", data, 24)[:6] == (2, 2, 3, 10, 13, 1)
    start, length = struct.unpack_from("<QQ", data, 48)
    assert (start % 64, start + length) == (0, len(data))
    at = 64 + 3 * 16 + 10 * 32 + CRELU * 128
    assert struct.unpack_from("<11I", data, at) == (2, 0, 0xFFFFFFFF, 1, 0, 3, 3, 2, 1, 1, 1)
    assert struct.unpack_from("<4f", data, at + 44) == (0.0, inf, 1.0, 1.0)
    weights, bias, multipliers, filters, *rest = struct.unpack_from("<3Q8I", data, at + 72)
    assert (filters, rest) == (3, [0] * 7)
    assert {offset % 64 for offset in (weights, bias, multipliers)} == {0}
    assert np.array_equal(np.frombuffer(data, "<f4", 81, start + weights), np.linspace(-1, 1, 81, dtype=np.float32))
    assert struct.unpack_from("<3I3Q", data, at + 128 + 60)[3:] == (multipliers + 64, multipliers + 128, 2**64 - 1)
    assert struct.unpack_from("<I", data, 64 + 3 * 16 + 10 * 32 + INTEGER * 128 + 8) == (3,)


def poke(form: str, at: int, *values: Any) -> Callable[[bytes], bytes]:
    """Other values at an offset, and the checksum that suits them."""

    def change(data: bytes) -> bytes:
        changed = bytearray(data)
        struct.pack_into(form, changed, at, *values)
        return with_checksum(bytes(changed))

    return change


LEVELS, TENSORS = 64, 64 + 3 * 16
OPERATIONS = TENSORS + 10 * 32
OUTPUTS = OPERATIONS + 13 * 128

DAMAGE: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("nothing", lambda data: b"", "expected at least 64 bytes, got 0"),
    ("cut header", lambda data: data[:63], "expected at least 64 bytes, got 63"),
    ("magic", lambda data: b"E" + data[:-1], "expected a file that begins with EKSPARSE, got"),
    ("version", poke("<I", 8, 2), r"expected version 1, got 2\.\nIt comes from another edgekit: pip install --upgrade"),
    ("truncated", lambda data: data[:-1], r"expected \d+ bytes, as its header says, got \d+\.\nThe file is damaged or"),
    ("longer", lambda data: data + b"\0", r"expected \d+ bytes, as its header says, got"),
    ("checksum", lambda data: data[:-1] + b"\xff", "expected the checksum [0-9a-f]{8}, as its header says, got"),
    ("count of levels", poke("<I", 32, 65), "expected 1..64 levels, got 65"),
    ("count of tensors", poke("<I", 36, 4097), "expected 1..4096 tensors, got 4097"),
    ("count of operations", poke("<I", 40, 0), "expected 1..4096 operations, got 0"),
    ("another count", poke("<I", 40, 400), r"expected constants at \d+, got \d+ in \d+ bytes"),
    ("start of constants", poke("<Q", 48, 64), r"expected constants at \d+, got 64"),
    ("length of constants", poke("<Q", 56, 64), r"expected \d+ bytes of constants up to the end, got 64"),
    ("masked", poke("<I", LEVELS + 8, 2), "level 0: expected 0 or 1 for masked, got 2"),
    ("reserved of a level", poke("<I", LEVELS + 12, 7), "level 0: expected 0 in reserved fields, got 7"),
    ("type", poke("<I", TENSORS + 8, 2), r"tensor 0: expected the type 0 \(float32\) or 1 \(uint8\), got 2"),
    ("reserved of a tensor", poke("<I", TENSORS + 28, 1), "tensor 0: expected 0 in reserved fields, got 1"),
    ("negative zero point", poke("<i", TENSORS + 3 * 32 + 16, -1), r"tensor 3: expected a zero point in 0\.\.255, got"),
    ("kind", poke("<I", OPERATIONS + 128, 12), r"operation 1: expected a kind in 1\.\.11, got 12"),
    ("flags", poke("<I", OPERATIONS + 128 + 40, 3), r"operation 1 \(CONV\): expected flags of 0 or 1, got 3"),
    ("reserved after anchors", poke("<I", OPERATIONS + 68, 1), r"operation 0 \(INPUT\): expected 0 in reserved fields"),
    ("reserved at the end", poke("<I", OPERATIONS + 124, 1), r"operation 0 \(INPUT\): expected 0 in reserved fields"),
    ("filters", poke("<I", OPERATIONS + 128 + 96, 32769), r"operation 1 \(CONV\): expected at most 32768 filters, got"),
    ("filters of others", poke("<I", OPERATIONS + 96, 1), r"operation 0 \(INPUT\): expected at most 0 filters, got 1"),
    ("no such input", poke("<I", OPERATIONS + 128 + 4, 99), r"operation 1 \(CONV\): input: expected one of 10 tensors"),
    ("no such output", poke("<I", OPERATIONS + 128 + 12, 99), r"operation 1 \(CONV\): output: expected one of 10 tens"),
    ("unaligned", poke("<Q", OPERATIONS + 128 + 72, 4), r"operation 1 \(CONV\): weights: expected an offset that is a"),
    ("outside", poke("<Q", OPERATIONS + 128 + 80, 1 << 40), r"operation 1 \(CONV\): bias: expected 24 bytes within th"),
    ("constants of ADD", poke("<Q", OPERATIONS + ADD * 128 + 72, 0), r"operation 10 \(ADD\): expected no weights, got"),
    ("reserved of an output", poke("<I", OUTPUTS + 60, 1), "output 0: expected 0 in reserved fields, got 1"),
    ("name", poke("<4s", OUTPUTS, b"\xff\0\0\0"), r"output 0: expected a name of 1\.\.32 printable ASCII characters"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), [entry[1:] for entry in DAMAGE], ids=[entry[0] for entry in DAMAGE])
def test_refuses_a_file(plain: Program, change: Callable[[bytes], bytes], message: str) -> None:
    data = change(write_program(plain))
    with pytest.raises(SparseProgramError, match=message):
        read_program(data)


def test_bytes_before_the_constants_are_zero(plain: Program) -> None:
    data = bytearray(write_program(plain))
    start = struct.unpack_from("<Q", data, 48)[0]
    assert start > OUTPUTS + 64  # the tables of the plain program do not fill up
    data[start - 1] = 1
    with pytest.raises(SparseProgramError, match="expected zeros before the constants, got other bytes"):
        read_program(with_checksum(bytes(data)))


@given(place=st.integers(0, 10**6), flip=st.integers(1, 255))
def test_a_flipped_byte_is_refused(plain: Program, place: int, flip: int) -> None:
    data = bytearray(write_program(plain))
    data[place % len(data)] ^= flip
    with pytest.raises(SparseProgramError):
        read_program(bytes(data))


@settings(max_examples=300)
@given(changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=3))
def test_a_forged_byte_is_refused_or_harmless(plain: Program, changes: list[tuple[int, int]]) -> None:
    """With a checksum that suits it: no other exception, and what is accepted can be written again."""
    data = bytearray(write_program(plain))
    for place, value in changes:
        data[place % len(data)] = value
    try:
        program = read_program(with_checksum(bytes(data)))
    except SparseProgramError:
        return
    assert read_program(write_program(program)) == program


@settings(max_examples=300)
@given(place=st.integers(0, OUTPUTS // 4 - 1), value=st.sampled_from([0, 1, 2, 3, 255, 2**31 - 1, 2**31, 2**32 - 1]))
def test_a_forged_number_is_refused_or_harmless(plain: Program, place: int, value: int) -> None:
    data = poke("<I", 4 * place, value)(write_program(plain))
    try:
        program = read_program(data)
    except SparseProgramError:
        return
    assert read_program(write_program(program)) == program

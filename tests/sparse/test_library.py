"""The C interface of the native engine, through ctypes."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import EngineError, SparseProgramError
from edgekit.sparse import library
from edgekit.sparse.format import VERSION, write_program
from edgekit.sparse.library import PIXELS, Region, newest_program, open_library
from edgekit.sparse.program import Program
from edgekit.sparse.reference import run_reference

if library.library_path(library.ENGINE) is None:
    pytest.skip("libedgekit.so is not built", allow_module_level=True)


def test_it_reads_the_format_that_this_edgekit_writes() -> None:
    assert newest_program(open_library()) == VERSION


def test_a_program_says_its_shapes_and_runs(plain: Program) -> None:
    region = Region(write_program(plain), threads=2)
    assert region.image_shape == (8, 8, 3)
    assert region.mask_shape == (2, 2)
    assert region.outputs == {"class_logits": (40, 4)}
    image = np.arange(192, dtype=np.uint8).reshape(8, 8, 3)
    mask, result = np.float32([[1, 0], [0, 1]]), np.full((40, 4), np.nan, np.float32)
    region.run(PIXELS, image.ctypes.data, mask.ctypes.data, [result.ctypes.data])
    expected = run_reference(plain, image, mask != 0)["class_logits"]
    np.testing.assert_allclose(result, expected, atol=1e-4)


def test_what_it_refuses(plain: Program) -> None:
    data = write_program(plain)
    with pytest.raises(SparseProgramError, match="fewer than its header"):
        Region(data[:10], threads=1)
    with pytest.raises(SparseProgramError, match="expected 1 to 256 threads"):
        Region(data, threads=0)
    image, result = np.zeros((8, 8, 3), np.uint8), np.zeros((40, 4), np.float32)
    with pytest.raises(EngineError, match="this program needs a mask"):
        Region(data, threads=1).run(PIXELS, image.ctypes.data, None, [result.ctypes.data])


def test_an_unknown_instruction_set(plain: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEKIT_ISA", "mmx")
    with pytest.raises(SparseProgramError, match=r"no kernels for the instruction set 'mmx'.*it can run: reference"):
        Region(write_program(plain), threads=1)

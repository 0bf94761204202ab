"""``libedgekit.so``, the native engine behind a C interface (``edgekit/native/c_api.h``), and the adapters beside it.

``edgekit_onnxruntime.so`` and ``edgekit_tflite.so`` bring it into other engines, which load them by path. All of them
are compiled when edgekit is installed and lie beside ``edgekit.sparse._native``; the environment variable
``EDGEKIT_ADAPTERS`` names another folder to take them from.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import EngineError, SparseProgramError

FOLDER_VARIABLE = "EDGEKIT_ADAPTERS"
"""Environment variable: the folder with the libraries."""

ENGINE = "libedgekit.so"

ABI_VERSION = 1
"""The functions that this file calls; a library may have more."""

REPAIR = "It is compiled when edgekit is installed. Repair it with: pip install --force-reinstall edgekit-vision"

PIXELS, PLANES = 0, 2
"""Layouts of an image: uint8 [H, W, C], and normalised float32 [C, H, W]."""


class _Image(ctypes.Structure):
    _fields_ = (("rows", ctypes.c_int), ("columns", ctypes.c_int), ("channels", ctypes.c_int))


class _Mask(ctypes.Structure):
    _fields_ = (("rows", ctypes.c_int), ("columns", ctypes.c_int))


class _Output(ctypes.Structure):
    _fields_ = (("name", ctypes.c_char_p), ("rows", ctypes.c_int), ("columns", ctypes.c_int))


def open_library(name: str = ENGINE) -> ctypes.CDLL:
    """The library ``name``, checked to be there, to be loadable and to be new enough for this edgekit.

    Raises:
        EngineError: it is not; the message says how to repair that.
    """
    path = library_path(name)
    if path is None:
        raise EngineError(f"there is no {name} in {' or '.join(map(str, _folders())) or 'this install'}.\n{REPAIR}")
    return _opened(path)


def library_path(name: str) -> Path | None:
    """Where the library ``name`` is; None if nowhere."""
    return next((folder / name for folder in _folders() if (folder / name).exists()), None)


def newest_program(library: ctypes.CDLL) -> int:
    """The newest version of the program format that ``library`` reads."""
    return int(library.edgekit_program_version())


class Region:
    """One program in ``libedgekit.so``, on memory that the caller owns."""

    def __init__(self, program: bytes | NDArray[np.uint8], *, threads: int) -> None:
        """Load ``program``, the content of a ``.sparse`` file, onto ``threads`` threads.

        Raises:
            EngineError: the library is absent or too old.
            SparseProgramError: it refuses the program or the number of threads.
        """
        self._library = open_library()
        self._handle = ctypes.c_void_p()
        content = np.frombuffer(program, np.uint8)
        isa = None  # the best, or what EDGEKIT_ISA says
        problem = self._library.edgekit_load(
            content.ctypes.data, content.size, threads, isa, ctypes.byref(self._handle)
        )
        if problem is not None:
            raise SparseProgramError(problem.decode())
        image, mask = self._library.edgekit_image(self._handle), self._library.edgekit_mask(self._handle)
        self.image_shape: tuple[int, int, int] = (image.rows, image.columns, image.channels)
        """Rows, columns and channels of the image."""
        self.mask_shape: tuple[int, int] | None = (mask.rows, mask.columns) if mask.rows else None
        """Rows and columns of the mask; None if the program takes none."""
        outputs = [
            self._library.edgekit_output_at(self._handle, index)
            for index in range(self._library.edgekit_output_count(self._handle))
        ]
        self.outputs: dict[str, tuple[int, int]] = {
            output.name.decode(): (output.rows, output.columns) for output in outputs
        }
        """Name of each output -> its rows and columns."""
        self._pointers = (ctypes.c_void_p * len(outputs))()

    def run(self, layout: int, image: int, mask: int | None, outputs: list[int]) -> None:
        """Run once. Everything but ``layout`` is the address of contiguous memory of the right size and type.

        Raises:
            EngineError: it failed.
        """
        for index, address in enumerate(outputs):
            self._pointers[index] = address
        problem = self._library.edgekit_run(self._handle, layout, image, mask, self._pointers)
        if problem is not None:
            raise EngineError(problem.decode())

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._library.edgekit_free(self._handle)


def _folders() -> list[Path]:
    """Where libraries can be, best first."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return [Path(named)]
    module = importlib.util.find_spec("edgekit.sparse._native")
    return [Path(module.origin).parent] if module is not None and module.origin is not None else []


@functools.cache
def _opened(path: Path) -> ctypes.CDLL:
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise EngineError(f"{path} cannot be loaded: {error}\n{REPAIR}") from error
    try:
        version = library.edgekit_abi_version()
    except AttributeError:
        version = 0
    if version < ABI_VERSION:
        raise EngineError(
            f"{path} is too old for this edgekit: expected version {ABI_VERSION} of its interface, got {version}.\n"
            + REPAIR
        )
    _declare(library)
    return library


def _declare(library: ctypes.CDLL) -> None:
    """Arguments and results of the functions, as in c_api.h."""
    handle = ctypes.c_void_p
    functions: dict[str, tuple[Any, list[Any]]] = {
        "edgekit_program_version": (ctypes.c_uint32, []),
        "edgekit_load": (
            ctypes.c_char_p,
            [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(handle)],
        ),
        "edgekit_free": (None, [handle]),
        "edgekit_image": (_Image, [handle]),
        "edgekit_mask": (_Mask, [handle]),
        "edgekit_output_count": (ctypes.c_int, [handle]),
        "edgekit_output_at": (_Output, [handle, ctypes.c_int]),
        "edgekit_run": (
            ctypes.c_char_p,
            [handle, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p)],
        ),
    }
    for name, (result, arguments) in functions.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments

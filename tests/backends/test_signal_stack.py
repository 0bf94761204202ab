"""Engines that come and go leave signals working."""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from edgekit.backends.signal_stack import kept_signal_stack

TWO_ENGINES = """
import signal, sys
from pathlib import Path
from edgekit.backends import load_engine
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts in the background ignores it
engines = [load_engine("openvino", Path(sys.argv[1]), threads=1) for _ in range(2)]
engines.pop(0)
engines.pop(0)
try:
    signal.raise_signal(signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sigaltstack as Linux has it")
def test_another_stack_is_replaced_by_the_old_one() -> None:
    libc, room = ctypes.CDLL(None), ctypes.create_string_buffer(1 << 17)

    class Stack(ctypes.Structure):
        _fields_ = (("pointer", ctypes.c_void_p), ("flags", ctypes.c_int), ("bytes", ctypes.c_size_t))

    def current() -> tuple[int | None, int]:
        found = Stack()
        libc.sigaltstack(None, ctypes.byref(found))
        return found.pointer, found.flags

    def replaces() -> None:
        with kept_signal_stack():
            libc.sigaltstack(ctypes.byref(Stack(ctypes.addressof(room), 0, len(room))), None)
            assert current() == (ctypes.addressof(room), 0)
            raise RuntimeError("inside")

    before = current()
    with pytest.raises(RuntimeError, match="inside"):
        replaces()
    assert current() == before


def test_ctrl_c_after_openvino_engines_is_no_crash(tiny: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs openvino")
    graph = tiny.onnx_omg(tmp_path / "omg.onnx")
    for options in ([], ["-X", "faulthandler"]):  # which has a signal stack of its own
        command = [sys.executable, *options, "-c", TWO_ENGINES, str(graph)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr

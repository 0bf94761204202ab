"""The C++ tests of the engine's kernels, built with CMake and run on this processor."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def call(*command: str | Path) -> str:
    """What ``command`` prints; its whole output is the failure's message if it fails."""
    words = [str(word) for word in command]
    result = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert result.returncode == 0, result.stdout[-4000:]
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the test programs."""
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: apt-get install cmake g++")
    folder = tmp_path_factory.mktemp("native")
    call("cmake", "-S", ROOT, "-B", folder, "-DEDGEKIT_TESTS=ON", "-DCMAKE_CXX_FLAGS=-Werror")
    call("cmake", "--build", folder, "--parallel", "2", "--target", "kernel_test", "run_program", "two_stage_test")
    return folder / "tests" / "native"


@pytest.mark.slow
def test_every_kernel_equals_the_reference(built: Path) -> None:
    printed = call(built / "kernel_test")
    assert "reference: " in printed
    assert all(" 0 differ" in line for line in printed.splitlines()[1:])


@pytest.mark.slow
def test_the_steps_around_two_stages_equal_plain_loops(built: Path) -> None:
    assert " 0 differ" in call(built / "two_stage_test")


@pytest.mark.slow
def test_random_programs_without_python(built: Path, tmp_path: Path) -> None:
    call(sys.executable, ROOT / "tests" / "native" / "write_programs.py", tmp_path, "10")
    files = sorted(tmp_path.glob("*.sparse"))
    assert len(files) == 20
    for file in files:
        call(built / "run_program", file, "--threads", "2")

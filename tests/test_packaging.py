"""What leaves the house: the sdist, the wheel built from that sdist, and the metadata they carry."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.programs import FOLDERS

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from the sdist of this checkout, without isolation: no download."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return path


def expected_files() -> Iterator[str]:
    """Every file of the package and of the program folders, by its path in the wheel."""
    for folder, home in [("edgekit", "edgekit"), *((name, f"edgekit/_programs/{name}") for name in FOLDERS)]:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                yield f"{home}/{path.relative_to(ROOT / folder).as_posix()}"


@pytest.mark.slow
def test_the_wheel_carries_the_package_and_the_programs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == set(expected_files())
    assert "edgekit/py.typed" in packed
    information = next(name.partition("/")[0] for name in names if ".dist-info/" in name)
    assert {f"{information}/licenses/LICENSE", f"{information}/licenses/NOTICE"} <= names


@pytest.mark.slow
def test_the_wheel_runs_on_any_python_3_machine(wheel: Path) -> None:
    assert wheel.name == f"edgekit_vision-{PROJECT['version']}-py3-none-any.whl"


@pytest.mark.slow
def test_an_unpacked_wheel_finds_its_own_programs(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    # -S and the environment's packages by path: an editable install's finder, set up by its .pth file, would win.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), sysconfig.get_path("purelib")])}
    for arguments in (["boards", "--json"], ["train", "--help"]):
        command = [sys.executable, "-S", "-m", "edgekit.cli", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    code = "from edgekit.programs import find_folder; print(find_folder('boards'))"
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "edgekit" / "_programs" / "boards")


def test_the_runtime_stays_light() -> None:
    assert {re.split(r"[<>=]", line)[0] for line in PROJECT["dependencies"]} == {
        "numpy",
        "opencv-python-headless",
        "click",
    }


def test_extras_are_named_after_goals() -> None:
    assert set(EXTRAS) == {"train", "export", "tflite", "tensorflow", "openvino", "onnx", "demo", "test"}


def test_every_torch_is_capped() -> None:
    lines = [line for extra in EXTRAS.values() for line in extra if re.match(r"torch\b", line)]
    assert set(lines) == {"torch>=2.4,<2.14"}


def test_every_extra_that_an_error_quotes_exists() -> None:
    quoted = re.compile(r"MissingDependencyError\(\s*(?:package=)?\"[\w.-]+\",\s*(?:extra=)?\"(\w+)\"")
    found = {extra for path in (ROOT / "edgekit").rglob("*.py") for extra in quoted.findall(path.read_text())}
    assert found <= set(EXTRAS)

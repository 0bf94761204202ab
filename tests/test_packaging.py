"""What leaves the house: the sdist, the wheel built from that sdist, and the metadata they carry."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit.programs import FOLDERS

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

SOURCES = "edgekit/native"
"""C++, which a wheel carries compiled."""

MODULE = f"edgekit/sparse/_native{sysconfig.get_config_var('EXT_SUFFIX')}"
LIBRARIES = [f"edgekit/sparse/{name}.so" for name in ("libedgekit", "edgekit_onnxruntime", "edgekit_tflite")]
"""What is made of them: the Python module, the same for C, and the adapters of other engines."""

OPENVINO_SOURCES = ("edgekit/sparse/c_api.h", "edgekit/sparse/adapters/openvino.cpp")
"""OpenVINO's adapter fits one release of it, so it is compiled where it runs."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist of this checkout and a wheel built from it, without isolation: no download."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("*.whl")
    return path


def expected_files() -> Iterator[str]:
    """Every file of the package and of the program folders, by its path in the wheel."""
    yield from (MODULE, *LIBRARIES, *OPENVINO_SOURCES)
    for folder, home in [("edgekit", "edgekit"), *((name, f"edgekit/_programs/{name}") for name in FOLDERS)]:
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts and ROOT / SOURCES not in path.parents:
                yield f"{home}/{path.relative_to(ROOT / folder).as_posix()}"


@pytest.mark.slow
def test_the_sdist_carries_what_the_kernels_are_made_from(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {str(path.relative_to(ROOT)) for path in (ROOT / SOURCES).rglob("*") if path.is_file()} <= names
    assert {"CMakeLists.txt", "pyproject.toml", "edgekit/sparse/_native.pyi"} <= names
    assert [name for name in names if name.endswith(".so")] == []


@pytest.mark.slow
def test_the_wheel_carries_the_package_and_the_programs(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packed = {name for name in names if ".dist-info/" not in name}
    assert packed == set(expected_files())
    assert "edgekit/py.typed" in packed
    information = next(name.partition("/")[0] for name in names if ".dist-info/" in name)
    assert {f"{information}/licenses/LICENSE", f"{information}/licenses/NOTICE"} <= names


@pytest.mark.slow
def test_the_wheel_is_for_this_python_and_this_kind_of_machine(wheel: Path) -> None:
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    platform = re.sub(r"[-.]", "_", sysconfig.get_platform())
    assert wheel.name == f"edgekit_vision-{PROJECT['version']}-{python}-{python}-{platform}.whl"


@pytest.mark.slow
def test_an_unpacked_wheel_finds_its_own_programs(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    # -S and the environment's packages by path: an editable install's finder, set up by its .pth file, would win.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), sysconfig.get_path("purelib")])}

    def run(*arguments: str) -> str:
        command = [sys.executable, "-S", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    for arguments in (["boards", "--json"], ["train", "--help"]):
        run("-m", "edgekit.cli", *arguments)
    folder = run("-c", "from edgekit.programs import find_folder; print(find_folder('boards'))")
    assert folder == str(tmp_path / "edgekit" / "_programs" / "boards")
    code = "from edgekit.sparse import _native; print(_native.__file__, *_native.instruction_sets())"
    module, *instruction_sets = run("-c", code).split()
    assert module == str(tmp_path / MODULE)
    assert instruction_sets[0] == "reference"


def test_the_runtime_stays_light() -> None:
    assert {re.split(r"[<>=]", line)[0] for line in PROJECT["dependencies"]} == {
        "numpy",
        "pillow",
        "click",
    }


def test_extras_are_named_after_goals() -> None:
    engines = {"tflite", "tensorflow", "openvino", "onnx"}
    assert set(EXTRAS) == engines | {"train", "segment", "export", "camera", "demo", "mqtt", "view", "metrics", "test"}


def test_every_torch_is_capped() -> None:
    lines = [line for extra in EXTRAS.values() for line in extra if re.match(r"torch\b", line)]
    assert set(lines) == {"torch>=2.4,<2.14"}


def test_every_extra_that_an_error_quotes_exists() -> None:
    quoted = re.compile(r"MissingDependencyError\(\s*(?:package=)?\"[\w.-]+\",\s*(?:extra=)?\"(\w+)\"")
    found = {extra for path in (ROOT / "edgekit").rglob("*.py") for extra in quoted.findall(path.read_text())}
    assert found <= set(EXTRAS)

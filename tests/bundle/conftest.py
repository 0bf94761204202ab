"""A bundle made once, and copies of it to damage."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgekit.backends import engine_problem


@pytest.fixture(scope="session", autouse=True)
def _tools() -> None:
    """Skips where a bundle cannot be made."""
    pytest.importorskip("onnxruntime", reason="the tiny bundle runs on onnxruntime")
    pytest.importorskip("onnx", reason="the tiny bundle is made with onnx")


@pytest.fixture(scope="session")
def good(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good bundle; do not change it."""
    path: Path = tiny.write_bundle(tmp_path_factory.mktemp("good") / "tiny.edgekit")
    return path


@pytest.fixture(scope="session")
def good_zip(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as a zip; do not change it."""
    path: Path = tiny.write_bundle(tmp_path_factory.mktemp("good_zip") / "tiny.edgekit", zipped=True)
    return path


@pytest.fixture(scope="session")
def both(tiny: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good bundle with sparse programs beside its dense graphs, and a break-even; do not change it."""
    if problem := engine_problem("native"):
        pytest.skip(str(problem).splitlines()[0])
    break_even = {"cpu": "AMD EPYC", "threads": 2, "engine": "onnxruntime", "share": 0.83}
    folder = tmp_path_factory.mktemp("both")
    path: Path = tiny.write_bundle(folder / "tiny.edgekit", programs=True, break_even=break_even)
    return path


@pytest.fixture
def bundle(good: Path, tmp_path: Path) -> Path:
    """A copy of the good bundle."""
    return Path(shutil.copytree(good, tmp_path / "tiny.edgekit"))


@pytest.fixture
def edit(bundle: Path) -> Callable[[Callable[[dict[str, Any]], Any]], None]:
    """Change ``bundle.json`` of :func:`bundle` with a function."""

    def apply(change: Callable[[dict[str, Any]], Any]) -> None:
        path = bundle / "bundle.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return apply


@pytest.fixture
def replace(bundle: Path, edit: Callable[[Callable[[dict[str, Any]], Any]], None]) -> Callable[[str, bytes], None]:
    """Change a file of :func:`bundle`, and its hash in ``bundle.json`` with it."""

    def apply(name: str, data: bytes) -> None:
        (bundle / name).write_bytes(data)
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        edit(lambda document: document["files"].update({name: entry}))

    return apply

"""Fixtures that every test may use."""

from __future__ import annotations

import importlib.util
import socket
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _folder_or_skip(path: Path) -> Path:
    if not path.is_dir():
        pytest.skip(
            f"needs the development data in {path.relative_to(ROOT.parent)}, beside the checkout, which is absent"
        )
    return path


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder ``shared`` beside the checkout: data sets, clips and starting weights. Skips where it is absent."""
    return _folder_or_skip(ROOT.parent / "shared")


@pytest.fixture(scope="session")
def voc07(shared: Path) -> Path:
    """VOC2007 photographs: 20 classes, 3452 train and 500 val images, COCO JSON."""
    return _folder_or_skip(shared / "data" / "voc07")


@pytest.fixture(scope="session")
def pets09(shared: Path) -> Path:
    """One fixed-camera clip with boxes of persons on each frame."""
    return _folder_or_skip(shared / "data" / "fixedcam_pets09")


@pytest.fixture(scope="session")
def tiny() -> ModuleType:
    """``tests/tiny.py``: makes a detector of two convolutions in every graph format, and bundles of it."""
    return _beside("tiny")


@pytest.fixture(scope="session")
def tiny_detr() -> ModuleType:
    """``tests/tiny_detr.py``: a Sparse DETR in miniature and what it says of a picture."""
    return _beside("tiny_detr")


@pytest.fixture(scope="session")
def tiny_tcl() -> ModuleType:
    """``tests/tiny_tcl.py``: TCL models in miniature."""
    return _beside("tiny_tcl")


@pytest.fixture(scope="session")
def finder_checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tcl: ModuleType) -> Path:
    """A checkpoint of the TCL model that finds what ``tiny_tcl.drawn`` draws; made in some seconds."""
    from edgekit.models.tcl.checkpoint import TclCheckpoint, save_tcl

    path = tmp_path_factory.mktemp("finder") / "best.pt"
    save_tcl(path, TclCheckpoint(model=tiny_tcl.finder(), provenance={"training_data": "drawn scenes"}))
    return path


@pytest.fixture(scope="session")
def word_bundle(finder_checkpoint: Path, tiny_tcl: ModuleType) -> Path:
    """The same as a bundle of onnxruntime that looks for both, in an input of 96x128."""
    pytest.importorskip("onnx", reason="the bundle is made with onnx, which the extra [export] brings")
    pytest.importorskip("onnxruntime", reason="the bundle runs on onnxruntime, which the extra [onnx] brings")
    from click.testing import CliRunner

    from edgekit.cli import main

    path = finder_checkpoint.parent / "words.edgekit"
    arguments = ["export", "tcl", finder_checkpoint, "--prompts", ", ".join(tiny_tcl.FOUND), "--imgsz", "96x128"]
    options = ["--format", "onnx", "--clip-share", "0", "--background", "0.5", "--threads", "1", "-o", path]
    done = CliRunner().invoke(main, [str(argument) for argument in (*arguments, *options)])
    assert done.exit_code == 0, done.output
    return path


@pytest.fixture(scope="session")
def tiny_yolox() -> ModuleType:
    """``tests/tiny_yolox.py``: writes a YOLOX in miniature as ncnn files."""
    return _beside("tiny_yolox")


@pytest.fixture(scope="session")
def programs() -> ModuleType:
    """``tests/sparse/programs.py``: random sparse programs, and inputs for them."""
    return _beside("sparse/programs")


@pytest.fixture(scope="session")
def single() -> ModuleType:
    """``tests/sparse/single.py``: programs of one operation."""
    return _beside("sparse/single")


def _beside(name: str) -> ModuleType:
    """The module ``tests/NAME.py``, which no test imports by name: the tests are no package."""
    specification = importlib.util.spec_from_file_location(Path(name).name, ROOT / "tests" / f"{name}.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches out of this machine fails, whatever the weather; loopback and Unix sockets are fine."""
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, _only_local(getattr(socket.socket, name)))


def _only_local(connect: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        host = address[0] if isinstance(address, tuple) else None
        if host not in (None, "localhost", "::1") and not str(host).startswith("127."):
            raise RuntimeError(f"a test tried to connect to {address}: tests must not need the network")
        return connect(self, address)

    return guarded

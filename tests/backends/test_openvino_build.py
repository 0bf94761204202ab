"""OpenVINO's extension: compiled where it runs, once, or not at all."""

from __future__ import annotations

import logging
import shutil
import stat
from pathlib import Path

import pytest

from edgekit.backends.openvino_build import COMPILERS, extension
from edgekit.sparse import library

openvino = pytest.importorskip("openvino")
if library.library_path(library.ENGINE) is None:
    pytest.skip("the native engine is not built", allow_module_level=True)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of the test's own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("CXX", raising=False)
    return tmp_path / "home"


@pytest.mark.skipif(not any(map(shutil.which, COMPILERS)), reason="needs a C++ compiler")
def test_it_is_compiled_once(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="edgekit"):
        built = extension(openvino)
        assert built == extension(openvino)
    assert built is not None
    assert built.is_relative_to(home / ".cache/edgekit/openvino")
    assert list(built.parent.iterdir()) == [built]
    assert [record.getMessage() for record in caplog.records] == [f"compiling the OpenVINO extension, once: {built}"]
    openvino.Core().add_extension(str(built))


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("edgekit.backends.openvino_build.COMPILERS", ())
    with caplog.at_level(logging.INFO, logger="edgekit"):
        assert extension(openvino) is None
    assert "there is no C++ compiler" in caplog.text


def test_with_a_compiler_that_fails(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text("#!/bin/sh\necho no such header >&2\nexit 3\n")
    compiler.chmod(compiler.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("CXX", str(compiler))
    with caplog.at_level(logging.INFO, logger="edgekit"):
        assert extension(openvino) is None
    assert "ended with 3: no such header" in caplog.text
    assert list(home.rglob("*.so")) == []

"""Writing bundles: a whole one or none."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgekit.bundle import BundleWriter, open_bundle
from edgekit.errors import BundleError, BundlePathError, StorageError, UsageError


@pytest.fixture
def manifest(tiny: ModuleType) -> dict[str, Any]:
    """A manifest for the files that :func:`fill` writes."""
    tolerance = {"objectness": 0, "mask_cells": 0, "score": 0, "box_px": 0}
    golden = {"input": "in.png", "output": "out.json", "tolerance": tolerance}
    document: dict[str, Any] = tiny.manifest(golden=golden)
    return document


def fill(writer: BundleWriter, omg: bytes = b"omg") -> None:
    for name, data in {"omg.onnx": omg, "detector.onnx": b"detector", "in.png": b"", "out.json": b"{}"}.items():
        writer.add_bytes(name, data)


def write(
    path: Path,
    manifest: dict[str, Any],
    *,
    omg: bytes = b"omg",
    overwrite: bool = False,
    error: BaseException | None = None,
    **changes: Any,
) -> None:
    """Write a bundle; ``error`` is raised in the middle."""
    with BundleWriter(path, overwrite=overwrite) as writer:
        fill(writer, omg)
        if error is not None:
            raise error
        writer.finish({**manifest, **changes})


def contents(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("zipped", [False, True])
def test_what_is_written_can_be_opened(tmp_path: Path, manifest: dict[str, Any], zipped: bool) -> None:
    path = tmp_path / "deep" / "new.edgekit"
    with BundleWriter(path, zipped=zipped) as writer:
        fill(writer)
        assert contents(path.parent) == [writer.folder.name]  # nothing that looks like a bundle so far
        assert writer.folder.name.startswith(".new.edgekit.")
        assert writer.finish(manifest).name == "tiny"
    assert contents(path.parent) == ["new.edgekit"]
    assert path.is_file() == zipped
    assert open_bundle(path).graph("omg").read_bytes() == b"omg"


def test_others_may_read_it(tmp_path: Path, manifest: dict[str, Any]) -> None:
    with BundleWriter(tmp_path / "x.edgekit") as writer:
        fill(writer)
        writer.finish(manifest)
    assert (tmp_path / "x.edgekit").stat().st_mode & 0o777 == 0o755


def test_equal_content_gives_equal_zips(tmp_path: Path, manifest: dict[str, Any]) -> None:
    for name in ("a", "b"):
        with BundleWriter(tmp_path / name, zipped=True) as writer:
            fill(writer)
            writer.finish(manifest)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_files_are_copied_and_folders_made(tmp_path: Path, manifest: dict[str, Any]) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"content")
    with BundleWriter(tmp_path / "x.edgekit") as writer:
        fill(writer)
        writer.add_file("extra/copy.bin", source)
        writer.path("extra/made.txt").write_text("made")
        writer.finish(manifest)
    bundle = open_bundle(tmp_path / "x.edgekit")
    assert bundle.file("extra/copy.bin").read_bytes() == b"content"
    assert bundle.file("extra/made.txt").read_text() == "made"


def test_paths_cannot_lead_outside(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "x.edgekit") as writer, pytest.raises(BundlePathError, match="the new bundle"):
        writer.add_bytes("../evil", b"")
    assert contents(tmp_path) == []


@pytest.mark.parametrize("error", [RuntimeError("gate"), KeyboardInterrupt()])
def test_nothing_is_left_when_the_work_fails(tmp_path: Path, manifest: dict[str, Any], error: BaseException) -> None:
    with pytest.raises(type(error)):
        write(tmp_path / "x.edgekit", manifest, error=error)
    assert contents(tmp_path) == []


def test_nothing_is_left_without_finish(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "x.edgekit") as writer:
        fill(writer)
    assert contents(tmp_path) == []


def test_a_manifest_that_cannot_be_read_is_not_written(tmp_path: Path, manifest: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="precision must be one of"):
        write(tmp_path / "x.edgekit", manifest, precision="int4")
    assert contents(tmp_path) == []


def test_not_a_number_is_not_written(tmp_path: Path, manifest: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="infinite number"):
        write(tmp_path / "x.edgekit", manifest, parity={"box": float("nan")})


# What is there already


@pytest.fixture
def old(tmp_path: Path, manifest: dict[str, Any]) -> Path:
    """An older bundle."""
    with BundleWriter(tmp_path / "x.edgekit") as writer:
        fill(writer, omg=b"old")
        writer.finish(manifest)
    return tmp_path / "x.edgekit"


def test_it_does_not_overwrite(old: Path) -> None:
    with pytest.raises(
        UsageError, match=r"x\.edgekit exists already; choose another name with -o, or pass --overwrite"
    ):
        BundleWriter(old)


@pytest.mark.parametrize("zipped", [False, True])
def test_it_overwrites_on_request(old: Path, manifest: dict[str, Any], zipped: bool) -> None:
    for _ in range(2):  # first over a folder, then over what came of it
        with BundleWriter(old, overwrite=True, zipped=zipped) as writer:
            fill(writer, omg=b"new")
            assert (old / "omg.onnx").exists() or old.is_file()
            writer.finish(manifest)
        assert open_bundle(old).graph("omg").read_bytes() == b"new"
        assert contents(old.parent) == ["x.edgekit"]


def test_the_old_one_survives_a_failure(old: Path, manifest: dict[str, Any]) -> None:
    with pytest.raises(BundleError, match="threads"):
        write(old, manifest, omg=b"new", overwrite=True, threads=0)
    assert open_bundle(old).graph("omg").read_bytes() == b"old"
    assert contents(old.parent) == ["x.edgekit"]


def test_the_old_one_comes_back_if_the_last_step_fails(
    old: Path, manifest: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial"):
            raise OSError(errno.EACCES, "Permission denied")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(StorageError, match="cannot be written: Permission denied"):
        write(old, manifest, omg=b"new", overwrite=True)
    assert open_bundle(old).graph("omg").read_bytes() == b"old"
    assert contents(old.parent) == ["x.edgekit"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_it_never_replaces_what_is_no_bundle(tmp_path: Path, old: Path, kind: str) -> None:
    target = tmp_path / "precious"
    if kind == "folder":
        target.mkdir()
        (target / "photo.jpg").touch()
    elif kind == "file":
        target.write_bytes(b"PK\x03\x04 but no zip")
    else:
        target.symlink_to(old)
    with pytest.raises(UsageError, match="is not a bundle, so it is not replaced"):
        BundleWriter(target, overwrite=True)
    assert target.exists()


def test_a_checkpoint_is_a_zip_but_no_bundle(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "best.pt", "w") as archive:
        archive.writestr("best/data.pkl", b"")
    with pytest.raises(UsageError, match="is not a bundle"):
        BundleWriter(tmp_path / "best.pt", overwrite=True)


def test_an_empty_folder_may_be_replaced(tmp_path: Path, manifest: dict[str, Any]) -> None:
    (tmp_path / "empty").mkdir()
    with BundleWriter(tmp_path / "empty", overwrite=True) as writer:
        fill(writer)
        writer.finish(manifest)
    open_bundle(tmp_path / "empty")


@pytest.mark.parametrize("path", ["", "/", "."])
def test_a_path_without_a_name(path: str) -> None:
    with pytest.raises(UsageError, match="cannot be the path of a bundle"):
        BundleWriter(path)


# Full disks


def test_an_exporter_s_full_disk_is_a_storage_error(tmp_path: Path, manifest: dict[str, Any]) -> None:
    error = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(StorageError, match=r"x\.edgekit cannot be written: No space left on device\nNothing was left"):
        write(tmp_path / "x.edgekit", manifest, error=error)
    assert contents(tmp_path) == []


def test_an_exporter_s_other_errors_are_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), BundleWriter(tmp_path / "x.edgekit"):
        raise FileNotFoundError(errno.ENOENT, "No such file")


LIMITED = """
import resource, signal, sys
from pathlib import Path
from edgekit.bundle import BundleWriter
from edgekit.errors import StorageError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    with BundleWriter(Path(sys.argv[1])) as writer:
        writer.add_bytes("detector.onnx", bytes(1 << 20))
except StorageError as error:
    print(error)
"""


def test_a_real_limit_of_the_file_system(tmp_path: Path) -> None:
    """As a full disk, but without one: the kernel refuses the bytes after 64 KiB."""
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", LIMITED, str(tmp_path / "x.edgekit")]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "cannot be written: File too large" in done.stdout
    assert contents(tmp_path) == []


def test_a_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot be written"), BundleWriter(tmp_path / "file" / "x.edgekit"):
        pass


def test_a_source_that_is_missing(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"cannot be written: No such file"),
        BundleWriter(tmp_path / "x.edgekit") as writer,
    ):
        writer.add_file("omg.onnx", tmp_path / "absent")
    assert contents(tmp_path) == []

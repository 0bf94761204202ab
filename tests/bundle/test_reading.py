"""Opening bundles as folders and as zips: everything wrong with them is found before anything is loaded."""

from __future__ import annotations

import gc
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.bundle import Bundle, open_bundle
from edgekit.errors import BundleError, BundleIntegrityError, BundlePathError, StorageError

SLOW = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
Edit = Callable[[Callable[[dict[str, Any]], Any]], None]


def entries(path: Path) -> dict[str, bytes]:
    """The files of a zip."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path: Path, files: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


# Folders


def test_a_good_folder(good: Path) -> None:
    bundle = open_bundle(good)
    assert bundle.root == bundle.path == good
    assert bundle.graph("omg") == good / "omg.onnx"
    assert bundle.file("golden_input.png").is_file()


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"there is no bundle at .*absent: No such file"):
        open_bundle(tmp_path / "absent")
    with pytest.raises(BundleError, match="cannot be the path of a bundle"):
        open_bundle("a\0b")


def test_neither_a_folder_nor_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BundleError, match="neither a folder nor a file"):
        open_bundle(tmp_path / "pipe")


def test_a_folder_without_a_manifest(tmp_path: Path) -> None:
    with pytest.raises(BundleIntegrityError, match=r"has no bundle\.json, so it is no bundle(?s:.)*edgekit export"):
        open_bundle(tmp_path)


def test_a_missing_file(bundle: Path) -> None:
    (bundle / "omg.onnx").unlink()
    with pytest.raises(BundleIntegrityError, match=r"omg\.onnx is missing from the bundle"):
        open_bundle(bundle)


def test_a_file_that_is_not_listed(bundle: Path) -> None:
    (bundle / "weights.bin").write_bytes(b"x")
    with pytest.raises(BundleIntegrityError, match=r"'weights\.bin' is in the bundle .* but not listed"):
        open_bundle(bundle)


def test_what_a_file_manager_leaves_is_ignored(bundle: Path) -> None:
    (bundle / ".DS_Store").write_bytes(b"x")
    open_bundle(bundle)


def test_far_too_many_files(bundle: Path) -> None:
    for i in range(100):
        (bundle / str(i)).touch()
    with pytest.raises(BundleIntegrityError, match="holds more than 64 files"):
        open_bundle(bundle)


@pytest.mark.parametrize("name", ["omg.onnx", "golden_output.json", "golden_input.png"])
def test_every_truncation_is_found(bundle: Path, name: str) -> None:
    data = (bundle / name).read_bytes()
    (bundle / name).write_bytes(data[:-1])
    with pytest.raises(
        BundleIntegrityError, match=f"{name} has {len(data) - 1} bytes where bundle.json says {len(data)}"
    ):
        open_bundle(bundle)
    (bundle / name).write_bytes(data + b"x")
    with pytest.raises(BundleIntegrityError, match=f"{name} has more than {len(data)} bytes"):
        open_bundle(bundle)


def test_a_changed_byte_is_found(bundle: Path) -> None:
    data = bytearray((bundle / "detector.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / "detector.onnx").write_bytes(data)
    with pytest.raises(BundleIntegrityError, match=r"detector\.onnx does not match its hash in bundle\.json \(sha256"):
        open_bundle(bundle)


def test_a_truncated_manifest(bundle: Path) -> None:
    text = (bundle / "bundle.json").read_bytes()
    for length in range(0, len(text) - 2, 97):
        (bundle / "bundle.json").write_bytes(text[:length])
        with pytest.raises(BundleError, match=r"bundle\.json is not valid JSON"):
            open_bundle(bundle)


def test_a_huge_manifest(bundle: Path) -> None:
    (bundle / "bundle.json").write_bytes(b" " * (5 << 20))
    with pytest.raises(BundleIntegrityError, match=r"bundle\.json is larger than \d+ bytes"):
        open_bundle(bundle)


def test_a_path_that_leads_outside(bundle: Path, edit: Edit) -> None:
    (bundle.parent / "outside.onnx").write_bytes(b"secret")
    edit(lambda document: document["graphs"].update(omg="../outside.onnx"))
    with pytest.raises(BundlePathError, match=r"graphs\.omg: the path '\.\./outside\.onnx' leads outside"):
        open_bundle(bundle)


@pytest.mark.parametrize("target", ["outside", "omg.onnx"])
def test_a_symbolic_link(bundle: Path, target: str) -> None:
    (bundle / "detector.onnx").unlink()
    (bundle / "detector.onnx").symlink_to(target)
    with pytest.raises(BundlePathError, match=r"detector\.onnx in the bundle .* is a symbolic link"):
        open_bundle(bundle)


def test_a_linked_folder(bundle: Path, tmp_path: Path) -> None:
    (bundle / "more").symlink_to(tmp_path)
    with pytest.raises(BundlePathError, match=r"more in the bundle .* is a symbolic link"):
        open_bundle(bundle)


def test_a_pipe_in_a_bundle_is_not_opened(bundle: Path) -> None:
    (bundle / "omg.onnx").unlink()
    os.mkfifo(bundle / "omg.onnx")
    with pytest.raises(BundlePathError, match=r"omg\.onnx in the bundle .* is neither a file nor a folder"):
        open_bundle(bundle)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(bundle: Path) -> None:
    (bundle / "omg.onnx").chmod(0)
    with pytest.raises(BundleIntegrityError, match=r"omg\.onnx in the bundle cannot be read: Permission denied"):
        open_bundle(bundle)


# Zips


def test_a_good_zip_is_unpacked_and_cleaned_up(good_zip: Path) -> None:
    bundle: Bundle | None = open_bundle(good_zip)
    assert bundle is not None
    root = bundle.root
    assert bundle.path == good_zip
    assert bundle.graph("detector").read_bytes() == entries(good_zip)["detector.onnx"]
    del bundle
    gc.collect()
    assert not root.exists()


def test_a_bad_zip_leaves_nothing_behind(good_zip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    files = entries(good_zip)
    files["omg.onnx"] = bytes(len(files["omg.onnx"]))
    with pytest.raises(BundleIntegrityError, match=r"omg\.onnx does not match its hash"):
        open_bundle(write_zip(tmp_path / "bad.edgekit", files))
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "x.edgekit").write_text("hello")
    with pytest.raises(BundleIntegrityError, match="is no zip file, or a damaged one"):
        open_bundle(tmp_path / "x.edgekit")


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "C:/evil", "..\\evil", "a\0b"])
def test_zip_slip(good_zip: Path, tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "x.edgekit", entries(good_zip))
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("placeholder")
        info.filename = info.orig_filename = name
        archive.writestr(info, b"evil")
    with pytest.raises(BundlePathError, match="the zip: the path"):
        open_bundle(path)
    assert not (tmp_path / "evil").exists()


def test_an_entry_without_a_name(good_zip: Path, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.edgekit", {**entries(good_zip), "x": b""})
    data = bytearray(path.read_bytes())
    entry = data.rindex(b"PK\1\2")  # the directory's: the one letter of its name becomes its extra field
    data[entry + 28 : entry + 32] = b"\0\0\1\0"
    path.write_bytes(data)
    with pytest.raises(BundlePathError, match="the path '' has an empty part"):
        open_bundle(path)


def test_a_link_in_a_zip(good_zip: Path, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.edgekit", entries(good_zip))
    with zipfile.ZipFile(path, "a") as archive:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, b"/etc/passwd")
    with pytest.raises(BundlePathError, match="'link' is a symbolic link or a device"):
        open_bundle(path)


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
@pytest.mark.parametrize("name", ["omg.onnx", "OMG.onnx"])
def test_a_name_that_appears_twice(good_zip: Path, tmp_path: Path, name: str) -> None:
    path = write_zip(tmp_path / "x.edgekit", entries(good_zip))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, b"other")
    with pytest.raises(BundlePathError, match="are the same file"):
        open_bundle(path)


def test_entries_that_are_not_listed_or_missing(good_zip: Path, tmp_path: Path) -> None:
    files = entries(good_zip)
    with pytest.raises(BundleIntegrityError, match=r"'more' is in the bundle .* but not listed"):
        open_bundle(write_zip(tmp_path / "more.edgekit", {**files, "more": b""}))
    del files["omg.onnx"]
    with pytest.raises(BundleIntegrityError, match=r"omg\.onnx is missing from the bundle"):
        open_bundle(write_zip(tmp_path / "less.edgekit", files))


def test_a_zip_of_the_folder_instead_of_its_contents(good_zip: Path, tmp_path: Path) -> None:
    files = {f"tiny/{name}": data for name, data in entries(good_zip).items()}
    with pytest.raises(BundleIntegrityError, match="zip the folder's contents, not the folder"):
        open_bundle(write_zip(tmp_path / "x.edgekit", files))
    with pytest.raises(BundleIntegrityError, match=r"has no bundle\.json, so it is no bundle"):
        open_bundle(write_zip(tmp_path / "y.edgekit", {"a": b""}))


def test_folders_in_a_zip_are_fine(good_zip: Path, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.edgekit", entries(good_zip))
    with zipfile.ZipFile(path, "a") as archive:
        archive.mkdir("empty")
    open_bundle(path)


def test_a_bomb_is_refused_before_it_goes_off(good_zip: Path, tmp_path: Path) -> None:
    size = 256 << 20
    files = entries(good_zip)
    document = json.loads(files["bundle.json"])
    document["files"]["omg.onnx"]["bytes"] = size
    files["bundle.json"] = json.dumps(document).encode()
    with pytest.raises(BundleIntegrityError, match=r"would unpack to 268\d+ bytes, more than 200 times its own size"):
        open_bundle(write_zip(tmp_path / "x.edgekit", files))


def test_a_file_larger_than_the_manifest_says(good_zip: Path, tmp_path: Path) -> None:
    files = entries(good_zip)
    files["omg.onnx"] += bytes(1 << 20)
    with pytest.raises(BundleIntegrityError, match=r"omg\.onnx unpacks to more than the \d+ bytes of bundle\.json"):
        open_bundle(write_zip(tmp_path / "x.edgekit", files))


def test_too_many_entries(tmp_path: Path) -> None:
    with pytest.raises(BundleIntegrityError, match="the zip has 200 entries; a bundle has at most 64 files"):
        open_bundle(write_zip(tmp_path / "x.edgekit", {str(i): b"" for i in range(200)}))


def test_other_compression_methods(good_zip: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleIntegrityError, match="is compressed by another method than deflate"):
        open_bundle(write_zip(tmp_path / "x.edgekit", entries(good_zip), method=zipfile.ZIP_LZMA))
    open_bundle(write_zip(tmp_path / "y.edgekit", entries(good_zip), method=zipfile.ZIP_STORED))


def test_an_encrypted_zip(good_zip: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.edgekit"
    data = bytearray(good_zip.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1  # the first entry's flags in the central directory
    path.write_bytes(data)
    with pytest.raises(BundleIntegrityError, match="is encrypted"):
        open_bundle(path)


def test_a_temporary_folder_that_is_full(good_zip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    real = Path.open

    def open_full(self: Path, mode: str = "r", *arguments: Any, **options: Any) -> Any:
        return (
            real(Path("/dev/full"), "wb", *arguments, **options)
            if mode == "xb"
            else real(self, mode, *arguments, **options)
        )

    monkeypatch.setattr(Path, "open", open_full)
    with pytest.raises(StorageError, match=r"cannot be unpacked to .*: No space left on device"):
        open_bundle(good_zip)


@settings(deadline=None, max_examples=150, suppress_health_check=SLOW)
@given(data=st.data())
def test_no_damage_to_a_zip_breaks_the_reader(good_zip: Path, tmp_path: Path, data: st.DataObject) -> None:
    """Cut anywhere, with bytes changed anywhere: the answer is a BundleError, or the bundle is the good one."""
    content = bytearray(good_zip.read_bytes())
    positions = st.integers(0, len(content) - 1)
    for position, value in data.draw(st.lists(st.tuples(positions, st.integers(0, 255)), max_size=4)):
        content[position] = value
    if data.draw(st.booleans()):
        content = content[: data.draw(positions)]
    path = tmp_path / "damaged.edgekit"
    path.write_bytes(content)
    try:
        bundle = open_bundle(path)
    except BundleError:
        return
    assert bundle.graph("omg").read_bytes() == entries(good_zip)["omg.onnx"]


@settings(deadline=None, max_examples=40, suppress_health_check=SLOW)
@given(data=st.data())
def test_no_damage_to_a_file_goes_unnoticed(good: Path, tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["omg.onnx", "detector.onnx", "golden_input.png", "golden_output.json"]))
    original = (good / name).read_bytes()
    damaged = bytearray(original[: data.draw(st.integers(0, len(original)))])
    if damaged:
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(0, 255))
    copy = tmp_path / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(good, copy)
    (copy / name).write_bytes(damaged)
    if bytes(damaged) == original:
        open_bundle(copy)
    else:
        with pytest.raises(BundleIntegrityError, match=name):
            open_bundle(copy)

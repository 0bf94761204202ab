"""A break-even put into a bundle: a whole bundle before and after, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edgekit.bundle import Bundle, open_bundle
from edgekit.bundle.sparse_part import BreakEven
from edgekit.bundle.updating import store_break_even
from edgekit.errors import StorageError

KNOWN = BreakEven(cpu="Cortex-A76", threads=4, engine="openvino", share=0.71)


@pytest.fixture(params=["folder", "zip"])
def stored(request: pytest.FixtureRequest, both: Path, tiny: ModuleType, tmp_path: Path) -> Path:
    """A bundle that may be changed; nothing else is in its folder."""
    place = tmp_path / "place"
    place.mkdir()
    if request.param == "folder":
        return Path(shutil.copytree(both, place / "tiny.edgekit"))
    path: Path = tiny.write_bundle(place / "tiny.edgekit", zipped=True, programs=True)
    return path


def contents(bundle: Bundle) -> dict[str, bytes]:
    """Every file but the manifest."""
    return {name: bundle.file(name).read_bytes() for name in bundle.manifest.files}


def test_the_bundle_has_it_and_is_the_same_otherwise(stored: Path) -> None:
    before = open_bundle(stored)
    for share in (0.71, 1.0):
        known = BreakEven(cpu="Cortex-A76", threads=4, engine="openvino", share=share)
        store_break_even(open_bundle(stored), known)
        after = open_bundle(stored)
        assert after.manifest.sparse is not None
        assert after.manifest.sparse.break_even == known
        assert contents(after) == contents(before)
        old, new = (dict(one.manifest.document) for one in (before, after))
        assert {**old.pop("sparse"), "break_even": known.to_json()} == new.pop("sparse")
        assert old == new
    assert [path.name for path in stored.parent.iterdir()] == ["tiny.edgekit"]


def test_who_may_read_it_stays(stored: Path) -> None:
    manifest = stored / "bundle.json" if stored.is_dir() else stored
    before = manifest.stat().st_mode
    store_break_even(open_bundle(stored), KNOWN)
    assert manifest.stat().st_mode == before


def test_through_a_link(stored: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(stored)
    store_break_even(open_bundle(tmp_path / "link"), KNOWN)
    assert (tmp_path / "link").is_symlink()
    sparse = open_bundle(stored).manifest.sparse
    assert sparse is not None
    assert sparse.break_even == KNOWN


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_failure_leaves_the_old_one(stored: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    bundle = open_bundle(stored)

    def fail(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    for what in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(*((Path, what) if what == "replace" else (os, what)), fail)
            with pytest.raises(StorageError, match=rf"cannot be written: {os.strerror(number)}"):
                store_break_even(bundle, KNOWN)
        assert open_bundle(stored).manifest == bundle.manifest
        assert [path.name for path in stored.parent.iterdir()] == ["tiny.edgekit"]


def test_ctrl_c_leaves_the_old_one(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(stored)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store_break_even(bundle, KNOWN)
    assert open_bundle(stored).manifest == bundle.manifest
    assert [path.name for path in stored.parent.iterdir()] == ["tiny.edgekit"]


def test_a_bundle_that_may_not_be_written(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write whatever the mode says
    with pytest.raises(StorageError, match=r"is read-only, so the bundle is left as it was\."):
        store_break_even(open_bundle(stored), KNOWN)


def test_a_bundle_that_was_replaced_meanwhile(stored: Path, tiny: ModuleType) -> None:
    bundle = open_bundle(stored)
    shutil.rmtree(stored) if stored.is_dir() else stored.unlink()
    tiny.write_bundle(stored, programs=True, threads=3)
    with pytest.raises(StorageError, match="is another bundle than the one that was measured"):
        store_break_even(bundle, KNOWN)
    assert open_bundle(stored).manifest.threads == 3


def test_the_new_manifest_is_as_readable_as_the_old(both: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(both, tmp_path / "x.edgekit"))
    store_break_even(open_bundle(path), KNOWN)
    text = (path / "bundle.json").read_text()
    assert text == json.dumps(json.loads(text), indent=1) + "\n"

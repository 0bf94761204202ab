"""Checkpoints: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgekit.errors import CheckpointError, StorageError
from edgekit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.registry import build


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    torch.manual_seed(0)
    model = build("mobilenetv2-ssdlite-omg", ("person", "cat"), size=64).eval()
    return Checkpoint(model=model, metrics={"ap50": 0.5}, provenance={"training_data": "x", "starting_weights": "y"})


def test_round_trip(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert loaded.spec == checkpoint.spec
    assert loaded.metrics == checkpoint.metrics
    assert loaded.provenance == checkpoint.provenance
    assert not loaded.model.training
    for name, value in checkpoint.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value), name
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


def test_half_precision_halves_the_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "full.pt", checkpoint)
    save_checkpoint(tmp_path / "half.pt", checkpoint, half=True)
    assert (tmp_path / "half.pt").stat().st_size < 0.56 * (tmp_path / "full.pt").stat().st_size
    assert all(value.dtype != torch.float16 for value in load_checkpoint(tmp_path / "half.pt").model.parameters())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(checkpoint: Checkpoint, tmp_path: Path, share: float) -> None:
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    whole = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_text_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_text("not weights")
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "a.pt")


def test_another_programs_file_is_refused(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="not an edgekit checkpoint"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    torch.save({"format": "edgekit-checkpoint", "version": 99}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="version 99; this edgekit reads version 1"):
        load_checkpoint(tmp_path / "a.pt")


def test_missing_weights_are_refused(checkpoint: Checkpoint, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "a.pt", checkpoint)
    document = torch.load(tmp_path / "a.pt", weights_only=True)
    document["model"].pop("omg.predict.weight")
    torch.save(document, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"omg\.predict\.weight"):
        load_checkpoint(tmp_path / "a.pt")


def test_nan_weights_are_refused_by_name(checkpoint: Checkpoint, tmp_path: Path) -> None:
    broken = build("mobilenetv2-ssdlite-omg", checkpoint.spec.classes, size=64)
    with torch.no_grad():
        broken.omg.predict.weight[0, 3] = float("nan")
    save_checkpoint(tmp_path / "a.pt", replace(checkpoint, model=broken))
    with pytest.raises(CheckpointError, match=r"weight omg\.predict\.weight holds 1 NaN"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_full_disk_leaves_the_old_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="file size limits are a Unix thing")
    import signal

    save_checkpoint(tmp_path / "a.pt", replace(checkpoint, metrics={"ap50": 0.1}))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(StorageError, match=r"a\.pt could not be written"):
            save_checkpoint(tmp_path / "a.pt", checkpoint)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert load_checkpoint(tmp_path / "a.pt").metrics == {"ap50": 0.1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]

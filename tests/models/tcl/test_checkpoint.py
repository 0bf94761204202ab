"""TCL checkpoints: our own survive the disk, the published one is completed by CLIP, others are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")

from edgekit.errors import CheckpointError, StorageError, UsageError  # noqa: E402
from edgekit.models.checkpoint import load_checkpoint  # noqa: E402
from edgekit.models.tcl import checkpoint as module  # noqa: E402
from edgekit.models.tcl.checkpoint import TclCheckpoint, load_tcl, save_tcl  # noqa: E402
from edgekit.models.tcl.model import TCL  # noqa: E402
from edgekit.models.tcl.spec import VARIANTS  # noqa: E402


def test_a_checkpoint_survives_the_disk(tiny_tcl: ModuleType, tmp_path: Path) -> None:
    model = tiny_tcl.shaken(tiny_tcl.vit_spec())
    written = TclCheckpoint(model=model, config={"steps": 3}, metrics={"miou": 0.5}, provenance={"training_data": "x"})
    save_tcl(tmp_path / "a.pt", written)
    read = load_tcl(tmp_path / "a.pt")
    assert (read.model.spec, read.config, read.metrics, read.provenance, read.state) == (
        model.spec, {"steps": 3}, {"miou": 0.5}, {"training_data": "x"}, None,
    )  # fmt: skip
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in read.model.state_dict().items())
    with pytest.raises(UsageError, match="holds its own CLIP; leave --clip out"):
        load_tcl(tmp_path / "a.pt", clip=tmp_path / "b.pt")


def test_detectors_are_something_else(tiny_tcl: ModuleType, tmp_path: Path) -> None:
    save_tcl(tmp_path / "a.pt", TclCheckpoint(model=TCL(tiny_tcl.vit_spec())))
    with pytest.raises(CheckpointError, match=r"segments by words, it is no detector\. These take it: edgekit segment"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_folder_that_cannot_be_written(tiny_tcl: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        save_tcl(tmp_path / "file" / "a.pt", TclCheckpoint(model=TCL(tiny_tcl.vit_spec())))


def test_a_published_masker_needs_clip(tiny_tcl: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny_tcl.vit_spec()
    monkeypatch.setitem(VARIANTS, "tcl-vit-b16", spec)
    source, other = tiny_tcl.shaken(spec), tiny_tcl.shaken(spec, seed=1)
    path = tmp_path / "tcl.pth"
    weights = {name: value for name, value in source.state_dict().items() if name.startswith("masker.")}
    torch.save({"model": weights, "config": "kept as it is"}, path)
    with pytest.raises(UsageError, match="holds the masker alone, as TCL was published"):
        load_tcl(path)

    def fill(model: TCL, _: Path) -> None:
        model.load_state_dict(other.state_dict())

    monkeypatch.setattr(module, "load_clip", fill)
    read = load_tcl(path, clip=tmp_path / "ViT-B-16.pt")
    state = read.model.state_dict()
    assert torch.equal(state["masker.sim2mask.w"], source.state_dict()["masker.sim2mask.w"])
    text = "clip_text_encoder.text_projection"
    assert torch.equal(state[text], other.state_dict()[text])
    assert read.provenance["starting_weights"] == "ViT-B-16.pt"
    torch.save({"model": {name: value for name, value in weights.items() if "gate" not in name}}, path)
    with pytest.raises(CheckpointError, match=r"4 weights are missing, 0 unknown, e.g. masker.*gate.gate"):
        load_tcl(path, clip=tmp_path / "ViT-B-16.pt")
    torch.save({"model": {name: value[None] for name, value in weights.items()}}, path)
    with pytest.raises(CheckpointError, match=r"does not fit the published masker: .*size mismatch"):
        load_tcl(path, clip=tmp_path / "ViT-B-16.pt")


def test_what_is_no_checkpoint_of_tcl_is_refused(tiny_tcl: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"format": "edgekit-checkpoint"}, path)
    with pytest.raises(CheckpointError, match="no checkpoint of a TCL model"):
        load_tcl(path)
    torch.save({"format": "edgekit-tcl", "version": 9}, path)
    with pytest.raises(CheckpointError, match="a TCL checkpoint of version 9"):
        load_tcl(path)
    torch.save({"format": "edgekit-tcl", "version": 1, "spec": tiny_tcl.vit_spec().to_json(), "model": {}}, path)
    with pytest.raises(CheckpointError, match="an incomplete or inconsistent checkpoint"):
        load_tcl(path)
    model = TCL(replace(tiny_tcl.vit_spec()))
    with torch.no_grad():
        model.masker.sim2mask.b.fill_(float("inf"))
    save_tcl(path, TclCheckpoint(model=model))
    with pytest.raises(CheckpointError, match=r"weight masker.sim2mask.b holds NaN or infinity"):
        load_tcl(path)

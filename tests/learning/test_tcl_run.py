"""Whole runs of a TCL model in miniature: losses fall, a killed run goes on as if nothing had been, errors."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")
pytest.importorskip("regex", reason="comes with the extra 'segment'")

from edgekit.errors import CheckpointError, StorageError, UsageError  # noqa: E402
from edgekit.learning import distributed  # noqa: E402
from edgekit.learning.config_file import save_config_file  # noqa: E402
from edgekit.learning.tcl_config import TclConfig  # noqa: E402
from edgekit.learning.tcl_journal import TclJournal  # noqa: E402
from edgekit.learning.tcl_losses import TCL_LOSSES  # noqa: E402
from edgekit.learning.tcl_run import TclRun, build_tcl_optimiser  # noqa: E402
from edgekit.learning.tcl_start import open_tcl_run  # noqa: E402
from edgekit.models.tcl.checkpoint import TclCheckpoint, load_tcl, save_tcl  # noqa: E402
from edgekit.models.tcl.model import TCL  # noqa: E402
from edgekit.models.tcl.segmenter import SegmentOptions, options_for  # noqa: E402
from edgekit.models.tcl.spec import CONTEXT, VARIANTS, VOCABULARY, TclSpec  # noqa: E402

NAMES = ("bird", "dog", "car")
COLOURS = ((255, 0, 0), (0, 200, 0), (0, 0, 255))


def config(**changes: Any) -> TclConfig:
    base = TclConfig(
        model="tiny", align_steps=4, steps=6, decoder_steps=3, batch_size=4, learning_rate=2.0, align_rate=3e-3,
        warmup_steps=1, smallest_crop=0.5, workers=0, log_every=2, evaluate_every=5,
    )  # fmt: skip
    return replace(base, **changes)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch, tiny_tcl: ModuleType) -> None:
    monkeypatch.setitem(VARIANTS, "tiny", replace(tiny_tcl.mobile_spec(), name="tiny", training_side=32))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Squares of three colours on grey, with a caption, and masks that number them as VOC does."""
    root = tmp_path_factory.mktemp("squares")
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    generator = np.random.default_rng(0)
    for index in range(9):
        kind = index % 3
        image = generator.integers(100, 150, (48, 48, 3), dtype=np.uint8)
        mask = np.zeros((48, 48), np.uint8)
        top, left = generator.integers(0, 24, 2)
        image[top : top + 24, left : left + 24] = COLOURS[kind]
        mask[top : top + 24, left : left + 24] = (3, 12, 7)[kind]
        Image.fromarray(image).save(root / "images" / f"{index}.png")
        Image.fromarray(mask).save(root / "masks" / f"{index}.png")
        (root / "images" / f"{index}.txt").write_text(NAMES[kind])
    return root


def start(pictures: Path, output: Path, settings: TclConfig, **changes: Any) -> TclRun:
    arguments: dict[str, Any] = {
        "data": (str(pictures / "images"),), "output": output, "weights": "none", "resume": False,
        "validation": pictures, "protocol": "voc", "split": "val", "device": "cpu", "threads": None, "limit": None,
    }  # fmt: skip
    return open_tcl_run(settings, **arguments | changes)


def rows_of(output: Path) -> list[dict[str, str]]:
    with (output / "log.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def work(run: TclRun, *, steps: int | None = None) -> None:
    """The program's loop, for ``steps`` steps or to the end."""
    for batch in run.batches():
        run.step(run.forward(batch))
        if run.evaluation_due():
            run.evaluate()
        if steps is not None and run.step_number == steps:
            run.save()
            return


@pytest.mark.slow
def test_a_run_leaves_what_it_promises(pictures: Path, tmp_path: Path) -> None:
    with start(pictures, tmp_path, config(), limit=4) as run:
        work(run)
        scores = run.finish()
    assert {path.name for path in tmp_path.iterdir()} >= {
        "config.json", "log.csv", "last.pt", "best.pt", "losses.png", "segmentations.png",
    }  # fmt: skip
    assert 0 <= scores["best_miou"] <= 1
    rows = rows_of(tmp_path)
    assert [(row["step"], row["phase"]) for row in rows] == [
        ("2", "align"), ("4", "align"), ("6", "decoder"), ("8", "masker"), ("10", "masker"),
    ]  # fmt: skip
    assert rows[0]["align"]
    assert rows[-1]["miou"]
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 6
    best = load_tcl(tmp_path / "best.pt")
    assert best.provenance == {"training_data": "images", "starting_weights": "random"}
    assert best.state is None
    assert "miou" in best.metrics


@pytest.mark.parametrize("stop", [pytest.param(3, marks=pytest.mark.slow), 4, pytest.param(6, marks=pytest.mark.slow)])
def test_a_killed_run_reaches_the_weights_of_an_unbroken_one(pictures: Path, tmp_path: Path, stop: int) -> None:
    settings = config(evaluate_every=1000)
    with start(pictures, tmp_path / "whole", settings, validation=None) as whole:
        work(whole)
    with start(pictures, tmp_path / "broken", settings, validation=None) as run:
        work(run, steps=stop)
    with start(pictures, tmp_path / "broken", settings, validation=None, weights=None, resume=True) as run:
        assert run.step_number == stop
        work(run)
        assert run.provenance["training_data"] == "images"
    wanted, got = whole.model.state_dict(), run.model.state_dict()
    assert all(torch.equal(value, got[name]) for name, value in wanted.items())
    assert rows_of(tmp_path / "broken")[-1]["step"] == "10"


def test_the_masker_starts_from_what_aligning_taught(pictures: Path, tmp_path: Path) -> None:
    with start(pictures, tmp_path, config(), validation=None) as run:
        work(run, steps=4)
        encoder, masker = run.model.clip_image_encoder, run.model.masker.image_encoder
        assert torch.equal(masker.decoder.get_submodule("image_proj").proj, encoder.clip_proj.proj)
        assert torch.equal(masker.backbone.neck.weight, encoder.neck.weight)
        before = {name: value.clone() for name, value in run.model.state_dict().items()}
        work(run, steps=7)  # three steps of the decoder
        after = run.model.state_dict()
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert "masker.image_encoder.decoder.image_proj.proj" in changed
        assert not any(name.startswith(("clip_", "masker.image_encoder.backbone")) for name in changed)
        work(run, steps=8)
        assert not torch.equal(run.model.state_dict()["masker.image_encoder.backbone.neck.bias"],
                               before["masker.image_encoder.backbone.neck.bias"])  # fmt: skip


@pytest.mark.slow
def test_losses_fall_on_a_handful_of_photographs(
    shared: Path, voc07: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tflite = shared / "weights" / "mobilenet_v2" / "tf2_mobilenet_v2_1.0_224_ptq.tflite"
    text = replace(VARIANTS["tcl-mobilenetv2"].text, width=64)
    spec = replace(VARIANTS["tcl-mobilenetv2"], name="tiny", text=text, training_side=96)
    monkeypatch.setitem(VARIANTS, "tiny", spec)
    settings = config(
        align_steps=40, steps=16, decoder_steps=8, batch_size=8, log_every=8, learning_rate=0.5, align_rate=1e-3
    )
    data = (f"classes:{voc07}",)
    with start(voc07, tmp_path, settings, data=data, weights=str(tflite), validation=None, limit=32) as run:
        work(run)
    rows = rows_of(tmp_path)
    aligned = [float(row["align"]) for row in rows if row["align"]]
    assert aligned[-1] < aligned[0] - 0.5
    masked = [sum(float(row[name]) for name in TCL_LOSSES if row[name]) for row in rows if row["tcl_f"]]
    assert masked[-1] < masked[0]
    assert run.provenance["starting_weights"] == tflite.name
    assert float(run.model.clip_image_encoder.trunk.stem.bn.running_var.min()) > 0


def test_vectors_and_biases_do_not_decay_scalars_do(tiny_tcl: ModuleType) -> None:
    model = TCL(tiny_tcl.vit_spec())
    decayed, plain = build_tcl_optimiser(model, config(align_steps=0)).param_groups
    names = {id(value): name for name, value in model.named_parameters()}
    assert plain["weight_decay"] == 0
    assert decayed["weight_decay"] == 0.05
    assert "masker.sim2mask.w" in {names[id(value)] for value in decayed["params"]}
    assert all(value.ndim == 1 for value in plain["params"])
    assert all(names[id(value)].startswith(("masker.", "tcl")) for value in [*decayed["params"], *plain["params"]])


def test_what_cannot_be_started(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume"):
        start(pictures, tmp_path, config(), resume=True)
    with pytest.raises(UsageError, match="what should tiny start from"):
        start(pictures, tmp_path, config(), weights=None)
    with pytest.raises(UsageError, match="a batch of 10 pairs needs as many, and images holds 9"):
        start(pictures, tmp_path, config(batch_size=10))
    with pytest.raises(UsageError, match="no TCL model is called 'tiy'; did you mean 'tiny'"):
        start(pictures, tmp_path, config(model="tiy"))
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "world_size", lambda: 3)
        with pytest.raises(UsageError, match="batch size 4 cannot be divided over 3 processes"):
            start(pictures, tmp_path, config())
    (tmp_path / "last.pt").write_bytes(b"x")
    with pytest.raises(UsageError, match="already holds a run; go on with --resume"):
        start(pictures, tmp_path, config())


def test_weights_that_do_not_fit(
    pictures: Path, tmp_path: Path, tiny_tcl: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec: TclSpec = replace(
        tiny_tcl.vit_spec(), name="vit", text=replace(tiny_tcl.vit_spec().text, context=CONTEXT, vocabulary=VOCABULARY)
    )
    monkeypatch.setitem(VARIANTS, "vit", spec)
    with pytest.raises(UsageError, match=r"vit cannot start from x.tflite; it takes CLIP's"):
        start(pictures, tmp_path / "run", config(model="vit"), weights=str(tmp_path / "x.tflite"))
    with pytest.raises(CheckpointError, match=r"clip.pt does not exist"):
        start(pictures, tmp_path / "run", config(model="vit"), weights=str(tmp_path / "clip.pt"))
    other = TCL(replace(tiny_tcl.mobile_spec(), embedding=8))
    save_tcl(tmp_path / "other.pt", TclCheckpoint(model=other))
    with pytest.raises(CheckpointError, match="of other sizes, not the tiny to train"):
        start(pictures, tmp_path / "run", config(), weights=str(tmp_path / "other.pt"))


def test_a_checkpoint_goes_on_as_starting_weights(pictures: Path, tmp_path: Path) -> None:
    model = TCL(VARIANTS["tiny"])
    save_tcl(tmp_path / "a.pt", TclCheckpoint(model=model))
    run = start(pictures, tmp_path / "run", config(), weights=str(tmp_path / "a.pt"))
    assert torch.equal(run.model.masker.sim2mask.w, model.masker.sim2mask.w)
    assert run.provenance["starting_weights"] == "a.pt"
    save_tcl(tmp_path / "run" / "last.pt", TclCheckpoint(model=model, config=config().to_json()))
    with pytest.raises(CheckpointError, match="holds no training state; start a new run from it with --weights"):
        start(pictures, tmp_path / "run", config(), resume=True)


def test_a_gradient_that_is_no_number_stops_the_run(pictures: Path, tmp_path: Path) -> None:
    with start(pictures, tmp_path, config(), validation=None) as run:
        batch = next(run.batches())
        losses = {name: value * float("nan") for name, value in run.forward(batch).items()}
        with pytest.raises(CheckpointError, match="training diverged at step 0: the gradient is NaN"):
            run.step(losses)


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    journal = TclJournal(tmp_path / "file", talks=True)
    journal.step({"align": torch.tensor(1.0)}, rate=0.1, phase="align")
    with pytest.raises(StorageError, match=r"the log .*log.csv cannot be written"):
        journal.write_row(1, total=2)


def test_a_folder_that_cannot_hold_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"the output folder .*file cannot be written"):
        save_config_file({"steps": 1}, tmp_path / "file")


def test_small_models_have_options_of_their_own(tiny_tcl: ModuleType) -> None:
    assert options_for(TCL(tiny_tcl.vit_spec())) == SegmentOptions()
    assert options_for(TCL(tiny_tcl.mobile_spec())).templates == "photo"

"""Whole pretraining runs on drawn pictures: learning, resuming after a kill, many processes."""

from __future__ import annotations

import csv
import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit.errors import CheckpointError, DataError, UsageError
from edgekit.pretraining.config import PretrainConfig
from edgekit.pretraining.run import PretrainRun
from edgekit.pretraining.start import open_pretraining

ROOT = Path(__file__).resolve().parents[2]
PRETRAIN = ROOT / "training" / "pretrain.py"

SMALL: dict[str, Any] = {
    "backbone": "pvanet-lite", "width_multiplier": 0.25, "epochs": 2, "batch_size": 8, "input_size": 64,
    "smallest_box": 16, "head_hidden": 32, "head_outputs": 16, "learning_rate": 8.0, "warmup_epochs": 0.5, "workers": 0,
    "evaluate_every": 1,
}  # fmt: skip


def opened(drawings: Path, output: Path, *, resume: bool = False, weights: str = "none", **changes: Any) -> PretrainRun:
    limit = changes.pop("limit", None)
    config = PretrainConfig(**{**SMALL, **changes})
    return open_pretraining(
        config, data=[drawings], output=output, weights=weights, resume=resume, device="cpu", threads=None, limit=limit
    )


def rest_of_epoch(run: PretrainRun, *, steps: int | None = None) -> None:
    run.start_epoch()
    for batch in run.batches():
        run.step(run.forward(batch))
        if run.batch_in_epoch == steps:
            return
    run.finish_epoch()
    if run.evaluation_due():
        run.evaluate()


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.mark.parametrize(("method", "optimiser"), [("scrl", "lars"), ("byol", "adamw")])
def test_a_run_resumes_to_the_weights_of_an_unbroken_one(
    drawings: Path, tmp_path: Path, method: str, optimiser: str
) -> None:
    settings = {"method": method, "optimiser": optimiser, "learning_rate": 8.0 if optimiser == "lars" else 0.03}
    whole, broken = (opened(drawings, tmp_path / name, **settings) for name in ("whole", "broken"))
    start = {name: value.clone() for name, value in whole.learner.state_dict().items()}
    for run in (whole, broken):
        rest_of_epoch(run)
    rest_of_epoch(whole)
    rest_of_epoch(broken, steps=1)
    broken.save()
    # Its configuration is that of last.pt, whatever is said now.
    resumed = opened(drawings, tmp_path / "broken", resume=True, epochs=9)
    assert (resumed.epoch, resumed.batch_in_epoch, resumed.config.epochs) == (1, 1, 2)
    torch.randn(7)
    rest_of_epoch(resumed)
    reached = resumed.learner.state_dict()
    for name, value in whole.learner.state_dict().items():
        assert torch.equal(reached[name], value), name
        if name.endswith("weight"):
            assert not torch.equal(start[name], value), f"{name} has not moved"
    rows = [list(csv.reader(lines(tmp_path / folder / "log.csv"))) for folder in ("whole", "broken")]
    assert rows[0][0][:10] == [
        "epoch", "size", "steps", "loss", "std_online", "std_target", "pairs", "momentum", "probe_loss",
        "probe_accuracy",
    ]  # fmt: skip
    seconds = rows[0][0].index("seconds")
    assert [row[:seconds] + row[seconds + 1 :] for row in rows[0]] == [
        row[:seconds] + row[seconds + 1 :] for row in rows[1]
    ]
    assert len(rows[0]) == 3


def test_the_end_leaves_everything_behind(drawings: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run = opened(drawings, tmp_path, epochs=1)
    with run:
        rest_of_epoch(run)
        run.save()
        figures = run.finish()
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "last.pt", "log.csv", "losses.png", "pretrained.pth",
    }  # fmt: skip
    assert figures["epochs"] == 1
    assert 0 < figures["loss"] < 8
    assert 0 < figures["std_online"] <= 1
    assert 0 <= figures["val_accuracy"] <= 1
    assert figures["output"] == str(tmp_path / "pretrained.pth")
    last, final = (torch.load(tmp_path / name, weights_only=True) for name in ("last.pt", "pretrained.pth"))
    assert {"optimizer_state_dict", "scheduler_state_dict", "scaler_state_dict", "state"} == last.keys() - final.keys()
    assert final["config"] == json.loads((tmp_path / "config.json").read_text())
    assert final["provenance"] == {"training_data": drawings.name, "starting_weights": "random"}
    assert (final["classes"], final["epoch"]) == (["box", "disc"], 1)
    for name, value in run.learner.online.projector.state_dict().items():
        assert torch.equal(final["online_network_state_dict"][f"projector.{name}"], value)


def test_a_run_goes_on_from_another_ones_weights(drawings: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    first = opened(drawings, tmp_path / "first", epochs=1)
    rest_of_epoch(first)
    first.finish()
    second = opened(drawings, tmp_path / "second", weights=str(tmp_path / "first" / "pretrained.pth"), method="byol")
    taken = second.learner.state_dict()
    for name, value in first.learner.state_dict().items():
        assert torch.equal(taken[name], value), name
    assert second.epoch == 0
    assert second.provenance["starting_weights"] == "pretrained.pth"


def test_a_step_without_boxes_changes_nothing_but_the_count(drawings: Path, tmp_path: Path) -> None:
    run = opened(drawings, tmp_path)
    run.start_epoch()
    batch = next(iter(run.batches()))
    before = {name: value.clone() for name, value in run.learner.state_dict().items()}
    losses = run.forward(type(batch)(views=batch.views, boxes=batch.boxes[:0], labels=batch.labels))
    assert losses is None
    run.step(losses)
    assert run.batch_in_epoch == 1
    assert all(torch.equal(value, before[name]) for name, value in run.learner.state_dict().items())


def test_collapse_is_said(drawings: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = opened(drawings, tmp_path)
    with torch.no_grad():
        # A large shift behind the norm, the same for every row: all projections point the same way.
        run.learner.online.projector.net[1].weight.zero_()  # type: ignore[operator,union-attr]
        run.learner.online.projector.net[1].bias.fill_(1.0)  # type: ignore[operator,union-attr]
    with caplog.at_level(logging.WARNING, "edgekit"):
        run.start_epoch()
        losses = run.forward(next(iter(run.batches())))
        assert losses is not None
        assert losses.logged["std_online"] < 1e-3
        run.journal.add(losses.logged, 0.1, step=0)
        run.finish_epoch()
    assert "the embeddings have collapsed: their directions are spread by 0.000" in caplog.text


def test_a_gradient_that_is_not_finite_stops_the_run_with_advice(drawings: Path, tmp_path: Path) -> None:
    run = opened(drawings, tmp_path)
    with torch.no_grad():
        next(run.learner.online.encoder.parameters()).fill_(float("nan"))
    run.start_epoch()
    losses = run.forward(next(iter(run.batches())))
    with pytest.raises(CheckpointError, match=r"diverged at step 0.*\n.*--learning-rate 2\.7e\+00"):
        run.step(losses)


def test_what_cannot_be_opened_is_refused(drawings: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume"):
        opened(drawings, tmp_path, resume=True)
    with pytest.raises(UsageError, match=r"--weights x\.pth: there is no such file.\nGive a pretraining"):
        opened(drawings, tmp_path, weights="x.pth")
    with pytest.raises(DataError, match="1 pictures are too few to pretrain on"):
        opened(drawings, tmp_path, limit=1)
    (tmp_path / "last.pt").write_bytes(b"")
    with pytest.raises(UsageError, match="already holds a run; go on with --resume"):
        opened(drawings, tmp_path)


def test_other_pictures_are_not_resumed_with(drawings: Path, tmp_path: Path) -> None:
    opened(drawings, tmp_path).save()
    with pytest.raises(CheckpointError, match=r"began with other pictures: 24 of drawings.*now there are 8 of"):
        opened(drawings, tmp_path, resume=True, limit=8)


def command(data: Path, output: Path, recipe: Path, *options: str) -> list[str]:
    return [
        str(PRETRAIN), "pvanet-lite", "--recipe", str(recipe), "--data", str(data), "-o", str(output),
        "--device", "cpu", "--threads", "1", *options,
    ]  # fmt: skip


def run_command(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done


def write_recipe(path: Path, **changes: object) -> Path:
    settings = {**SMALL, **changes}
    path.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    return path


def weights(path: Path) -> dict[str, torch.Tensor]:
    document = torch.load(path, weights_only=True)
    parts = ("online_network", "target_network", "predictor", "evaluator")
    return {f"{part}.{name}": value for part in parts for name, value in document[f"{part}_state_dict"].items()}


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_weights_of_an_unbroken_one(drawings: Path, tmp_path: Path) -> None:
    # Saving after each step gives the kill, which comes at any moment, something in mid-epoch to go back to.
    recipe = write_recipe(tmp_path / "recipe.toml", epochs=3, save_minutes=0.0)
    run_command([sys.executable, *command(drawings, tmp_path / "whole", recipe)])
    process = subprocess.Popen(
        [sys.executable, *command(drawings, tmp_path / "broken", recipe)], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    last = tmp_path / "broken" / "last.pt"
    deadline = time.monotonic() + 120
    while not last.is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it was killed"
    assert not (tmp_path / "broken" / "pretrained.pth").exists()
    run_command([sys.executable, *command(drawings, tmp_path / "broken", recipe, "--resume")])
    broken = weights(last)
    for name, value in weights(tmp_path / "whole" / "pretrained.pth").items():
        assert torch.equal(broken[name], value), name


PROGRAM = """
import sys
from pathlib import Path

import torch
from edgekit.learning.distributed import rank
from edgekit.pretraining.config import PretrainConfig
from edgekit.pretraining.start import open_pretraining

method, data, output = sys.argv[1:]
config = PretrainConfig(
    backbone="pvanet-lite", width_multiplier=0.25, method=method, epochs=1, batch_size=8, input_size=96,
    smallest_box=32, head_hidden=32, head_outputs=16, optimiser="lars", learning_rate=8.0, warmup_epochs=0.5, workers=0,
)
run = open_pretraining(
    config, data=[Path(data)], output=Path(output), weights="none", resume=False, device="cpu", threads=1, limit=None
)
learner = run.learner.double()
learner.normalise = lambda views: (views.double() - 128) / 128
logged = []
with run:
    run.start_epoch()
    for batch in run.batches():
        losses = run.forward(batch)
        logged.append(losses.logged)
        run.step(losses)
    state = {name: value for name, value in learner.state_dict().items() if not name.endswith("num_batches_tracked")}
    if rank() == 0:
        torch.save({"state": state, "logged": logged}, Path(output) / "result.pt")
"""


@pytest.mark.slow
def test_two_processes_equal_one(drawings: Path, tmp_path: Path) -> None:
    """In double precision: LARS divides by a gradient's length, which turns float's rounding into steps."""
    (tmp_path / "program.py").write_text(PROGRAM)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    results = []
    for name, start in (("one", [sys.executable]), ("two", torchrun)):
        run_command([*start, str(tmp_path / "program.py"), "scrl", str(drawings), str(tmp_path / name)])
        results.append(torch.load(tmp_path / name / "result.pt", weights_only=True))
    one, two = results
    assert len(one["logged"]) == 3
    for mine, theirs in zip(one["logged"], two["logged"], strict=True):
        assert mine == pytest.approx(theirs, rel=1e-6)
    untrained = opened(drawings, tmp_path / "start").learner.state_dict()
    for name, value in one["state"].items():
        torch.testing.assert_close(two["state"][name], value, rtol=1e-6, atol=1e-9, msg=name)
        if value.ndim > 1:
            assert not torch.equal(value.float(), untrained[name]), f"{name} has not moved"


@pytest.mark.slow
def test_pretraining_learns_without_collapse(drawings: Path, tmp_path: Path) -> None:
    """Boxes and discs: what is learnt without labels tells them apart on pictures that were not seen."""
    changes = {"learning_rate": 100.0, "epochs": 24, "warmup_epochs": 2.0, "evaluate_every": 24, "probe_rate": 0.01}
    recipe, output = write_recipe(tmp_path / "recipe.toml", **changes), tmp_path / "run"
    figures = json.loads(run_command([sys.executable, *command(drawings, output, recipe, "--json")]).stdout)
    rows = list(csv.DictReader(lines(output / "log.csv")))
    assert len(rows) == 24
    assert float(rows[-1]["loss"]) < 0.65 * float(rows[0]["loss"])
    assert figures["std_online"] > 0.5
    assert figures["momentum"] > 0.999
    assert figures["val_accuracy"] > 0.7  # of 24 pictures; half are guessed

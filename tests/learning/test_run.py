"""Whole training runs on a tiny drawn data set: learning, resuming after a kill, many processes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from edgekit.errors import CheckpointError, UsageError
from edgekit.learning.config import TrainConfig
from edgekit.learning.run import TrainingRun
from edgekit.learning.start import open_run
from edgekit.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from edgekit.models.registry import build

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "training" / "train.py"
# sgd: AdamW divides by the gradient's own size, which turns rounding differences into steps.
RECIPE = """
epochs = 2
batch_size = 8
sizes = [[0.0, 64]]
optimiser = "sgd"
learning_rate = 0.01
warmup_steps = 2
workers = 0
evaluate_every = 2
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def command(recipe: Path, data: Path, output: Path, *options: str) -> list[str]:
    return [
        str(TRAIN), "mobilenetv2-ssdlite-omg", "--recipe", str(recipe), "--data", str(data), "-o", str(output),
        "--device", "cpu", "--threads", "1", "--weights", "none", *options,
    ]  # fmt: skip


def run(arguments: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment, timeout=300, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return done  # type: ignore[no-any-return]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint(path).model.state_dict()


@pytest.mark.slow
def test_two_processes_equal_one(recipe: Path, shapes: Path, tmp_path: Path) -> None:
    # 128 pixels: at 64 the deepest map is a single cell, and batch norm over 8 numbers turns rounding into noise.
    recipe.write_text(RECIPE.replace("64", "128").replace("epochs = 2", "epochs = 1").replace("0.01", "0.002"))
    run([sys.executable, *command(recipe, shapes, tmp_path / "one")])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run([*torchrun, *command(recipe, shapes, tmp_path / "two")])
    torch.manual_seed(0)
    start = build("mobilenetv2-ssdlite-omg", ("box", "disc"), size=128).state_dict()
    one, two = moved(start, tmp_path / "one" / "last.pt"), moved(start, tmp_path / "two" / "last.pt")
    # Sums in another order differ in their last digits; batch norm per process, or gradients averaged instead of
    # summed, would differ by tens of per cent.
    assert one.norm() > 0
    assert (one - two).norm() < 0.01 * one.norm()


def moved(start: dict[str, torch.Tensor], path: Path) -> torch.Tensor:
    """How far training took the weights (not their average) and the running statistics, as one vector."""
    state = load_checkpoint(path).state
    assert state is not None
    return torch.cat([(state["model"][name].double() - value.double()).flatten() for name, value in start.items()])


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_weights_of_an_unbroken_one(recipe: Path, shapes: Path, tmp_path: Path) -> None:
    # Saving after each step gives the kill, which comes at any moment, something in mid-epoch to go back to.
    recipe.write_text(RECIPE.replace("epochs = 2", "epochs = 3") + "save_minutes = 0.0\n")
    run([sys.executable, *command(recipe, shapes, tmp_path / "whole")])
    process = subprocess.Popen(
        [sys.executable, *command(recipe, shapes, tmp_path / "broken")], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    last = tmp_path / "broken" / "last.pt"
    deadline = time.monotonic() + 120
    while not last.is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run was over before it was killed"
    run([sys.executable, *command(recipe, shapes, tmp_path / "broken", "--resume")])
    whole, broken = weights(tmp_path / "whole" / "last.pt"), weights(last)
    for name, value in whole.items():
        assert torch.equal(broken[name], value), name
    log = (tmp_path / "broken" / "log.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in log] == ["epoch", "1", "2", "3"]


@pytest.mark.slow
def test_training_learns_and_leaves_everything_behind(recipe: Path, shapes: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    text = RECIPE.replace("epochs = 2", "epochs = 24").replace('"sgd"', '"adamw"').replace("0.01", "2e-3")
    # The same pictures at each epoch: the loss on ever other ones would say little after 72 steps.
    settings = "ema_decay = 0.9\naugmentation = 0.0\nsparse_scenes = 0.0\n"
    recipe.write_text(text.replace("evaluate_every = 2", "evaluate_every = 24") + settings)
    output = tmp_path / "run"
    scores = json.loads(run([sys.executable, *command(recipe, shapes, output, "--json")]).stdout)
    assert {"ap50", "map", "ap50_mask_off", "mask_recall", "active_share"} <= scores.keys()
    log = (output / "log.csv").read_text().splitlines()
    first, final = (float(log[row].split(",")[3]) for row in (1, -1))
    assert final < 0.8 * first
    names = {path.name for path in output.iterdir()}
    assert names == {
        "best.pt", "last.pt", "config.json", "log.csv", "losses.png", "precision_recall.png", "masks.png",
    }  # fmt: skip
    assert json.loads((output / "config.json").read_text())["epochs"] == 24
    assert load_checkpoint(output / "best.pt").provenance["starting_weights"] == "random"
    assert load_checkpoint(output / "best.pt").spec.classes == ("box", "disc")


def opened(shapes: Path, output: Path, **changes: object) -> TrainingRun:
    config = TrainConfig(epochs=1, batch_size=8, sizes=((0.0, 64),), workers=0)
    settings = {"weights": "none", "resume": False, "device": "cpu", "threads": None, "limit": 8, **changes}
    return open_run(config, data=shapes, output=output, **settings)  # type: ignore[arg-type]


def test_resuming_nothing_is_refused(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume"):
        opened(shapes, tmp_path, resume=True)


def test_an_output_folder_is_not_trained_into_twice(shapes: Path, tmp_path: Path) -> None:
    (tmp_path / "last.pt").write_bytes(b"")
    with pytest.raises(UsageError, match="already holds a run; go on with --resume"):
        opened(shapes, tmp_path)


def test_a_gpu_that_is_not_there_is_refused(shapes: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(UsageError, match="PyTorch sees no GPU here"):
        opened(shapes, tmp_path, device="cuda")


def test_a_nan_gradient_stops_the_run_with_advice(shapes: Path, tmp_path: Path) -> None:
    run = opened(shapes, tmp_path)
    with torch.no_grad():
        run.model.detector.backbone.last.get_submodule("conv").weight.fill_(float("nan"))  # type: ignore[union-attr,operator]
    with run:
        run.start_epoch()
        losses = run.forward(next(iter(run.batches())))
        with pytest.raises(CheckpointError, match=r"diverged at step 0.*\n.*--learning-rate"):
            run.step(losses)


def test_weights_of_another_class_list_start_the_trunk(shapes: Path, tmp_path: Path) -> None:
    model = build("mobilenetv2-ssdlite-omg", ("a", "b", "c"), size=64).eval()
    save_checkpoint(tmp_path / "three.pt", Checkpoint(model=model))
    run = opened(shapes, tmp_path / "run", weights=str(tmp_path / "three.pt"))
    assert torch.equal(run.model.omg.predict.weight, model.omg.predict.weight)
    assert run.model.spec.classes == ("box", "disc")


def test_starting_weights_that_are_not_there_are_refused(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--weights x\.pt: x\.pt does not exist"):
        opened(shapes, tmp_path, weights="x.pt")


def test_a_mask_network_alone_is_judged_by_its_masks(shapes: Path, tmp_path: Path) -> None:
    config = TrainConfig(epochs=1, batch_size=4, sizes=((0.0, 64),), workers=0, parts="omg", evaluate_every=1)
    run = open_run(
        config, data=shapes, output=tmp_path, weights="none", resume=False, device="cpu", threads=None, limit=4
    )
    run.epoch = 1
    run.evaluate()
    assert load_checkpoint(tmp_path / "best.pt").metrics.keys() == {
        "epoch", "mask_recall", "mask_threshold", "active_share",
    }  # fmt: skip
    assert run.best == pytest.approx(1 - run.scores["active_share"])


@pytest.mark.parametrize("parts", ["both", "omg", "detector"])
def test_only_the_chosen_networks_learn(shapes: Path, tmp_path: Path, parts: str) -> None:
    config = TrainConfig(epochs=1, batch_size=4, sizes=((0.0, 64),), workers=0, parts=parts, warmup_steps=1)
    training = open_run(
        config, data=shapes, output=tmp_path, weights="none", resume=False, device="cpu", threads=None, limit=4
    )
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    training.start_epoch()
    for batch in training.batches():
        training.step(training.forward(batch))
    after = training.model.state_dict()
    changed = {name.split(".")[0] for name, value in before.items() if not torch.equal(after[name], value)}
    assert changed == ({"omg", "detector"} if parts == "both" else {parts})


def test_a_mask_network_that_does_not_learn_keeps_its_masks(shapes: Path, tmp_path: Path) -> None:
    model = build("mobilenetv2-ssdlite-omg", ("box", "disc"), size=64).eval()
    model.spec = replace(model.spec, mask_threshold=0.37, mask_threshold_exponent=5.0, mask_dilation=1)
    save_checkpoint(tmp_path / "start.pt", Checkpoint(model=model))
    config = TrainConfig(epochs=1, batch_size=4, sizes=((0.0, 64),), workers=0, parts="detector")
    run = open_run(
        config, data=shapes, output=tmp_path / "run", weights=str(tmp_path / "start.pt"), resume=False, device="cpu",
        threads=None, limit=4,
    )  # fmt: skip
    run.epoch = 1
    run.follow_masks()
    run.evaluate()
    kept = load_checkpoint(tmp_path / "run" / "best.pt").spec
    assert (kept.mask_threshold, kept.mask_threshold_exponent, kept.mask_dilation) == (0.37, 5.0, 1)
    assert run.scores["mask_threshold"] == 0.37


def test_footage_is_shown_and_named(shapes: Path, tmp_path: Path) -> None:
    outlines = tmp_path / "outlines"
    shutil.copytree(shapes, outlines)
    for file in (outlines / "annotations").glob("*.json"):
        document = json.loads(file.read_text())
        # Discs go by a name that is pasted.
        for category in document["categories"]:
            category["name"] = {"disc": "person", "box": "box"}[category["name"]]
        for box in document["annotations"]:
            left, top, width, height = box["bbox"]
            right, bottom = left + width, top + height
            box["segmentation"] = [[left, top, right, top, right, bottom, left, bottom]]
        file.write_text(json.dumps(document))
    config = TrainConfig(
        epochs=1, batch_size=4, sizes=((0.0, 64),), workers=0, footage=str(outlines), cutouts=str(outlines),
        footage_share=1.0,
    )  # fmt: skip
    run = open_run(
        config,
        data=outlines,
        output=tmp_path / "run",
        weights="none",
        resume=False,
        device="cpu",
        threads=None,
        limit=8,
    )
    run.start_epoch()
    run.step(run.forward(next(iter(run.batches()))))
    assert re.fullmatch(
        r"outlines train, \d+ frames of outlines and \d+ objects cut out of outlines", run.provenance["training_data"]
    )

"""Whole training runs on a tiny drawn data set: learning, resuming after a kill, many processes."""

from __future__ import annotations

import copy
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


SSDLITE = "mobilenetv2-ssdlite-omg"


def command(recipe: Path, data: Path, output: Path, *options: str, model: str = SSDLITE) -> list[str]:
    return [
        str(TRAIN), model, "--recipe", str(recipe), "--data", str(data), "-o", str(output),
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
@pytest.mark.parametrize(
    ("model", "options", "compared"),
    # MobileNetV2-SSDLite's deepest maps are a single cell, and from random weights batch norm over eight numbers turns
    # rounding into noise: one process on two threads is as far from one on one. So its mask network only.
    # A DETR has the same trunk, but keeps its statistics where it starts from weights.
    [
        (SSDLITE, (), "omg."),
        ("pvanet-lite-omg", ("--width-multiplier", "0.25"), ""),
        ("sparse-detr-mobilenetv2-omg", ("--weights", "default"), "detector.transformer."),
    ],
)
def test_two_processes_equal_one(
    recipe: Path, shapes: Path, tmp_path: Path, model: str, options: tuple[str, ...], compared: str
) -> None:
    # 128 pixels, where all maps of these two have more cells than one.
    recipe.write_text(RECIPE.replace("64", "128").replace("epochs = 2", "epochs = 1").replace("0.01", "0.002"))
    run([sys.executable, *command(recipe, shapes, tmp_path / "one", *options, model=model)])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run([*torchrun, *command(recipe, shapes, tmp_path / "two", *options, model=model)])
    width = 0.25 if "0.25" in options else 1.0
    torch.manual_seed(0)
    start = {
        name: value
        for name, value in build(model, ("box", "disc"), size=128, width_multiplier=width).state_dict().items()
        if name.startswith(compared)
    }
    one, two = moved(start, tmp_path / "one" / "last.pt"), moved(start, tmp_path / "two" / "last.pt")
    # Sums in another order differ in their last digits; batch norm per process, or gradients averaged instead of
    # summed, would differ by tens of per cent.
    assert one.norm() > 0
    assert (one - two).norm() < 0.01 * one.norm()


def moved(start: dict[str, torch.Tensor], path: Path) -> torch.Tensor:
    """How far training took the weights (not their average) and the running statistics, as one vector."""
    state = load_checkpoint(path).state
    assert state is not None
    # Nothing reads the number of batches, and PVANet's fused batch norms do not count them.
    names = [name for name in start if not name.endswith("num_batches_tracked")]
    return torch.cat([(state["model"][name].double() - start[name].double()).flatten() for name in names])


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


PVANET = {
    "model": "pvanet-9.1-omg", "width_multiplier": 0.125, "epochs": 2, "batch_size": 4, "sizes": ((0.0, 64),),
    "multi_scale": (64, 128), "workers": 0, "optimiser": "sgd", "nesterov": False, "bias_rate": 2.0,
    "schedule": "plateau-loss", "plateau_windows": (2, 3), "warmup_steps": 1, "rois": 16, "proposals": 64,
}  # fmt: skip


def pvanet_run(shapes: Path, output: Path, *, resume: bool = False, **changes: object) -> TrainingRun:
    config = TrainConfig(**{**PVANET, **changes})  # type: ignore[arg-type]
    return open_run(
        config, data=shapes, output=output, weights="none", resume=resume, device="cpu", threads=None, limit=12
    )


def rest_of_epoch(run: TrainingRun, *, steps: int | None = None) -> None:
    run.start_epoch()
    for batch in run.batches():
        run.step(run.forward(batch))
        if run.batch_in_epoch == steps:
            return
    run.finish_epoch()


def test_a_pvanet_resumes_to_the_weights_of_an_unbroken_run(shapes: Path, tmp_path: Path) -> None:
    # 9.1 has dropout; inputs are of random sizes.
    whole, broken = pvanet_run(shapes, tmp_path / "whole"), pvanet_run(shapes, tmp_path / "broken")
    for run in (whole, broken):
        rest_of_epoch(run)
    rest_of_epoch(whole)
    rest_of_epoch(broken, steps=1)
    broken.save()
    resumed = pvanet_run(shapes, tmp_path / "broken", resume=True)
    assert (resumed.epoch, resumed.batch_in_epoch) == (1, 1)
    torch.randn(7)  # whatever else has drawn from the generator that dropout uses
    rest_of_epoch(resumed)
    assert whole.loss_plateau.state() == resumed.loss_plateau.state()
    assert len(whole.loss_plateau.state()["losses"]) == 6
    for (name, first), second in zip(
        whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True
    ):
        assert torch.equal(first, second), name
    rows = [(tmp_path / folder / "log.csv").read_text().splitlines() for folder in ("whole", "broken")]
    assert rows[0][0].startswith("epoch,size,steps,rpn_class,rpn_box,class,box,objectness,learning_rate")
    assert [row.split(",")[:8] for row in rows[0]] == [row.split(",")[:8] for row in rows[1]]
    assert rows[0][1].split(",")[1] == "64-128"


DETR = "sparse-detr-mobilenetv2-omg"


def detr_run(shapes: Path, output: Path, *, resume: bool = False, **changes: object) -> TrainingRun:
    settings = {"model": DETR, "epochs": 2, "batch_size": 4, "sizes": ((0.0, 64),), "workers": 0, "warmup_steps": 1}
    config = TrainConfig(**{**settings, **changes})  # type: ignore[arg-type]
    return open_run(
        config, data=shapes, output=output, weights="default", resume=resume, device="cpu", threads=None, limit=8
    )


def test_a_detr_resumes_to_the_weights_of_an_unbroken_run(shapes: Path, tmp_path: Path) -> None:
    settings = {"token_share": 0.4, "schedule": "steps", "drop_epochs": 1}
    whole = detr_run(shapes, tmp_path / "whole", **settings)
    broken = detr_run(shapes, tmp_path / "broken", **settings)
    for run in (whole, broken):
        rest_of_epoch(run)
    rest_of_epoch(whole)
    rest_of_epoch(broken, steps=1)
    broken.save()
    resumed = detr_run(shapes, tmp_path / "broken", resume=True)
    assert resumed.model.spec.detr == whole.model.spec.detr
    assert resumed.model.detr.share == 0.4
    rest_of_epoch(resumed)
    for mine, theirs in ((whole.model, resumed.model), (whole.average.model, resumed.average.model)):
        for (name, first), second in zip(mine.state_dict().items(), theirs.state_dict().values(), strict=True):
            assert torch.equal(first, second), name
    rows = [(tmp_path / folder / "log.csv").read_text().splitlines() for folder in ("whole", "broken")]
    assert rows[0][0].startswith(
        "epoch,size,steps,class,box,giou,encoder,mask_prediction,correlation,objectness,learning_rate"
    )
    assert [row.split(",")[:11] for row in rows[0]] == [row.split(",")[:11] for row in rows[1]]
    assert float(rows[0][2].split(",")[10]) == pytest.approx(0.1 * float(rows[0][1].split(",")[10]))


@pytest.mark.parametrize("parts", ["omg", "detector"])
def test_only_the_chosen_part_of_a_detr_learns(shapes: Path, tmp_path: Path, parts: str) -> None:
    run = detr_run(shapes, tmp_path, parts=parts)
    before = copy.deepcopy(run.model.state_dict())
    rest_of_epoch(run)
    changed = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name.partition(".")[0] for name in changed} == {parts}
    assert not any("running" in name for name in changed if name.startswith("detector."))
    # The stem and six blocks of the shipped detector's trunk stay, too.
    body = "detector.backbone.0.body."
    assert not any(name.startswith((f"{body}stem", f"{body}blocks.5.")) for name in changed)
    assert any(name.startswith(f"{body}blocks.6.") for name in changed) == (parts == "detector")


def test_a_detr_is_averaged_as_it_is_named(shapes: Path, tmp_path: Path) -> None:
    """Its heads have two or three names, and move once a step all the same."""
    run = detr_run(shapes, tmp_path, ema_decay=0.5)
    start = run.model.detr.class_embed[0].weight.detach().clone()  # type: ignore[union-attr,operator]
    batch = next(iter(run.batches()))
    run.start_epoch()
    run.step(run.forward(batch))
    moved = run.model.detr.class_embed[0].weight.detach() - start  # type: ignore[union-attr,operator]
    average = run.average.model.detr.class_embed[0].weight - start  # type: ignore[union-attr,operator]
    assert moved.abs().max() > 0
    torch.testing.assert_close(average, moved * (1 - 2 / 11))  # of the first update: (1 + 1) / (10 + 1)


def test_random_sizes_are_the_same_each_time_and_of_all_sizes() -> None:
    config = TrainConfig(multi_scale=(448, 832), seed=3)
    drawn = [config.size_of_batch(epoch, batch) for epoch in range(4) for batch in range(50)]
    assert drawn == [config.size_of_batch(epoch, batch) for epoch in range(4) for batch in range(50)]
    assert set(drawn) == set(range(448, 833, 64))


@pytest.mark.parametrize("started", [frozenset(), frozenset({"trunk"}), frozenset({"omg", "trunk", "head"})])
def test_batch_norms_keep_the_statistics_that_they_started_with(
    shapes: Path, tmp_path: Path, started: frozenset[str]
) -> None:
    model = build("pvanet-9.1-omg", ("box", "disc"), size=64, width_multiplier=0.125).eval()
    config = TrainConfig(**{**PVANET, "epochs": 1})  # type: ignore[arg-type]
    opened = pvanet_run(shapes, tmp_path)
    run = TrainingRun(
        config, model, training=opened.training_set.dataset, validation=opened.validation, output=tmp_path / "run",
        device=opened.device, provenance={}, started=started, threads=1,
    )  # fmt: skip
    before = copy.deepcopy(model.state_dict())
    rest_of_epoch(run)
    moved = {
        name.split(".")[1]
        for name, value in model.state_dict().items()
        if name.startswith("detector.") and name.endswith("running_mean") and not torch.equal(value, before[name])
    }
    assert moved == {"trunk", "head"} - started
    # The affine part learns all the same.
    scale = "detector.trunk.conv5_4.last_bn_scale.weight"
    assert not torch.equal(model.state_dict()[scale], before[scale])


def test_a_roi_head_learns_alone(shapes: Path, tmp_path: Path) -> None:
    source = build("pvanet-9.1-omg", ("box", "disc"), size=64, width_multiplier=0.125).eval()
    save_checkpoint(tmp_path / "full.pt", Checkpoint(model=source))
    config = TrainConfig(**{**PVANET, "model": "pvanet-9.1-compressed-omg", "parts": "head"})  # type: ignore[arg-type]
    run = open_run(
        config, data=shapes, output=tmp_path / "run", weights=str(tmp_path / "full.pt"), resume=False, device="cpu",
        threads=None, limit=8,
    )  # fmt: skip
    before = copy.deepcopy(run.model.state_dict())
    rest_of_epoch(run)
    changed = {name for name, value in run.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith("detector.head.") for name in changed)
    assert not any("running" in name for name in changed)


def test_what_only_one_kind_of_detector_has_is_refused_to_the_other(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no RoI head that could learn alone"):
        pvanet_run(
            shapes, tmp_path, model="mobilenetv2-ssdlite-omg", width_multiplier=1.0, parts="head", multi_scale=()
        )
    with pytest.raises(UsageError, match="only the RoI head would learn"):
        pvanet_run(shapes, tmp_path, parts="head")
    with pytest.raises(UsageError, match="cannot learn from a teacher"):
        pvanet_run(shapes, tmp_path, teacher="nobody.param")


@pytest.mark.slow
@pytest.mark.parametrize("model", ["pvanet-lite-omg", "pvanet-9.1-omg"])
def test_a_pvanet_learns_to_find_shapes(shapes: Path, tmp_path: Path, model: str) -> None:
    pytest.importorskip("matplotlib")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        "epochs = 40\nbatch_size = 8\nsizes = [[0.0, 128]]\nlearning_rate = 3e-3\nwarmup_steps = 20\nworkers = 0\n"
        "ema_decay = 0.95\nmosaic = 0.0\nsparse_scenes = 0.0\nproposals_before_nms = 1000\nproposals = 200\n"
        "rois = 64\nevaluate_every = 40\n"
    )
    output = tmp_path / "run"
    scores = json.loads(
        run(
            [
                sys.executable, str(TRAIN), model, "--width-multiplier", "0.25", "--recipe", str(recipe), "--data",
                str(shapes), "-o", str(output), "--device", "cpu", "--threads", "1", "--json",
            ]
        ).stdout
    )  # fmt: skip
    assert scores["ap50_mask_off"] > 0.6
    assert scores["ap50"] > 0.6
    rows = [line.split(",") for line in (output / "log.csv").read_text().splitlines()]
    for column, name in enumerate(rows[0]):
        if name in ("rpn_class", "class"):
            assert float(rows[-1][column]) < 0.5 * float(rows[1][column]), name
    saved = load_checkpoint(output / "best.pt")
    assert saved.spec.width_multiplier == 0.25
    assert saved.provenance["starting_weights"].startswith("random, the mask network default.pt (trained on ")

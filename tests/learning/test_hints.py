"""Hints from a teacher: what the loss counts, that it teaches, and that a run with a teacher resumes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from edgekit.errors import CheckpointError
from edgekit.learning.config import TrainConfig
from edgekit.learning.hints import BACKGROUND_WEIGHT, FeatureHints, hint_loss
from edgekit.learning.run import TrainingRun
from edgekit.learning.start import open_run
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.masking import MaskPyramid
from edgekit.models.yolox import YOLOX


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory, tiny_yolox: ModuleType) -> Path:
    written: Path = tiny_yolox.write(tmp_path_factory.mktemp("teacher"))
    return written


class Constant(nn.Module):
    """An adaptor that always answers 0, under the mask."""

    def forward(self, features: torch.Tensor, _: MaskPyramid) -> torch.Tensor:
        batch, channels, rows, columns = features.shape
        return torch.zeros(batch, rows * columns, channels)


def constant_loss(target: torch.Tensor, mask: torch.Tensor | None, labels: torch.Tensor) -> float:
    return float(hint_loss(nn.ModuleList([Constant()]), [target], [target], mask, labels))


def test_objects_count_more_than_background_and_the_masked_nothing() -> None:
    target = torch.zeros(1, 2, 4, 4)
    target[..., 0, 0], target[..., 3, 3], target[..., 1, 1] = 3.0, 2.0, 100.0
    labels, mask = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    labels[..., 0, 0], mask[..., 1, 1] = 1.0, 0.0
    weights = 1 + 14 * BACKGROUND_WEIGHT
    assert constant_loss(target, mask, labels) == pytest.approx((9 + 4 * BACKGROUND_WEIGHT) / weights)


def test_nothing_learnt_costs_one(teacher: Path) -> None:
    hints = FeatureHints(YOLOX(teacher))
    images = [torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8) for _ in range(4)]
    hints.measure(images)
    targets = hints.targets(hints.teacher(torch.cat(images)))
    losses = [constant_loss(target, None, torch.ones(16, 1, 4, 4)) for target in targets]
    assert losses == pytest.approx([1.0, 1.0], rel=1e-4)


def opened(shapes: Path, output: Path, teacher: Path, *, resume: bool = False, **changes: object) -> TrainingRun:
    config = replace(
        TrainConfig(epochs=2, batch_size=8, sizes=((0.0, 64),), workers=0, warmup_steps=1, teacher=str(teacher)),
        **changes,  # type: ignore[arg-type]
    )
    return open_run(
        config, data=shapes, output=output, weights="none", resume=resume, device="cpu", threads=None, limit=16
    )


def epoch(run: TrainingRun) -> None:
    run.start_epoch()
    for batch in run.batches():
        run.step(run.forward(batch))
    run.finish_epoch()


def test_both_networks_learn_the_teachers_features(shapes: Path, tmp_path: Path, teacher: Path) -> None:
    run = opened(shapes, tmp_path, teacher)
    run.start_epoch()
    batch = next(iter(run.batches()))
    hints = []
    for _ in range(8):
        losses = run.forward(batch)
        hints.append((float(losses.parts["hint"].detach()), float(losses.parts["omg_hint"].detach())))
        run.step(losses)
    assert hints[-1][0] < hints[0][0]
    assert hints[-1][1] < hints[0][1]


@pytest.mark.parametrize("parts", ["both", "omg", "detector"])
def test_only_what_learns_gets_hints(shapes: Path, tmp_path: Path, teacher: Path, parts: str) -> None:
    run = opened(shapes, tmp_path, teacher, parts=parts)
    assert run.hints is not None
    before = {name: value.clone() for name, value in run.hints.named_parameters()}
    epoch(run)
    changed = {
        name.split(".")[0] for name, value in run.hints.named_parameters() if not torch.equal(value, before[name])
    }
    assert changed == ({"omg", "detector"} if parts == "both" else {parts})


def test_a_run_with_a_teacher_resumes(shapes: Path, tmp_path: Path, teacher: Path) -> None:
    whole = opened(shapes, tmp_path / "whole", teacher)
    epoch(whole)
    whole.save()
    epoch(whole)
    resumed = opened(shapes, tmp_path / "whole", teacher, resume=True)
    epoch(resumed)
    for (name, first), second in zip(
        whole.model.state_dict().items(), resumed.model.state_dict().values(), strict=True
    ):
        assert torch.equal(first, second), name


def test_the_teacher_is_credited_and_not_saved(shapes: Path, tmp_path: Path, teacher: Path) -> None:
    run = opened(shapes, tmp_path, teacher)
    run.save()
    saved = load_checkpoint(tmp_path / "last.pt")
    assert saved.provenance["teacher"] == "tiny-yolox"
    assert saved.state is not None
    assert saved.state["hints"]
    assert not any(name.startswith("teacher") for name in saved.state["hints"])


def test_a_teacher_that_is_not_there_is_refused(shapes: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"nobody\.param cannot be read"):
        opened(shapes, tmp_path, tmp_path / "nobody.param")

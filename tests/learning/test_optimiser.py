"""Which of a PVANet's parameters learn how fast."""

from __future__ import annotations

import math

import pytest
import torch

from edgekit.learning.config import TrainConfig
from edgekit.learning.optimiser import build_optimiser, freeze, set_learning_rate
from edgekit.models.registry import build


def shares(config: TrainConfig, started: frozenset[str]) -> dict[str, tuple[float, float]]:
    """Name -> share of the peak rate, and decay."""
    model = build("pvanet-9.1-omg", ("a", "b"), size=64, width_multiplier=0.125)
    freeze(model, config)
    optimiser = build_optimiser(model, config, started=started)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        names[id(parameter)].removeprefix("detector."): (group["share"], group["weight_decay"])
        for group in optimiser.param_groups
        for parameter in group["params"]
    }


def test_parameters_learn_as_published() -> None:
    config = TrainConfig(optimiser="sgd", bias_rate=2.0, backbone_rate=0.1, weight_decay=2e-4, frozen_blocks=0)
    found = shares(config, frozenset({"trunk"}))
    assert found["trunk.conv4_1.incep.0.conv.weight"] == (0.1, 2e-4)
    assert found["trunk.conv4_1.proj.bias"] == (pytest.approx(0.2), 0)
    assert found["trunk.conv4_1.incep.0.bn_scale.weight"] == (0.1, 0)
    assert found["trunk.conv4_1.incep.0.bn_scale.bias"] == (0.1, 0)
    assert found["trunk.conv1_1.scale.bias"] == (pytest.approx(0.2), 0)  # of C.ReLU
    assert found["rpn.rpn_conv1.weight"] == (1.0, 2e-4)
    assert found["head.fc6.bias"] == (2.0, 0)
    assert found["head.bbox_pred.weight"] == (1.0, 2e-4)
    assert found["omg.predict.bias"] == (1.0, 0)
    assert not any(name.startswith("hyper.upsample") for name in found)


def test_adamw_moves_the_box_regressor_by_what_a_delta_is_worth() -> None:
    found = shares(TrainConfig(optimiser="adamw", frozen_blocks=0), frozenset())
    assert found["head.bbox_pred.weight"][0] == pytest.approx(math.sqrt(0.1 * 0.2))
    assert found["head.cls_score.weight"][0] == 1
    assert found["trunk.conv4_1.incep.0.conv.weight"][0] == 1


def test_the_first_blocks_and_everything_but_the_head_can_be_frozen() -> None:
    learning = {name.split(".")[1] for name in shares(TrainConfig(frozen_blocks=2), frozenset()) if "trunk." in name}
    assert {"conv1_1", "conv2_1", "conv2_2"}.isdisjoint(learning)
    assert "conv2_3" in learning
    assert {name.split(".")[0] for name in shares(TrainConfig(parts="head"), frozenset())} == {"head"}


def test_a_drop_is_a_tenth() -> None:
    optimiser = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))], "share": 0.5, "lr": 1.0}])
    config = TrainConfig(schedule="plateau-loss", learning_rate=0.1, warmup_steps=2)
    rates = [set_learning_rate(optimiser, config, step=step, total_steps=9, drops=step // 3) for step in (0, 2, 3, 6)]
    assert rates == pytest.approx([0.05, 0.1, 0.01, 0.001])
    assert optimiser.param_groups[0]["lr"] == pytest.approx(0.0005)

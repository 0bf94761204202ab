"""LARS against steps computed by hand, and its groups against those counted in the published program."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgekit.pretraining.config import PretrainConfig
from edgekit.pretraining.lars import LARS, parameter_groups
from edgekit.pretraining.networks import Learner
from edgekit.pretraining.schedule import build_optimiser


def optimiser(weight: nn.Parameter, *, lr: float, trust: float = 0.001, **group: object) -> LARS:
    settings = {"params": [weight], "adapted": True, "squared": False, "weight_decay": 0.0, **group}
    return LARS([settings], lr=lr, trust=trust)


def move(one: LARS, weight: nn.Parameter, gradient: list[float]) -> list[float]:
    weight.grad = torch.tensor(gradient, dtype=weight.dtype)
    one.step()
    return weight.detach().tolist()


def test_two_steps_by_hand() -> None:
    # |w| = 5, |g| = 2: factor .1 * 5 / (2 + .04 * 5) = .5 / 2.2. Decayed gradient (0 + .12, 2 + .16) = (.12, 2.16).
    weight = nn.Parameter(torch.tensor([3.0, 4.0], dtype=torch.double))
    one = optimiser(weight, lr=0.5, trust=0.1, weight_decay=0.04)
    factor = 0.5 / 2.2
    first = [3 - 0.5 * 0.12 * factor, 4 - 0.5 * 2.16 * factor]
    assert move(one, weight, [0.0, 2.0]) == pytest.approx(first, rel=1e-7)
    # The second: momentum .9 of the first's scaled gradient, plus that of (1, 0) at the new place.
    length = math.hypot(*first)
    second_factor = 0.1 * length / (1 + 0.04 * length)
    velocity = [
        0.9 * 0.12 * factor + (1 + 0.04 * first[0]) * second_factor,
        0.9 * 2.16 * factor + 0.04 * first[1] * second_factor,
    ]
    wanted = [first[0] - 0.5 * velocity[0], first[1] - 0.5 * velocity[1]]
    assert move(one, weight, [1.0, 0.0]) == pytest.approx(wanted, rel=1e-7)


def test_the_first_convolution_moves_by_the_trust_of_its_length() -> None:
    """At rate .0045 and trust .001: |dw| / |w| = 4.5e-6, as measured of the published program."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(64, 3, 7, 7, dtype=torch.double))
    before = weight.detach().clone()
    one = optimiser(weight, lr=0.0045, weight_decay=1e-6)
    weight.grad = torch.randn_like(weight)
    one.step()
    assert float((weight.detach() - before).norm() / before.norm()) == pytest.approx(4.5e-6, rel=1e-4)


@pytest.mark.parametrize(("start", "gradient"), [([0.0, 0.0], [1.0, 2.0]), ([1.0, 2.0], [0.0, 0.0])])
def test_without_length_or_gradient_the_factor_is_one(start: list[float], gradient: list[float]) -> None:
    weight = nn.Parameter(torch.tensor(start, dtype=torch.double))
    one = optimiser(weight, lr=0.5, weight_decay=0.1)
    wanted = [w - 0.5 * (g + 0.1 * w) for w, g in zip(start, gradient, strict=True)]
    assert move(one, weight, gradient) == pytest.approx(wanted)


@pytest.mark.parametrize(("squared", "rate"), [(False, 0.0045), (True, 0.0045**2)])
def test_what_is_left_out_is_plain_sgd_or_moves_with_the_square_of_the_rate(squared: bool, rate: float) -> None:
    bias = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.double))
    one = optimiser(bias, lr=0.0045, adapted=False, squared=squared)
    assert move(one, bias, [10.0, 20.0]) == pytest.approx([1 - rate * 10, -2 - rate * 20], rel=1e-9)
    assert move(one, bias, [0.0, 0.0]) == pytest.approx([1 - 1.9 * rate * 10, -2 - 1.9 * rate * 20], rel=1e-9)


def test_parameters_without_a_gradient_stay() -> None:
    weight = nn.Parameter(torch.ones(2, 2))
    optimiser(weight, lr=1.0, weight_decay=1.0).step()
    assert weight.detach().tolist() == [[1, 1], [1, 1]]


@pytest.fixture(scope="module")
def resnet() -> Learner:
    with torch.device("meta"):
        return Learner("resnet50", width=1.0, hidden=4096, outputs=256, classes=0)


def groups_of(learner: Learner, *, quirks: bool) -> list[dict[str, object]]:
    config = PretrainConfig(backbone="resnet50", published_quirks=quirks)
    return build_optimiser(learner, config).param_groups


def test_groups_of_the_published_program(resnet: Learner) -> None:
    main, left_out = groups_of(resnet, quirks=True)
    assert (len(main["params"]), len(left_out["params"])) == (64, 105)  # type: ignore[arg-type]
    assert (main["adapted"], main["weight_decay"]) == (True, 1e-6)
    assert (left_out["adapted"], left_out["squared"], left_out["weight_decay"]) == (False, True, 0.0)
    names = {id(value): name for name, value in resnet.named_parameters()}
    norms = {names[id(value)] for value in main["params"] if value.ndim < 2}  # type: ignore[attr-defined]
    assert norms == {
        "online.encoder.bn1.weight", "online.projector.net.1.weight", "predictor.net.1.weight",
        *(f"online.encoder.layer{stage}.0.downsample.1.weight" for stage in (1, 2, 3, 4)),
    }  # fmt: skip


def test_groups_without_the_quirks(resnet: Learner) -> None:
    main, left_out = groups_of(resnet, quirks=False)
    assert (len(main["params"]), len(left_out["params"])) == (57, 112)  # type: ignore[arg-type]
    assert {value.ndim for value in left_out["params"]} == {1}  # type: ignore[attr-defined]
    assert not left_out["squared"]


def test_no_parameter_is_in_no_group_or_in_two() -> None:
    with torch.device("meta"):
        learner = Learner("pvanet-9.0", width=0.25, hidden=16, outputs=8, classes=3)
    for optimiser_name in ("lars", "sgd", "adamw"):
        config = PretrainConfig(backbone="pvanet-9.0", optimiser=optimiser_name)
        found = [value for group in build_optimiser(learner, config).param_groups for value in group["params"]]
        wanted = [*learner.online.parameters(), *learner.predictor.parameters()]
        assert len(found) == len(wanted)
        assert {id(value) for value in found} == {id(value) for value in wanted}


def test_names_decide_only_with_the_quirks() -> None:
    named = [("net.1.weight", nn.Parameter(torch.ones(3))), ("bn.weight", nn.Parameter(torch.ones(3, 3)))]
    main, left_out = parameter_groups(named, weight_decay=0.1, published_quirks=True)
    assert (main["params"], left_out["params"]) == ([named[0][1]], [named[1][1]])
    main, left_out = parameter_groups(named, weight_decay=0.1, published_quirks=False)
    assert (main["params"], left_out["params"]) == ([named[1][1]], [named[0][1]])

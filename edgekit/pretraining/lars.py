"""LARS (arXiv 1708.03888): SGD with momentum in which every weight moves in proportion to its own length.

Rules are those of the published programs (https://github.com/kakaobrain/scrl, ``optim/``, on torchlars): the gradient,
with weight decay, is multiplied by ``trust * |w| / (|g| + decay * |w| + eps)``, or by 1 where either length is 0, and
goes through the momentum of plain SGD. Biases and norms are left out of that and of the decay.

The published program has two quirks, which its results were reached with; ``published_quirks`` brings them back:

* A parameter is left out if its name has "bn" or "bias" in it. The weights of norms that are called otherwise are then
  adapted and decayed: of ResNet-50 those of the stem, of the four downsampling shortcuts, of projector and predictor.
* The gradients of what is left out are multiplied by the learning rate, which SGD then does again: they move with its
  square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

EPSILON = 1e-8
MOMENTUM = 0.9


class LARS(torch.optim.Optimizer):
    """See above. Groups have ``adapted`` (LARS's factor), ``squared`` (the second quirk) and ``weight_decay``."""

    def __init__(self, groups: Iterable[dict[str, Any]], *, lr: float, trust: float) -> None:
        defaults = {"lr": lr, "trust": trust, "adapted": True, "squared": False, "weight_decay": 0.0}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        assert closure is None, "losses are computed before the step"
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, group)

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        assert parameter.grad is not None
        gradient = parameter.grad
        if group["adapted"]:
            gradient = adapted(parameter, gradient, trust=group["trust"], weight_decay=group["weight_decay"])
        elif group["squared"]:
            gradient = gradient * group["lr"]
        state = self.state[parameter]
        if "momentum_buffer" in state:
            state["momentum_buffer"].mul_(MOMENTUM).add_(gradient)
        else:
            state["momentum_buffer"] = gradient.clone()
        parameter.sub_(state["momentum_buffer"], alpha=group["lr"])


def adapted(weight: Tensor, gradient: Tensor, *, trust: float, weight_decay: float) -> Tensor:
    """The gradient with weight decay, times LARS's factor."""
    length, steepness = weight.norm(), gradient.norm()
    factor = trust * length / (steepness + weight_decay * length + EPSILON)
    # A comparison on the GPU, so that no step waits for it.
    factor = torch.where((length > 0) & (steepness > 0), factor, torch.ones_like(factor))
    return (gradient + weight_decay * weight) * factor


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], *, weight_decay: float, published_quirks: bool
) -> list[dict[str, Any]]:
    """Two groups: what is adapted and decayed, and what is not.

    Args:
        named: parameters under their published names.
        weight_decay: of the first group.
        published_quirks: by name instead of by dimensions, and the learning rate's square; see above.
    """
    main: list[nn.Parameter] = []
    left_out: list[nn.Parameter] = []
    for name, parameter in named:
        plain = ("bn" in name or "bias" in name) if published_quirks else parameter.ndim < 2
        (left_out if plain else main).append(parameter)
    return [
        {"params": main, "adapted": True, "squared": False, "weight_decay": weight_decay},
        {"params": left_out, "adapted": False, "squared": published_quirks, "weight_decay": 0.0},
    ]

"""What a transformer costs, layer by layer, counted as its publications do: by fvcore's rules. Needs PyTorch.

One multiply-accumulate counts as one. Convolutions, linear layers and products of matrices count, the two of attention
included; a norm costs 5 a value, a sample of ``grid_sample`` 4, a value of a nearest-neighbour resize 1; nothing else
costs anything (https://github.com/facebookresearch/fvcore/blob/main/docs/flop_count.md). Convolutional detectors are
counted by ``edgekit.metrics.macs``, which leaves out norms, since they are folded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_NORM, _SAMPLE = 5, 4
"""Of a value that a norm (its mean, variance, two products and a sum) or ``grid_sample`` (four corners) puts out."""


def count_flops(module: nn.Module, call: Callable[[], object]) -> Counter[nn.Module]:
    """Run ``call``, which runs ``module``, and count for each part of it what it does itself, without its children.

    Shapes suffice: parameters and inputs may be on the device ``meta``.
    """
    counting = _Counting(module)
    handles = [part.register_forward_pre_hook(counting.enter) for part in module.modules()]
    handles += [part.register_forward_hook(counting.leave) for part in module.modules()]
    try:
        with torch.no_grad(), counting:
            call()
    finally:
        for handle in handles:
            handle.remove()
    return counting.flops


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation while it is entered, and which module is at work."""

    def __init__(self, root: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops: Counter[nn.Module] = Counter()
        self._at_work = [root]

    def enter(self, part: nn.Module, _: object) -> None:
        self._at_work.append(part)

    def leave(self, _: nn.Module, __: object, ___: object) -> None:
        self._at_work.pop()

    def __torch_dispatch__(
        self, function: Any, _: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        cost = _COSTS.get(function.overloadpacket.__name__)
        if cost is not None:
            self.flops[self._at_work[-1]] += cost(args, result[0] if isinstance(result, tuple) else result)
        return result


def _convolution(args: Sequence[Any], result: Tensor) -> int:
    weight, transposed = args[1], args[6]
    places = args[0].numel() // args[0].shape[1] if transposed else result.numel() // result.shape[1]
    return int(weight.numel()) * places


def _attention(args: Sequence[Any], _: Tensor) -> int:
    """Queries by keys, and the weights by the values."""
    queries, keys, values = args[:3]
    return int(queries.numel() * keys.shape[-2] + queries[..., 0].numel() * keys.shape[-2] * values.shape[-1])


_COSTS: dict[str, Callable[[Sequence[Any], Tensor], int]] = {
    "convolution": _convolution,
    "addmm": lambda args, _: args[1].numel() * args[2].shape[-1],
    "mm": lambda args, _: args[0].numel() * args[1].shape[-1],
    "bmm": lambda args, _: args[0].numel() * args[1].shape[-1],
    "baddbmm": lambda args, _: args[1].numel() * args[2].shape[-1],
    "native_layer_norm": lambda args, _: _NORM * args[0].numel(),
    "native_group_norm": lambda args, _: _NORM * args[0].numel(),
    "native_batch_norm": lambda args, _: _NORM * args[0].numel(),
    "grid_sampler_2d": lambda _, result: _SAMPLE * result.numel(),
    "upsample_nearest2d": lambda _, result: result.numel(),
}
_COSTS |= dict.fromkeys(
    (
        "_scaled_dot_product_attention_math",
        "_scaled_dot_product_flash_attention",
        "_scaled_dot_product_flash_attention_for_cpu",
        "_scaled_dot_product_efficient_attention",
    ),
    _attention,
)

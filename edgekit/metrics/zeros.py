"""Zero activations of a PyTorch detector and the multiplications they spare: the measure of arXiv 2002.01609.

The paper (MobileNetV2-SSDLite on COCO) reports a mean zero share of 36 % without and 68 % with masks, and 37.89 %
fewer MACs, the mask network included, when only multiplications by a non-zero activation count. This measure supposes
hardware that skips single zeros, ReLU's too; ``metrics.macs.executed_macs`` supposes an engine that skips whole sites.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


@dataclass(frozen=True, kw_only=True)
class LayerZeros:
    """The input of one convolution, summed over the images seen."""

    name: str

    activations: int
    """Input values; padding is none of them."""

    zeros: int
    """Those that are exactly 0."""

    nonzero_macs: int
    """Multiplications by a non-zero input value."""

    @property
    def zero_share(self) -> float:
        """0..1."""
        return self.zeros / self.activations


class ActivationStatistics:
    """Counts at every convolution of ``module`` while the ``with`` block runs it.

    Exact at the cost of one pass over each input: a value at (y, x) meets the output channels of its group once for
    each pair of an output position and a tap that reads (y, x), and that number depends on y and x alone.
    """

    def __init__(self, module: nn.Module, *, prefix: str = "") -> None:
        self._convolutions = {
            f"{prefix}{name}": layer for name, layer in module.named_modules() if isinstance(layer, nn.Conv2d)
        }
        self._counts = {name: [0, 0, 0, 0] for name in self._convolutions}  # images, values, zeros, MACs
        self._readers: dict[tuple[str, int, int], Tensor] = {}
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for name, layer in self._convolutions.items():
            self._handles.append(layer.register_forward_pre_hook(self._hook(name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def layers(self, *, images: int | None = None) -> tuple[LayerZeros, ...]:
        """What was counted so far, in the model's order; layers that never ran are left out.

        With ``images``, those among so many images that a layer did not see count as all zeros: an empty mask spares
        the whole detector.
        """
        result = []
        for name, (seen, activations, zeros, macs) in self._counts.items():
            if seen:
                spared = activations // seen * (max(images, seen) - seen if images else 0)
                result.append(
                    LayerZeros(name=name, activations=activations + spared, zeros=zeros + spared, nonzero_macs=macs)
                )
        return tuple(result)

    def _hook(self, name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def count(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            assert isinstance(layer, nn.Conv2d)
            features = inputs[0]  # [B, C, H, W]
            nonzero = (features != 0).sum(dim=(0, 1))  # [H, W]
            key = (name, int(features.shape[-2]), int(features.shape[-1]))
            if key not in self._readers:
                self._readers[key] = readers(layer, rows=key[1], columns=key[2])
            total = int(nonzero.sum())
            counts = self._counts[name]
            counts[0] += features.shape[0]
            counts[1] += features.numel()
            counts[2] += features.numel() - total
            counts[3] += int((nonzero.cpu() * self._readers[key]).sum()) * (layer.out_channels // layer.groups)

        return count


def readers(layer: nn.Conv2d, *, rows: int, columns: int) -> Tensor:
    """[rows, columns] int64: how many (output position, tap) pairs of ``layer`` read each input position."""
    assert not isinstance(layer.padding, str)
    axes = [
        _readers_along(size, kernel, stride, padding, dilation)
        for size, kernel, stride, padding, dilation in zip(
            (rows, columns), layer.kernel_size, layer.stride, layer.padding, layer.dilation, strict=True
        )
    ]
    return torch.from_numpy(np.outer(*axes))


def _readers_along(size: int, kernel: int, stride: int, padding: int, dilation: int) -> NDArray[np.int64]:
    """[size] the same along one axis."""
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    positions = (np.arange(outputs)[:, None] * stride - padding + np.arange(kernel) * dilation).reshape(-1)
    inside = positions[(positions >= 0) & (positions < size)]
    return np.bincount(inside, minlength=size).astype(np.int64)

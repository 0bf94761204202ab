"""The networks that can be pretrained: trunks of edgekit's detectors, ending in a map of stride 32."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from edgekit.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

Value = TypeVar("Value")

STRIDE = 32
"""Pixels of a view to a cell of the map that is pretrained."""


@dataclass(frozen=True, kw_only=True)
class PretrainableBackbone:
    """One of them."""

    build: Callable[[float], tuple[nn.Module, int]]
    """Width multiplier -> the trunk, freshly initialised, and the channels of its last map; needs PyTorch."""

    mean: tuple[float, float, float] = (128.0, 128.0, 128.0)
    """Subtracted from RGB values 0..255, as the detectors on this trunk do."""

    std: tuple[float, float, float] = (128.0, 128.0, 128.0)
    """Divides the result."""

    widths: bool = False
    """Whether it has others than the published one."""

    parts: tuple[tuple[str, str], ...] = ()
    """(name of a part, its name in published checkpoints), where they differ."""

    def published(self, weights: dict[str, Value]) -> dict[str, Value]:
        """The trunk's state dict under the published names."""
        return {_renamed(name, self.parts): value for name, value in weights.items()}

    def own(self, weights: dict[str, Value]) -> dict[str, Value]:
        """The inverse of :meth:`published`; unknown names stay as they are."""
        parts = tuple((theirs, ours) for ours, theirs in self.parts)
        return {_renamed(name, parts): value for name, value in weights.items()}


def _renamed(name: str, parts: tuple[tuple[str, str], ...]) -> str:
    part, dot, rest = name.partition(".")
    return dict(parts).get(part, part) + dot + rest


def _resnet50(_: float) -> tuple[nn.Module, int]:
    from torch import nn

    from edgekit.models.resnet import ResNet

    network = ResNet(norm=nn.BatchNorm2d)
    return network, network.channels[-1]


def _mobilenetv2(_: float) -> tuple[nn.Module, int]:
    from edgekit.models.mobilenetv2 import LAST_CHANNELS, MobileNetV2

    return MobileNetV2(), LAST_CHANNELS


def _pvanet(version: str) -> Callable[[float], tuple[nn.Module, int]]:
    def build(width: float) -> tuple[nn.Module, int]:
        from edgekit.models.pvanet_lite import LiteTrunk
        from edgekit.models.pvanet_trunk import Trunk

        trunk = LiteTrunk(width=width) if version == "lite" else Trunk(preactivation=version == "9.1", width=width)
        return trunk, trunk.channels[-1]

    return build


BACKBONES: dict[str, PretrainableBackbone] = {
    # The trunk of mobilenetv2-ssdlite-omg and, but for its last convolution, of sparse-detr-mobilenetv2-omg.
    "mobilenetv2": PretrainableBackbone(build=_mobilenetv2),
    # That of sparse-detr-r50-omg, and the one that SCRL was published on.
    "resnet50": PretrainableBackbone(
        build=_resnet50,
        # ImageNet's, edgekit.models.backbone, which imports PyTorch; a test holds the two equal.
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
        # torchvision's ResNet as a sequence, whose members 2, 3 and 8 have no weights.
        parts=(("conv1", "0"), ("bn1", "1"), ("layer1", "4"), ("layer2", "5"), ("layer3", "6"), ("layer4", "7")),
    ),
    # Those of the PVANets of the same names.
    **{
        f"pvanet-{version}": PretrainableBackbone(build=_pvanet(version), widths=True)
        for version in ("9.0", "9.1", "lite")
    },
}
"""By the name that people type."""


def find_backbone(name: str) -> PretrainableBackbone:
    """The entry of ``name``.

    Raises:
        UsageError: there is none; the message names the nearest and all.
    """
    if name in BACKBONES:
        return BACKBONES[name]
    of_detector = next((known for known in BACKBONES if name.startswith(known)), None)
    near = [of_detector] if of_detector else difflib.get_close_matches(name, BACKBONES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise UsageError(f"no backbone that can be pretrained is called {name!r}{hint} There are: {', '.join(BACKBONES)}")

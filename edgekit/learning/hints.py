"""Hints: the networks learn to predict the features of a detector that was trained on far more pictures.

A few thousand boxes say little about what a sheep can look like; a teacher's features say it at every place of every
picture, and more of it transfers to new pictures than its answers would (FitNets, arXiv 1412.6550, section 2.2). Small
adaptors, thrown away after training, map feature maps of the student (the detector's two finest, where most objects are
found, and the objectness network's last two) to the teacher's, which are standardised channel by channel. Background
counts, but less than objects; cells outside the mask do not.

The teacher sees the whole picture, the student what its mask left of it. B batch, G mask grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.learning.distributed import sum_over_processes
from edgekit.models.masking import MaskPyramid
from edgekit.models.mobilenetv2_ssdlite import FEATURE_CHANNELS, Predictor
from edgekit.models.omg import NECK_CHANNELS
from edgekit.models.yolox import YOLOX, View

BACKGROUND_WEIGHT = 0.25
"""Weight of a cell without an object; one with an object weighs 1."""

SMALLEST_DEVIATION = 1e-3
"""Channels of a teacher that never change are left alone."""


@dataclass(frozen=True)
class Lesson:
    """What a teacher says of one batch."""

    hints: FeatureHints
    view: View
    targets: list[Tensor]
    """Of the features, from :meth:`FeatureHints.targets`."""


class FeatureHints(nn.Module):
    """The teacher, the adaptors of both networks, and the loss between them."""

    def __init__(self, teacher: YOLOX) -> None:
        super().__init__()
        self.teacher = teacher
        # No student has a map at stride 8, so the teacher's is averaged onto the one at stride 16.
        fine, middle, coarse = teacher.channels
        self.channels = (fine + middle, coarse)
        self.detector = self._adaptors(FEATURE_CHANNELS)
        self.omg = self._adaptors((NECK_CHANNELS, NECK_CHANNELS))
        for index, channels in enumerate(self.channels):
            self.register_buffer(f"mean_{index}", torch.zeros(channels, 1, 1))
            self.register_buffer(f"deviation_{index}", torch.ones(channels, 1, 1))

    def _adaptors(self, inputs: Sequence[int]) -> nn.ModuleList:
        return nn.ModuleList(
            Predictor(channels, 1, outputs) for channels, outputs in zip(inputs, self.channels, strict=False)
        )

    @torch.no_grad()
    def measure(self, batches: Iterable[Tensor]) -> None:
        """Mean and deviation of the teacher's channels over ``batches``, each uint8 [B, 3, H, W]."""
        pooled = [
            torch.cat(maps) for maps in zip(*(self._maps(self.teacher(images)) for images in batches), strict=True)
        ]
        for index, features in enumerate(pooled):
            self.get_buffer(f"mean_{index}").copy_(features.mean(dim=(0, 2, 3))[:, None, None])
            deviation = features.std(dim=(0, 2, 3), correction=0).clamp_min(SMALLEST_DEVIATION)
            self.get_buffer(f"deviation_{index}").copy_(deviation[:, None, None])

    def lesson(self, images: Tensor) -> Lesson:
        """What the teacher says of ``images``, uint8 [B, 3, H, W]."""
        view = self.teacher(images)
        return Lesson(self, view, self.targets(view))

    def targets(self, view: View) -> list[Tensor]:
        """The teacher's standardised features at strides 16 and 32."""
        return [
            (features - self.get_buffer(f"mean_{index}")) / self.get_buffer(f"deviation_{index}")
            for index, features in enumerate(self._maps(view))
        ]

    def _maps(self, view: View) -> list[Tensor]:
        fine, middle, coarse = view.features
        return [torch.cat([F.avg_pool2d(fine, 2), middle], dim=1), coarse]

    def state(self) -> dict[str, Tensor]:
        """What resuming needs: everything but the teacher."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("teacher.")}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go back to an earlier :meth:`state`."""
        self.load_state_dict({**self.state_dict(), **state})


def hint_loss(
    adaptors: nn.ModuleList, maps: Sequence[Tensor], targets: Sequence[Tensor], mask: Tensor | None, labels: Tensor
) -> Tensor:
    """Mean squared error at active cells, a scalar; 1 is what constant adaptors would give.

    Args:
        adaptors: of one student.
        maps: its feature maps, finest first, at the strides of ``targets`` (further ones are not looked at).
        targets: from :meth:`FeatureHints.targets`.
        mask: [B, 1, G, G] of zeros and ones, or ``None``.
        labels: [B, 1, G, G] 1 where an object is.
    """
    pyramid, total = MaskPyramid(mask), torch.zeros((), device=labels.device)
    for adaptor, features, target in zip(adaptors, maps, targets, strict=False):
        predicted = adaptor(features, pyramid).float()  # [B, rows * columns, channels]
        error = (predicted - target.flatten(2).transpose(1, 2)).square().mean(dim=2)
        objects = F.adaptive_max_pool2d(labels, target.shape[-2:])
        weight = pyramid.apply(BACKGROUND_WEIGHT + (1 - BACKGROUND_WEIGHT) * objects).flatten(1)
        total = total + (error * weight).sum() / sum_over_processes(weight.sum()).clamp_min(1.0)
    return total / len(adaptors)

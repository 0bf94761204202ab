"""A detector with its objectness network: the unit that is trained, saved, exported and run."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.masks.threshold import frame_threshold
from edgekit.models.mobilenetv2_ssdlite import MobileNetV2SSDLite
from edgekit.models.omg import OMG
from edgekit.spec import DetectorSpec


class MaskedDetector(nn.Module):
    """``omg`` says where to look, ``detector`` looks only there.

    The two never share a tensor: the mask between them is binary, so any other source of masks (a polygon, ground
    truth, an intersection of several) can take the place of ``omg``.
    """

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.omg = OMG()
        self.detector = MobileNetV2SSDLite(len(spec.classes))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, 3, H, W] RGB in [-1, 1) -> class logits [B, A, C], box offsets [B, A, 4], objectness [B, 1, G, G]."""
        objectness = self.omg(image)
        logits, offsets = self.detector(image, self.binary_mask(objectness))
        return logits, offsets, objectness

    def binary_mask(self, objectness: Tensor) -> Tensor:
        """Objectness logits [B, 1, G, G] -> mask of zeros and ones, thresholded and dilated as the spec says.

        No gradient passes: the mask net learns from its own labels (see ``edgekit.learning.losses``).
        """
        probability = torch.sigmoid(objectness.detach())
        thresholds = [frame_threshold(best, self.spec) for best in probability.amax(dim=(1, 2, 3)).tolist()]
        mask = (probability >= probability.new_tensor(thresholds)[:, None, None, None]).to(objectness.dtype)
        if self.spec.mask_dilation:
            size = 2 * self.spec.mask_dilation + 1
            mask = F.max_pool2d(mask, kernel_size=size, stride=1, padding=self.spec.mask_dilation)
        return mask

"""A detector with its objectness network: the unit that is trained, saved, exported and run."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.masks.threshold import frame_threshold
from edgekit.models.detr_variants import build_detr
from edgekit.models.mobilenetv2_ssdlite import MobileNetV2SSDLite
from edgekit.models.omg import OMG
from edgekit.models.pvanet import PVANet
from edgekit.models.registry import MODELS
from edgekit.models.sparse_detr import SparseDetr
from edgekit.spec import DetectorSpec

Detector = MobileNetV2SSDLite | PVANet | SparseDetr


class MaskedDetector(nn.Module):
    """``omg`` says where to look, ``detector`` looks only there.

    The two never share a tensor: the mask between them is binary, so any other source of masks (a polygon, ground
    truth, an intersection of several) can take the place of ``omg``.
    """

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.omg = OMG()
        self.detector: Detector = _detector(spec)

    @property
    def one_stage(self) -> MobileNetV2SSDLite:
        """The detector of a spec of the kind ``one_stage``."""
        assert isinstance(self.detector, MobileNetV2SSDLite)
        return self.detector

    @property
    def two_stage(self) -> PVANet:
        """The detector of a spec of the kind ``two_stage``."""
        assert isinstance(self.detector, PVANet)
        return self.detector

    @property
    def detr(self) -> SparseDetr:
        """The detector of a spec of the kind ``detr``."""
        assert isinstance(self.detector, SparseDetr)
        return self.detector

    @property
    def trunk(self) -> nn.Module:
        """What the detector reads features with: where weights of a classifier go."""
        if isinstance(self.detector, SparseDetr):
            assert isinstance(self.detector.body, nn.Module)
            return self.detector.body
        return self.detector.trunk if isinstance(self.detector, PVANet) else self.detector.backbone

    def trunk_blocks(self) -> list[nn.Module]:
        """The trunk's stem and then its blocks, in the order of the data."""
        if isinstance(self.detector, SparseDetr):
            return self.detector.body.stages()
        if isinstance(self.detector, PVANet):
            return list(self.detector.trunk.children())
        return [self.detector.backbone.stem, *self.detector.backbone.blocks]

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


def _detector(spec: DetectorSpec) -> Detector:
    """A freshly initialised detector; raises ``ValueError`` where ``spec`` describes none that can be built."""
    info, classes = MODELS.get(spec.model), len(spec.classes)
    if spec.detr is not None:
        if info is None or info.detr is None:
            raise ValueError(f"no DETR is called {spec.model!r}")
        return build_detr(info.detr, spec.detr, classes=classes)
    if spec.two_stage is None:
        return MobileNetV2SSDLite(classes)
    if info is None or info.variant is None:
        raise ValueError(f"no two-stage detector is called {spec.model!r}")
    return PVANet(info.variant, classes=classes, compressed=info.compressed, width=spec.width_multiplier)

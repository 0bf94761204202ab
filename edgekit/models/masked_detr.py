"""A DETR behind an objectness mask: pictures as every edgekit detector takes them, and a mask of cells.

B batch, G mask grid, Q queries, C classes.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgekit.models.detr_output import DetrOutput
from edgekit.models.masking import MaskPyramid
from edgekit.models.sparse_detr import SparseDetr
from edgekit.spec import DetectorSpec


def detect_under_mask(
    net: SparseDetr, images: Tensor, mask: Tensor | None, spec: DetectorSpec, *, all_heads: bool | None = None
) -> DetrOutput:
    """Run ``net``.

    Args:
        net: the detector.
        images: [B, 3, H, W], normalised as ``spec`` says; sides that are multiples of 64.
        mask: [B, 1, G, G] of zeros and ones; ``None`` is all ones.
        spec: whose ``mean`` and ``std`` the images have.
        all_heads: also what only losses need; ``None`` is in training.
    """
    pyramid = MaskPyramid(mask)
    output: DetrOutput = net(for_backbone(net, pyramid.apply(images), spec), pyramid=pyramid, all_heads=all_heads)
    return output


def for_backbone(net: SparseDetr, images: Tensor, spec: DetectorSpec) -> Tensor:
    """``images`` [B, 3, H, W], normalised as ``spec`` says, as the backbone of ``net`` wants them."""
    means, deviations = net.body.pixel_mean, net.body.pixel_std
    scales = [spec.std / deviation for deviation in deviations]
    shifts = [(spec.mean - mean) / deviation for mean, deviation in zip(means, deviations, strict=True)]
    if scales == [1.0] * 3 and shifts == [0.0] * 3:
        return images
    return images * images.new_tensor(scales)[:, None, None] + images.new_tensor(shifts)[:, None, None]


class DetrGraph(nn.Module):
    """What is exported as the graph ``detector``: the last layer's classes and boxes alone."""

    def __init__(self, net: SparseDetr, spec: DetectorSpec) -> None:
        super().__init__()
        self.net, self.spec = net, spec
        self.training = net.training  # which stays as it is

    def forward(self, image: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Detect.

        Args:
            image: [B, 3, H, W], normalised as the spec says.
            mask: [B, 1, G, G] of zeros and ones; ``None`` is all ones.

        Returns:
            Class logits [B, Q, C], and boxes [B, Q, 4]: centre x, centre y, width and height, 0..1 of the input.
        """
        last = detect_under_mask(self.net, image, mask, self.spec, all_heads=False).decoder[-1]
        return last.logits, last.boxes

"""The objectness mask inside a PyTorch model: ``edgekit.masks.pyramid`` as tensor operations.

The paper multiplies the image and the input of every convolution by the mask (arXiv 2002.01609). Here every
convolution's *output* is multiplied, after its batch norm and activation. As each convolution reads only the image,
such outputs and sums of them, and a strided output is masked at its own resolution, the inputs are exactly zero
outside the mask too; masking outputs needs one multiplication a convolution, also where several layers read it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MaskPyramid:
    """One mask [B, 1, G, G] of zeros and ones at every resolution; ``None`` stands for all ones and costs nothing."""

    def __init__(self, mask: Tensor | None) -> None:
        self._levels = {} if mask is None else {(mask.shape[-2], mask.shape[-1]): mask}
        self._grid = mask

    @property
    def everywhere(self) -> bool:
        """Whether it stands for all ones."""
        return self._grid is None

    def apply(self, features: Tensor) -> Tensor:
        """``features`` [B, C, H, W] with everything outside the mask exactly zero."""
        if self.everywhere:
            return features
        return features * self.at(int(features.shape[-2]), int(features.shape[-1]))

    def at(self, rows: int, columns: int) -> Tensor:
        """The mask [B, 1, rows, columns], of which a coarser cell is active if any cell within it is.

        Raises:
            ValueError: the mask has no such level.
        """
        assert self._grid is not None
        if (rows, columns) not in self._levels:
            level = self._grid
            while level.shape[-2] > rows or level.shape[-1] > columns:
                # A window of two over one row would be right, but OpenVINO refuses it.
                window = tuple(2 if side > 1 else 1 for side in level.shape[-2:])
                level = F.max_pool2d(level, kernel_size=window, stride=2, ceil_mode=True)
            if rows % level.shape[-2] or columns % level.shape[-1]:
                raise ValueError(
                    f"a mask of {self._grid.shape[-2]}x{self._grid.shape[-1]} cells has no level of {rows}x{columns}"
                )
            factor = rows // int(level.shape[-2])
            if factor > 1:
                level = F.interpolate(level, scale_factor=float(factor), mode="nearest")
            self._levels[rows, columns] = level
        return self._levels[rows, columns]


class ConvBNReLU6(nn.Sequential):
    """Convolution, batch norm and, unless ``activation`` is off, ReLU6; the output is masked."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1, activation: bool = True
    ) -> None:
        super().__init__()
        self.add_module(
            "conv", nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
        )
        # Keras's MobileNetV2 trains with eps 1e-3; momentum .03 suits fine-tuning with batches of 16 to 64.
        self.add_module("bn", nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03))
        if activation:
            self.add_module("act", nn.ReLU6(inplace=True))

    def forward(self, features: Tensor, pyramid: MaskPyramid) -> Tensor:  # type: ignore[override]
        """[B, inputs, H, W] -> [B, outputs, H/stride, W/stride]."""
        if self.is_folded():
            return pyramid.apply(self._with_fixed_statistics(features))
        output: Tensor = super().forward(features)  # type: ignore[no-untyped-call]
        return pyramid.apply(output)

    def is_folded(self) -> bool:
        """Whether this is training with fixed statistics, where the output of a cell depends on its inputs alone."""
        return torch.is_grad_enabled() and not self.get_submodule("bn").training

    def _with_fixed_statistics(self, features: Tensor) -> Tensor:
        """The same function with the batch norm folded into the weight: a pass over the features less, both ways.

        Gradients reach the convolution's weight and the batch norm's scale and shift through the product.
        """
        conv, bn = self.get_submodule("conv"), self.get_submodule("bn")
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(bn, nn.BatchNorm2d)
        assert bn.running_mean is not None
        assert bn.running_var is not None
        scale = bn.weight * torch.rsqrt(bn.running_var + bn.eps)
        shift = bn.bias - bn.running_mean * scale
        weight = conv.weight * scale[:, None, None, None]
        output = F.conv2d(features, weight, shift, conv.stride, conv.padding, conv.dilation, conv.groups)
        return F.relu6(output, inplace=True) if hasattr(self, "act") else output

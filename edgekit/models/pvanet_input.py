"""Move a PVANet from the pictures that Caffe's files were trained with to those that edgekit gives its detectors.

Published networks read BGR minus a mean for each channel. A detector of edgekit reads RGB minus 128, divided by 128,
as everything beside it does: letterbox padding and masked background are 0 then, and pixels need no conversion in int8.
"""

from __future__ import annotations

import torch
from torch import nn

from edgekit.models.pvanet import MEAN_BGR, PVANet
from edgekit.models.pvanet_layers import ConvCReLU
from edgekit.spec import DetectorSpec


def read_normalised(network: PVANet) -> None:
    """Change the first convolution, in place, so that RGB pixels normalised as a spec says do what BGR ones did.

    The order and the scale go into its weights. The difference of the means is a constant for every filter, which the
    batch norm or the bias behind it takes. Equal to rounding, but for windows that reach over the rim of the picture or
    of the mask: padding is the grey of 128 there, and was the mean.
    """
    stem = next(network.trunk.children())
    convolution = stem.conv if isinstance(stem, ConvCReLU) else stem
    assert isinstance(convolution, nn.Conv2d)
    weight = convolution.weight
    with torch.no_grad():
        difference = DetectorSpec.mean - torch.tensor(MEAN_BGR, dtype=torch.float64)
        constant = (weight.double().sum(dim=(2, 3)) @ difference.to(weight.device)).to(weight.dtype)  # [filters]
        weight.copy_(weight.flip(1) * DetectorSpec.std)
        if convolution.bias is not None:
            convolution.bias += constant
        else:
            assert isinstance(stem, ConvCReLU)
            assert stem.bn is not None
            assert stem.bn.running_mean is not None
            stem.bn.running_mean -= constant

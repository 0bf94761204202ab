"""A published PVANet on edgekit's pictures."""

from __future__ import annotations

import copy

import pytest
import torch

from edgekit.models.masking import MaskPyramid
from edgekit.models.pvanet import MEAN_BGR, PVANet
from edgekit.models.pvanet_input import read_normalised

RIM = 5
"""Cells of stride 2 that a stem's window may reach padding from."""


@pytest.mark.parametrize("variant", ["9.0", "9.1", "lite"])
def test_normalised_rgb_does_what_bgr_minus_the_mean_did(variant: str) -> None:
    torch.manual_seed(0)
    network = PVANet(variant, width=0.25).eval()
    stem = next(network.trunk.children())
    for norm in stem.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.running_mean, -50, 50)
            torch.nn.init.uniform_(norm.running_var, 100, 1000)
    moved = copy.deepcopy(network)
    read_normalised(moved)
    pixels = torch.randint(0, 256, (1, 3, 64, 96)).float()
    as_caffe = pixels.flip(1) - torch.tensor(MEAN_BGR).view(1, 3, 1, 1)
    pyramid = MaskPyramid(None)
    with torch.no_grad():
        expected = stem(as_caffe, pyramid)
        got = next(moved.trunk.children())((pixels - 128) / 128, pyramid)
    inner = (..., slice(RIM, -RIM), slice(RIM, -RIM))
    assert expected[inner].std() > 0.1
    torch.testing.assert_close(got[inner], expected[inner], rtol=1e-4, atol=1e-3)
    assert not torch.allclose(got, expected, rtol=1e-4, atol=1e-3)  # the rim, as documented

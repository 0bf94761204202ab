"""PVANet against an executor that is written straight from the published layer tables and shares no block with it.

The executor knows convolutions by their rows, and wires them by the names of the published files: functional calls on
random arrays, in double precision, BatchNorm with a factor of 3. The rows also say what each layer costs at 1056x640.

What it runs it also writes down as a Caffe network. Where OpenCV reads those (5.0 does not), it is asked too.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.caffe_weights import load_caffe
from edgekit.models.pvanet import PVANet

FACTOR = 3.0
"""Third blob of every BatchNorm."""

# name, kernel, stride, padding, channels in and out, bias (of 9.1), output of 1056x640, weights, MMAC with 200 RoIs
FULL = """
conv1_1/conv 7 2 3 3 16 n 16x320x528 2352 397.39
conv2_1/1/conv 1 1 0 32 24 y 24x160x264 768 32.44
conv2_1/2/conv 3 1 1 24 24 y 24x160x264 5184 218.97
conv2_1/3/conv 1 1 0 48 64 y 64x160x264 3072 129.76
conv2_1/proj 1 1 0 32 64 y 64x160x264 2048 86.51
conv2_2/1/conv 1 1 0 64 24 y 24x160x264 1536 64.88
conv2_2/2/conv 3 1 1 24 24 y 24x160x264 5184 218.97
conv2_2/3/conv 1 1 0 48 64 y 64x160x264 3072 129.76
conv2_3/1/conv 1 1 0 64 24 y 24x160x264 1536 64.88
conv2_3/2/conv 3 1 1 24 24 y 24x160x264 5184 218.97
conv2_3/3/conv 1 1 0 48 64 y 64x160x264 3072 129.76
conv3_1/1/conv 1 2 0 64 48 y 48x80x132 3072 32.44
conv3_1/2/conv 3 1 1 48 48 y 48x80x132 20736 218.97
conv3_1/3/conv 1 1 0 96 128 y 128x80x132 12288 129.76
conv3_1/proj 1 2 0 64 128 y 128x80x132 8192 86.51
conv3_2/1/conv 1 1 0 128 48 y 48x80x132 6144 64.88
conv3_2/2/conv 3 1 1 48 48 y 48x80x132 20736 218.97
conv3_2/3/conv 1 1 0 96 128 y 128x80x132 12288 129.76
conv3_3/1/conv 1 1 0 128 48 y 48x80x132 6144 64.88
conv3_3/2/conv 3 1 1 48 48 y 48x80x132 20736 218.97
conv3_3/3/conv 1 1 0 96 128 y 128x80x132 12288 129.76
conv3_4/1/conv 1 1 0 128 48 y 48x80x132 6144 64.88
conv3_4/2/conv 3 1 1 48 48 y 48x80x132 20736 218.97
conv3_4/3/conv 1 1 0 96 128 y 128x80x132 12288 129.76
conv4_1/incep/0/conv 1 2 0 128 64 n 64x40x66 8192 21.63
conv4_1/incep/1_reduce/conv 1 2 0 128 48 n 48x40x66 6144 16.22
conv4_1/incep/1_0/conv 3 1 1 48 128 n 128x40x66 55296 145.98
conv4_1/incep/2_reduce/conv 1 2 0 128 24 n 24x40x66 3072 8.11
conv4_1/incep/2_0/conv 3 1 1 24 48 n 48x40x66 10368 27.37
conv4_1/incep/2_1/conv 3 1 1 48 48 n 48x40x66 20736 54.74
conv4_1/incep/poolproj/conv 1 1 0 128 128 n 128x40x66 16384 43.25
conv4_1/out/conv 1 1 0 368 256 y 256x40x66 94208 248.71
conv4_1/proj 1 2 0 128 256 y 256x40x66 32768 86.51
conv4_2/incep/0/conv 1 1 0 256 64 n 64x40x66 16384 43.25
conv4_2/incep/1_reduce/conv 1 1 0 256 64 n 64x40x66 16384 43.25
conv4_2/incep/1_0/conv 3 1 1 64 128 n 128x40x66 73728 194.64
conv4_2/incep/2_reduce/conv 1 1 0 256 24 n 24x40x66 6144 16.22
conv4_2/incep/2_0/conv 3 1 1 24 48 n 48x40x66 10368 27.37
conv4_2/incep/2_1/conv 3 1 1 48 48 n 48x40x66 20736 54.74
conv4_2/out/conv 1 1 0 240 256 y 256x40x66 61440 162.20
conv4_3/incep/0/conv 1 1 0 256 64 n 64x40x66 16384 43.25
conv4_3/incep/1_reduce/conv 1 1 0 256 64 n 64x40x66 16384 43.25
conv4_3/incep/1_0/conv 3 1 1 64 128 n 128x40x66 73728 194.64
conv4_3/incep/2_reduce/conv 1 1 0 256 24 n 24x40x66 6144 16.22
conv4_3/incep/2_0/conv 3 1 1 24 48 n 48x40x66 10368 27.37
conv4_3/incep/2_1/conv 3 1 1 48 48 n 48x40x66 20736 54.74
conv4_3/out/conv 1 1 0 240 256 y 256x40x66 61440 162.20
conv4_4/incep/0/conv 1 1 0 256 64 n 64x40x66 16384 43.25
conv4_4/incep/1_reduce/conv 1 1 0 256 64 n 64x40x66 16384 43.25
conv4_4/incep/1_0/conv 3 1 1 64 128 n 128x40x66 73728 194.64
conv4_4/incep/2_reduce/conv 1 1 0 256 24 n 24x40x66 6144 16.22
conv4_4/incep/2_0/conv 3 1 1 24 48 n 48x40x66 10368 27.37
conv4_4/incep/2_1/conv 3 1 1 48 48 n 48x40x66 20736 54.74
conv4_4/out/conv 1 1 0 240 256 y 256x40x66 61440 162.20
conv5_1/incep/0/conv 1 2 0 256 64 n 64x20x33 16384 10.81
conv5_1/incep/1_reduce/conv 1 2 0 256 96 n 96x20x33 24576 16.22
conv5_1/incep/1_0/conv 3 1 1 96 192 n 192x20x33 165888 109.49
conv5_1/incep/2_reduce/conv 1 2 0 256 32 n 32x20x33 8192 5.41
conv5_1/incep/2_0/conv 3 1 1 32 64 n 64x20x33 18432 12.17
conv5_1/incep/2_1/conv 3 1 1 64 64 n 64x20x33 36864 24.33
conv5_1/incep/poolproj/conv 1 1 0 256 128 n 128x20x33 32768 21.63
conv5_1/out/conv 1 1 0 448 384 y 384x20x33 172032 113.54
conv5_1/proj 1 2 0 256 384 y 384x20x33 98304 64.88
conv5_2/incep/0/conv 1 1 0 384 64 n 64x20x33 24576 16.22
conv5_2/incep/1_reduce/conv 1 1 0 384 96 n 96x20x33 36864 24.33
conv5_2/incep/1_0/conv 3 1 1 96 192 n 192x20x33 165888 109.49
conv5_2/incep/2_reduce/conv 1 1 0 384 32 n 32x20x33 12288 8.11
conv5_2/incep/2_0/conv 3 1 1 32 64 n 64x20x33 18432 12.17
conv5_2/incep/2_1/conv 3 1 1 64 64 n 64x20x33 36864 24.33
conv5_2/out/conv 1 1 0 320 384 y 384x20x33 122880 81.10
conv5_3/incep/0/conv 1 1 0 384 64 n 64x20x33 24576 16.22
conv5_3/incep/1_reduce/conv 1 1 0 384 96 n 96x20x33 36864 24.33
conv5_3/incep/1_0/conv 3 1 1 96 192 n 192x20x33 165888 109.49
conv5_3/incep/2_reduce/conv 1 1 0 384 32 n 32x20x33 12288 8.11
conv5_3/incep/2_0/conv 3 1 1 32 64 n 64x20x33 18432 12.17
conv5_3/incep/2_1/conv 3 1 1 64 64 n 64x20x33 36864 24.33
conv5_3/out/conv 1 1 0 320 384 y 384x20x33 122880 81.10
conv5_4/incep/0/conv 1 1 0 384 64 n 64x20x33 24576 16.22
conv5_4/incep/1_reduce/conv 1 1 0 384 96 n 96x20x33 36864 24.33
conv5_4/incep/1_0/conv 3 1 1 96 192 n 192x20x33 165888 109.49
conv5_4/incep/2_reduce/conv 1 1 0 384 32 n 32x20x33 12288 8.11
conv5_4/incep/2_0/conv 3 1 1 32 64 n 64x20x33 18432 12.17
conv5_4/incep/2_1/conv 3 1 1 64 64 n 64x20x33 36864 24.33
conv5_4/out/conv 1 1 0 320 384 n 384x20x33 122880 81.10
upsample 4 2 1 384 384 n 384x40x66 6144 4.06
convf_rpn 1 1 0 768 128 y 128x40x66 98304 259.52
convf_2 1 1 0 768 384 y 384x40x66 294912 778.57
rpn_conv1 3 1 1 128 384 y 384x40x66 442368 1167.85
rpn_cls_score 1 1 0 384 84 y 84x40x66 32256 85.16
rpn_bbox_pred 1 1 0 384 168 y 168x40x66 64512 170.31
fc6 - - - 18432 4096 y 4096 75497472 15099.49
fc7 - - - 4096 4096 y 4096 16777216 3355.44
cls_score - - - 4096 21 y 21 86016 17.20
bbox_pred - - - 4096 84 y 84 344064 68.81
"""

LITE = """
conv1 4 2 1 3 32 y 32x320x528 1536 259.52
conv2 3 2 1 32 48 y 48x160x264 13824 583.93
conv3 3 2 1 48 96 y 96x80x132 41472 437.94
inc3a/conv1 1 1 0 96 96 y 96x40x66 9216 24.33
inc3a/conv3_1 1 1 0 96 16 y 16x80x132 1536 16.22
inc3a/conv3_2 3 2 1 16 64 y 64x40x66 9216 24.33
inc3a/conv5_1 1 1 0 96 16 y 16x80x132 1536 16.22
inc3a/conv5_2 3 1 1 16 32 y 32x80x132 4608 48.66
inc3a/conv5_3 3 2 1 32 32 y 32x40x66 9216 24.33
inc3b/conv1 1 1 0 192 96 y 96x40x66 18432 48.66
inc3b/conv3_1 1 1 0 192 16 y 16x40x66 3072 8.11
inc3b/conv3_2 3 1 1 16 64 y 64x40x66 9216 24.33
inc3b/conv5_1 1 1 0 192 16 y 16x40x66 3072 8.11
inc3b/conv5_2 3 1 1 16 32 y 32x40x66 4608 12.17
inc3b/conv5_3 3 1 1 32 32 y 32x40x66 9216 24.33
inc3c/conv1 1 1 0 192 96 y 96x40x66 18432 48.66
inc3c/conv3_1 1 1 0 192 16 y 16x40x66 3072 8.11
inc3c/conv3_2 3 1 1 16 64 y 64x40x66 9216 24.33
inc3c/conv5_1 1 1 0 192 16 y 16x40x66 3072 8.11
inc3c/conv5_2 3 1 1 16 32 y 32x40x66 4608 12.17
inc3c/conv5_3 3 1 1 32 32 y 32x40x66 9216 24.33
inc3d/conv1 1 1 0 192 96 y 96x40x66 18432 48.66
inc3d/conv3_1 1 1 0 192 16 y 16x40x66 3072 8.11
inc3d/conv3_2 3 1 1 16 64 y 64x40x66 9216 24.33
inc3d/conv5_1 1 1 0 192 16 y 16x40x66 3072 8.11
inc3d/conv5_2 3 1 1 16 32 y 32x40x66 4608 12.17
inc3d/conv5_3 3 1 1 32 32 y 32x40x66 9216 24.33
inc3e/conv1 1 1 0 192 96 y 96x40x66 18432 48.66
inc3e/conv3_1 1 1 0 192 16 y 16x40x66 3072 8.11
inc3e/conv3_2 3 1 1 16 64 y 64x40x66 9216 24.33
inc3e/conv5_1 1 1 0 192 16 y 16x40x66 3072 8.11
inc3e/conv5_2 3 1 1 16 32 y 32x40x66 4608 12.17
inc3e/conv5_3 3 1 1 32 32 y 32x40x66 9216 24.33
inc4a/conv1 1 1 0 192 128 y 128x20x33 24576 16.22
inc4a/conv3_1 1 1 0 192 32 y 32x40x66 6144 16.22
inc4a/conv3_2 3 2 1 32 96 y 96x20x33 27648 18.25
inc4a/conv5_1 1 1 0 192 16 y 16x40x66 3072 8.11
inc4a/conv5_2 3 1 1 16 32 y 32x40x66 4608 12.17
inc4a/conv5_3 3 2 1 32 32 y 32x20x33 9216 6.08
inc4b/conv1 1 1 0 256 128 y 128x20x33 32768 21.63
inc4b/conv3_1 1 1 0 256 32 y 32x20x33 8192 5.41
inc4b/conv3_2 3 1 1 32 96 y 96x20x33 27648 18.25
inc4b/conv5_1 1 1 0 256 16 y 16x20x33 4096 2.70
inc4b/conv5_2 3 1 1 16 32 y 32x20x33 4608 3.04
inc4b/conv5_3 3 1 1 32 32 y 32x20x33 9216 6.08
inc4c/conv1 1 1 0 256 128 y 128x20x33 32768 21.63
inc4c/conv3_1 1 1 0 256 32 y 32x20x33 8192 5.41
inc4c/conv3_2 3 1 1 32 96 y 96x20x33 27648 18.25
inc4c/conv5_1 1 1 0 256 16 y 16x20x33 4096 2.70
inc4c/conv5_2 3 1 1 16 32 y 32x20x33 4608 3.04
inc4c/conv5_3 3 1 1 32 32 y 32x20x33 9216 6.08
inc4d/conv1 1 1 0 256 128 y 128x20x33 32768 21.63
inc4d/conv3_1 1 1 0 256 32 y 32x20x33 8192 5.41
inc4d/conv3_2 3 1 1 32 96 y 96x20x33 27648 18.25
inc4d/conv5_1 1 1 0 256 16 y 16x20x33 4096 2.70
inc4d/conv5_2 3 1 1 16 32 y 32x20x33 4608 3.04
inc4d/conv5_3 3 1 1 32 32 y 32x20x33 9216 6.08
inc4e/conv1 1 1 0 256 128 y 128x20x33 32768 21.63
inc4e/conv3_1 1 1 0 256 32 y 32x20x33 8192 5.41
inc4e/conv3_2 3 1 1 32 96 y 96x20x33 27648 18.25
inc4e/conv5_1 1 1 0 256 16 y 16x20x33 4096 2.70
inc4e/conv5_2 3 1 1 16 32 y 32x20x33 4608 3.04
inc4e/conv5_3 3 1 1 32 32 y 32x20x33 9216 6.08
upsample 4 2 1 256 256 n 256x40x66 4096 2.70
convf 1 1 0 544 256 y 256x40x66 139264 367.66
rpn_conv1 1 1 0 256 256 y 256x40x66 65536 173.02
rpn_cls_score 1 1 0 256 50 y 50x40x66 12800 33.79
rpn_bbox_pred 1 1 0 256 100 y 100x40x66 25600 67.58
fc6_L - - - 9216 512 y 512 4718592 943.72
fc6_U - - - 512 4096 y 4096 2097152 419.43
fc7_L - - - 4096 128 y 128 524288 104.86
fc7_U - - - 128 4096 y 4096 524288 104.86
cls_score - - - 4096 21 y 21 86016 17.20
bbox_pred - - - 4096 84 y 84 344064 68.81
"""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table."""

    kernel: int
    stride: int
    padding: int
    outputs: int
    bias: bool
    shape: tuple[int, ...]
    weights: int
    mmac: float


def rows(table: str) -> dict[str, Row]:
    """Name of the layer -> its row."""
    found = {}
    for line in table.strip().splitlines():
        name, kernel, stride, padding, _, outputs, bias, shape, weights, mmac = line.split()
        kernel, stride, padding = (text.replace("-", "0") for text in (kernel, stride, padding))
        found[name] = Row(
            kernel=int(kernel),
            stride=int(stride),
            padding=int(padding),
            outputs=int(outputs),
            bias=bias == "y",
            shape=tuple(int(side) for side in shape.split("x")),
            weights=int(weights),
            mmac=float(mmac),
        )
    return found


class Executor:
    """Runs a table; arrays are drawn when a layer is met for the first time."""

    def __init__(self, variant: str, *, width: float, compressed: bool) -> None:
        self.variant, self.width, self.compressed = variant, width, compressed
        self.rows = rows(LITE if variant == "lite" else FULL)
        self.generator = torch.Generator().manual_seed(0)
        self.blobs: dict[str, list[Tensor]] = {}
        self.tops: dict[str, Tensor] = {}
        self.layers: list[str] = []
        self.kinds: dict[str, str] = {}
        self.known: dict[int, tuple[str, Tensor]] = {}

    def name(self, tensor: Tensor, name: str) -> Tensor:
        """Call ``tensor`` so in the Caffe network; it is kept, as its ``id`` must stay its own."""
        self.known[id(tensor)] = name, tensor
        return tensor

    def emit(self, kind: str, output: Tensor, *bottoms: Tensor, name: str | None = None, settings: str = "") -> Tensor:
        """Write a layer down; its output is called as itself."""
        name = name or f"{kind}{len(self.layers)}"
        reads = " ".join(f'bottom: "{self.known[id(bottom)][0]}"' for bottom in bottoms)
        self.layers.append(f'layer {{ name: "{name}" type: "{kind}" {reads} top: "{name}" {settings} }}')
        self.kinds[name] = kind
        return self.name(output, name)

    def relu(self, bottom: Tensor) -> Tensor:
        return self.emit("ReLU", bottom.relu(), bottom)

    def concat(self, bottoms: list[Tensor]) -> Tensor:
        return self.emit("Concat", torch.cat(bottoms, dim=1), *bottoms)

    def add(self, one: Tensor, two: Tensor) -> Tensor:
        return self.emit("Eltwise", one + two, one, two, settings="eltwise_param { operation: SUM }")

    def channels(self, full: int) -> int:
        return max(8, int(full * self.width / 8 + 0.5) * 8)

    def draw(self, name: str, *shapes: tuple[int, ...]) -> list[Tensor]:
        if name not in self.blobs:
            self.blobs[name] = [
                torch.randn(shape, generator=self.generator, dtype=torch.double)
                * ((2 / math.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.3)
                for shape in shapes
            ]
        return self.blobs[name]

    def top(self, name: str, value: Tensor) -> Tensor:
        self.tops[name] = value
        return value

    def conv(self, name: str, bottom: Tensor, *, bias: bool | None = None, outputs: int | None = None) -> Tensor:
        row = self.rows[name]
        outputs = self.channels(row.outputs) if outputs is None else outputs
        shapes: list[tuple[int, ...]] = [(outputs, bottom.shape[1], row.kernel, row.kernel)]
        if row.bias if bias is None else bias:
            shapes.append((outputs,))
        blobs = self.draw(name, *shapes)
        output = F.conv2d(bottom, *blobs, stride=row.stride, padding=row.padding)
        settings = (
            f"convolution_param {{ num_output: {outputs} kernel_size: {row.kernel} stride: {row.stride} "
            f"pad: {row.padding} bias_term: {str(len(shapes) > 1).lower()} }}"
        )
        return self.top(name, self.emit("Convolution", output, bottom, name=name, settings=settings))

    def linear(self, name: str, bottom: Tensor, outputs: int, *, bias: bool = True) -> Tensor:
        shapes: list[tuple[int, ...]] = [(outputs, bottom[0].numel())]
        output = F.linear(bottom.flatten(1), *self.draw(name, *shapes, *[(outputs,)] * bias))
        settings = f"inner_product_param {{ num_output: {outputs} bias_term: {str(bias).lower()} }}"
        return self.top(name, self.emit("InnerProduct", output, bottom, name=name, settings=settings))

    def bn(self, name: str, bottom: Tensor) -> Tensor:
        channels = bottom.shape[1]
        if name not in self.blobs:
            mean = torch.randn(channels, generator=self.generator, dtype=torch.double) * 0.3
            variance = torch.rand(channels, generator=self.generator, dtype=torch.double) + 0.5
            self.blobs[name] = [FACTOR * mean, FACTOR * variance, torch.tensor([FACTOR], dtype=torch.double)]
        mean, variance, factor = self.blobs[name]
        shape = [1, channels] + [1] * (bottom.dim() - 2)
        output = (bottom - (mean / factor).view(shape)) / ((variance / factor).view(shape) + 1e-5).sqrt()
        return self.emit("BatchNorm", output, bottom, name=name, settings="batch_norm_param { use_global_stats: true }")

    def scale(self, name: str, bottom: Tensor) -> Tensor:
        channels = bottom.shape[1]
        if name not in self.blobs:
            self.draw(name, (channels,), (channels,))
            self.blobs[name][0] += 1
        weight, bias = self.blobs[name]
        shape = [1, channels] + [1] * (bottom.dim() - 2)
        output = bottom * weight.view(shape) + bias.view(shape)
        return self.emit("Scale", output, bottom, name=name, settings="scale_param { bias_term: true }")

    def pool(self, bottom: Tensor) -> Tensor:
        """Caffe's size: ceil((H - 3) / 2) + 1, windows cut at the border."""
        height, width = ((side - 3 + 1) // 2 + 1 for side in bottom.shape[-2:])
        padded = F.pad(bottom, (0, 2, 0, 2), value=-torch.inf)
        views = [padded[..., y : y + 2 * height - 1 : 2, x : x + 2 * width - 1 : 2] for y in range(3) for x in range(3)]
        output = torch.stack(views).amax(dim=0)
        return self.emit("Pooling", output, bottom, settings="pooling_param { pool: MAX kernel_size: 3 stride: 2 }")

    def crelu(self, norm: str, scale: str, bottom: Tensor) -> Tensor:
        normal = self.bn(norm, bottom)
        negative = self.emit("Power", -normal, normal, settings="power_param { scale: -1 }")
        return self.relu(self.scale(scale, self.concat([normal, negative])))

    def after(self, name: str, bottom: Tensor, *, relu: bool = True) -> Tensor:
        """Convolution without bias, BatchNorm, Scale, ReLU."""
        output = self.scale(f"{name}/bn_scale", self.bn(f"{name}/bn", self.conv(f"{name}/conv", bottom, bias=False)))
        return self.top(name, self.relu(output) if relu else output)

    def before(self, name: str, bottom: Tensor) -> Tensor:
        """BatchNorm, Scale, ReLU."""
        return self.relu(self.scale(f"{name}/bn_scale", self.bn(f"{name}/bn", bottom)))

    def crelu_block_90(self, name: str, bottom: Tensor) -> Tensor:
        output = self.conv(f"{name}/2/conv", self.after(f"{name}/1", bottom), bias=False)
        output = self.after(f"{name}/3", self.crelu(f"{name}/2/bn", f"{name}/2/scale", output), relu=False)
        return self.top(name, self.add(output, self.shortcut_90(name, bottom)))

    def shortcut_90(self, name: str, bottom: Tensor) -> Tensor:
        if f"{name}/proj" not in self.rows:
            return bottom
        projected = self.bn(f"{name}/proj_bn", self.conv(f"{name}/proj", bottom, bias=True))
        return self.scale(f"{name}/proj_bn_scale", projected)

    def crelu_block_91(self, name: str, bottom: Tensor) -> Tensor:
        active = bottom if name == "conv2_1" else self.before(f"{name}/1", bottom)
        output = self.before(f"{name}/2", self.conv(f"{name}/1/conv", active))
        output = self.crelu(f"{name}/3/bn", f"{name}/3/scale", self.conv(f"{name}/2/conv", output))
        shortcut = self.conv(f"{name}/proj", active) if f"{name}/proj" in self.rows else bottom
        return self.top(name, self.add(self.conv(f"{name}/3/conv", output), shortcut))

    def inception(self, name: str, bottom: Tensor) -> Tensor:
        early = self.variant == "9.1"
        active = self.before(f"{name}/incep", bottom) if early else bottom
        three = self.after(f"{name}/incep/1_0", self.after(f"{name}/incep/1_reduce", active))
        five = self.after(f"{name}/incep/2_0", self.after(f"{name}/incep/2_reduce", active))
        ends = [self.after(f"{name}/incep/0", active), three, self.after(f"{name}/incep/2_1", five)]
        if f"{name}/incep/poolproj/conv" in self.rows:
            ends.append(self.after(f"{name}/incep/poolproj", self.pool(active)))
        together = self.top(f"{name}/incep", self.concat(ends))
        if not early:
            output = self.after(f"{name}/out", together, relu=False)
            return self.top(name, self.add(output, self.shortcut_90(name, bottom)))
        last = name == "conv5_4"
        output = self.after(f"{name}/out", together, relu=False) if last else self.conv(f"{name}/out/conv", together)
        output = self.add(output, self.conv(f"{name}/proj", bottom) if f"{name}/proj" in self.rows else bottom)
        if last:
            output = self.relu(self.scale(f"{name}/last_bn_scale", self.bn(f"{name}/last_bn", output)))
        return self.top(name, output)

    def full_trunk(self, image: Tensor) -> None:
        stem = self.conv("conv1_1/conv", image, bias=False)
        output = self.pool(self.top("conv1_1", self.crelu("conv1_1/bn", "conv1_1/scale", stem)))
        for stage, blocks in (("2", 3), ("3", 4), ("4", 4), ("5", 4)):
            for number in range(1, blocks + 1):
                name = f"conv{stage}_{number}"
                if stage in "45":
                    output = self.inception(name, output)
                elif self.variant == "9.1":
                    output = self.crelu_block_91(name, output)
                else:
                    output = self.crelu_block_90(name, output)

    def lite_conv(self, name: str, bottom: Tensor) -> Tensor:
        return self.top(name, self.relu(self.scale(f"{name}/scale", self.bn(f"{name}/bn", self.conv(name, bottom)))))

    def lite_trunk(self, image: Tensor) -> None:
        output = self.lite_conv("conv3", self.lite_conv("conv2", self.lite_conv("conv1", image)))
        for name in (f"inc{stage}{letter}" for stage in "34" for letter in "abcde"):
            direct = self.lite_conv(f"{name}/conv1", self.pool(output) if name.endswith("a") else output)
            three = self.lite_conv(f"{name}/conv3_2", self.lite_conv(f"{name}/conv3_1", output))
            five = self.lite_conv(f"{name}/conv5_2", self.lite_conv(f"{name}/conv5_1", output))
            output = self.top(name, self.concat([direct, three, self.lite_conv(f"{name}/conv5_3", five)]))

    def upsample(self, bottom: Tensor) -> Tensor:
        line = torch.tensor([0.25, 0.75, 0.75, 0.25], dtype=torch.double)
        weight = torch.outer(line, line).expand(bottom.shape[1], 1, 4, 4).contiguous()
        self.blobs["upsample"] = [weight]
        channels = bottom.shape[1]
        output = F.conv_transpose2d(bottom, weight, stride=2, padding=1, groups=channels)
        settings = (
            f"convolution_param {{ num_output: {channels} group: {channels} kernel_size: 4 stride: 2 pad: 1 "
            "bias_term: false }"
        )
        return self.top("upsample", self.emit("Deconvolution", output, bottom, name="upsample", settings=settings))

    def proposals(self, image: Tensor) -> None:
        """Everything before the RoIs."""
        lite, anchors = self.variant == "lite", 42 if self.variant == "9.1" else 25
        (self.lite_trunk if lite else self.full_trunk)(self.name(image, "data"))
        names = ("conv3", "inc3e", "inc4e") if lite else ("conv3_4", "conv4_4", "conv5_4")
        fine, middle, coarse = (self.tops[name] for name in names)
        together = self.concat([self.pool(fine), middle, self.upsample(coarse)])
        mixed = [self.relu(self.conv(name, together)) for name in (("convf",) if lite else ("convf_rpn", "convf_2"))]
        self.top("features", self.concat(mixed))
        hidden = self.relu(self.conv("rpn_conv1", mixed[0]))
        self.conv("rpn_cls_score", hidden, outputs=2 * anchors)
        self.conv("rpn_bbox_pred", hidden, outputs=4 * anchors)

    def head(self, pooled: Tensor) -> None:
        """Everything behind them."""
        features, hidden = self.name(pooled, "data"), self.channels(4096)
        for name in ("fc6", "fc7"):
            if self.compressed or self.variant == "lite":
                rank = self.channels(128 if self.variant == "lite" and name == "fc7" else 512)
                features = self.linear(f"{name}_L", features, rank, bias=self.variant != "9.0")
                features = self.linear(f"{name}_U", features, hidden)
                if self.variant == "9.1":
                    features = self.bn(f"{name}/bn", features)
                    features = features if name == "fc6" else self.scale("fc7/scale", features)
            else:
                features = self.linear(name, features, hidden)
                features = self.scale(f"{name}/scale", self.bn(f"{name}/bn", features))
            features = self.relu(features)
        self.linear("cls_score", features, 21)
        self.linear("bbox_pred", features, 84)


def caffe_name(path: str) -> str:
    """``trunk.conv2_1.1.conv`` -> ``conv2_1/1/conv``."""
    return path.partition(".")[2].replace(".", "/")


def fill(net: nn.Module, blobs: dict[str, list[Tensor]]) -> None:
    """Give every layer its arrays, each array to exactly one layer."""
    left = dict(blobs)
    with torch.no_grad():
        for path, part in net.named_modules():
            own = list(part.parameters(recurse=False))
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                mean, variance, factor = left.pop(caffe_name(path))
                part.get_buffer("running_mean").copy_(mean / factor)
                part.get_buffer("running_var").copy_(variance / factor)
            elif own:
                for parameter, values in zip(own, left.pop(caffe_name(path)), strict=True):
                    assert parameter.shape == values.shape, path
                    parameter.copy_(values)
    assert not left


def watch(net: nn.Module) -> dict[str, Tensor]:
    """Filled with what every module returns, by its Caffe name."""
    seen: dict[str, Tensor] = {}

    def listen(path: str, part: nn.Module) -> None:
        def hear(_: nn.Module, __: object, output: Tensor | tuple[Tensor, ...]) -> None:
            if isinstance(output, Tensor):
                seen[caffe_name(path)] = output

        part.register_forward_hook(hear)

    for path, part in net.named_modules():
        listen(path, part)
    return seen


def assert_near(name: str, ours: Tensor, theirs: Tensor) -> None:
    """Within 1e-4 of each other, measured by the largest value where that is over 1."""
    assert ours.shape == theirs.shape, name
    far = float((ours.double() - theirs).abs().max()) / max(1.0, float(theirs.abs().max()))
    assert far <= 1e-4, f"{name}: {far}"


FORMS = [("9.0", False), ("9.0", True), ("9.1", False), ("9.1", True), ("lite", True)]


def compare(variant: str, *, compressed: bool, width: float, height: int, across: int, rois: int) -> Iterator[str]:
    """Run both; yields the name of each layer that was compared."""
    torch.manual_seed(0)
    net = PVANet(variant, compressed=compressed, width=width).eval()
    executor = Executor(variant, width=width, compressed=compressed)
    image = torch.randn(1, 3, height, across)
    pooled = torch.randn(rois, net.head.channels, 6, 6)
    executor.proposals(image.double())
    executor.head(pooled.double())
    fill(net, executor.blobs)
    seen = watch(net)
    with torch.no_grad():
        maps = net(image)
        net.head(pooled)
    assert_near("features", maps.features, executor.tops["features"])
    for name, ours in seen.items():
        # A lite convolution returns what ReLU makes of it; the others' own outputs stand under their own names.
        if name in executor.tops:
            assert_near(name, ours, executor.tops[name])
            yield name


@pytest.mark.parametrize(("variant", "compressed"), FORMS)
def test_every_layer_computes_what_the_tables_say(variant: str, compressed: bool) -> None:
    compared = set(compare(variant, compressed=compressed, width=0.25, height=96, across=128, rois=5))
    convolutions = {name for name, row in rows(LITE if variant == "lite" else FULL).items() if row.kernel}
    assert compared >= convolutions
    assert compared >= {"cls_score", "bbox_pred"}


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "compressed"), FORMS)
def test_every_layer_at_full_width_and_size(variant: str, compressed: bool) -> None:
    assert len(list(compare(variant, compressed=compressed, width=1.0, height=640, across=1056, rois=2))) > 70


@pytest.mark.parametrize("variant", ["9.0", "9.1", "lite"])
def test_every_layer_has_the_published_size_and_cost(variant: str) -> None:
    """Weights, output and MACs of each row at 1056x640; the two 1x1 of the proposals depend on the anchors."""
    table = rows(LITE if variant == "lite" else FULL)
    with torch.device("meta"):
        net = PVANet(variant).eval()
        outputs = watch(net)
        inputs: dict[str, Tensor] = {}
        for path, part in net.named_modules():
            part.register_forward_pre_hook(
                lambda _, given, path=path: inputs.__setitem__(caffe_name(path), given[0])  # type: ignore[misc]
            )
        net(torch.empty(1, 3, 640, 1056))
        net.head(torch.empty(200, net.head.channels, 6, 6))
    parts = {caffe_name(path): part for path, part in net.named_modules()}
    for name, row in table.items():
        part, anchors = parts[name], 25 if variant == "9.0" and name in ("rpn_cls_score", "rpn_bbox_pred") else 42
        assert isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
        share = anchors / 42
        weights = part.weight.numel()
        assert weights == round(row.weights * share), name
        if row.kernel:
            assert outputs[name].shape[1:] == (round(row.shape[0] * share), *row.shape[1:]), name
        # A deconvolution is counted by the positions that it reads, as in the table.
        reads = isinstance(part, nn.ConvTranspose2d)
        places = 200 if not row.kernel else (inputs if reads else outputs)[name][0, 0].numel()
        assert weights * places / 1e6 == pytest.approx(row.mmac * share, abs=0.006 if share == 1 else 0.02), name


def varint(value: int) -> bytes:
    """Seven bits a byte, lowest first."""
    return bytes([value]) if value < 0x80 else bytes([value & 0x7F | 0x80]) + varint(value >> 7)


def message(number: int, content: bytes) -> bytes:
    """A field of bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def caffemodel(executor: Executor) -> bytes:
    """Its arrays as Caffe stores them."""
    layers = b""
    for name, blobs in executor.blobs.items():
        content = message(1, name.encode()) + message(2, executor.kinds[name].encode())
        for blob in blobs:
            shape = message(7, message(1, b"".join(map(varint, blob.shape))))
            content += message(7, shape + message(5, blob.float().contiguous().numpy().astype("<f4").tobytes()))
        layers += message(100, content)
    return layers


IMPORT = """
import sys
import cv2
import numpy as np

weights, *steps = sys.argv[1:]
for step in steps:
    net = cv2.dnn.readNetFromCaffe(f"{step}.prototxt", weights)
    with np.load(f"{step}.npz") as given:
        net.setInput(given["data"])
        names = given["names"].tolist()
    np.savez(f"{step}.out.npz", *net.forward(names))
"""
"""OpenCV's Caffe importer on the file ``weights`` and each STEP.prototxt, STEP.npz: results in STEP.out.npz."""


@pytest.fixture(scope="module")
def opencv4(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a Python with OpenCV 4: 5.0 dropped the Caffe importer, and a process cannot have both."""
    folder = tmp_path_factory.mktemp("opencv4")
    package = "opencv-python-headless>=4.10,<5"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, package]
    done = subprocess.run(install, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        pytest.skip(f"{package} cannot be installed here: {done.stdout.strip().splitlines()[-1]}")
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "compressed"), FORMS)
def test_opencv_reads_the_same_network(tmp_path: Path, opencv4: dict[str, str], variant: str, compressed: bool) -> None:
    """The file is read by ``load_caffe`` and by OpenCV's Caffe importer."""
    torch.manual_seed(0)
    net = PVANet(variant, compressed=compressed, width=0.25).eval()
    image, pooled = torch.randn(1, 3, 96, 128), torch.randn(5, net.head.channels, 6, 6)
    executor = Executor(variant, width=0.25, compressed=compressed)
    executor.proposals(image.double())
    before = len(executor.layers)
    features, _ = executor.known[id(executor.tops["features"])]
    executor.head(pooled.double())
    weights = tmp_path / "net.caffemodel"
    weights.write_bytes(caffemodel(executor))
    load_caffe(net, weights)
    with torch.no_grad():
        maps = net(image)
        ours = [(maps.scores, maps.deltas, maps.features), net.head(pooled)]
    texts = [executor.layers[:before], executor.layers[before:]]
    names = [("rpn_cls_score", "rpn_bbox_pred", features), ("cls_score", "bbox_pred")]
    steps = [tmp_path / "proposals", tmp_path / "head"]
    for step, text, wanted, given in zip(steps, texts, names, (image, pooled), strict=True):
        sides = " ".join(f"dim: {side}" for side in given.shape)
        description = "\n".join([f'input: "data" input_shape {{ {sides} }}', *text])
        step.with_suffix(".prototxt").write_text(description)
        np.savez(step.with_suffix(".npz"), data=given.numpy(), names=np.array(wanted))
    done = subprocess.run(
        [sys.executable, "-c", IMPORT, weights, *steps],
        env=opencv4,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    for step, wanted, results in zip(steps, names, ours, strict=True):
        with np.load(step.with_suffix(".out.npz")) as theirs:
            for index, (name, mine) in enumerate(zip(wanted, results, strict=True)):
                assert_near(str(name), mine, torch.from_numpy(theirs[f"arr_{index}"]).double())

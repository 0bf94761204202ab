"""Read an ncnn network (``NAME.param`` beside ``NAME.bin``) as a PyTorch module.

Detectors that others trained on far more pictures than one has oneself are often published in this format. It is read
for teachers (``edgekit.learning.hints``), so only the layers of convolutional detectors are known.

The format: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure. A line of the ``.param`` file is
``type name inputs outputs input-names output-names key=value...``; the ``.bin`` file holds the weights in the order of
the lines, each with a four-byte tag that says float32 or float16, then the bias.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.errors import CheckpointError

MAGIC = "7767517"
FLOAT32_TAG, FLOAT16_TAG = 0, 0x01306B47
MOST_CHANNELS, MOST_KERNEL = 1 << 16, 64
"""Larger numbers are damage, and would ask for absurd memory."""


@dataclass(frozen=True)
class Layer:
    """One line of the ``.param`` file."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    settings: dict[int, str]

    def number(self, key: int, default: int = 0) -> int:
        """The whole number under ``key``."""
        try:
            return int(self.settings.get(key, default))
        except ValueError as error:
            raise CheckpointError(f"layer {self.name}: {key}={self.settings[key]} is not a whole number") from error


class NcnnGraph(nn.Module):
    """The network; ``blobs`` may name any tensor of the ``.param`` file."""

    def __init__(self, layers: Iterable[Layer], weights: dict[str, nn.Conv2d]) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.convolutions = nn.ModuleDict(weights)

    def forward(self, image: Tensor, blobs: tuple[str, ...]) -> list[Tensor]:
        """[B, C, H, W] -> the tensors called ``blobs``."""
        values: dict[str, Tensor] = {}
        for layer in self.layers:
            inputs = [values[name] for name in layer.inputs]
            if layer.kind == "Input":
                results = [image]
            elif layer.kind == "Split":
                results = inputs * len(layer.outputs)
            elif layer.name in self.convolutions:
                results = [_activated(layer, self.convolutions[layer.name](inputs[0]))]
            else:
                results = [OPERATORS[layer.kind](layer, inputs)]
            values.update(zip(layer.outputs, results, strict=True))
        return [values[name] for name in blobs]


def read_ncnn(param: Path) -> NcnnGraph:
    """The network of ``param`` with the weights of the ``.bin`` file beside it.

    Raises:
        CheckpointError: a file is missing, truncated or damaged, or has a layer that is not known here.
    """
    binary = param.with_suffix(".bin")
    try:
        text, raw = param.read_text(encoding="utf-8"), binary.read_bytes()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{param} is not an ncnn .param file: it is not text") from error
    except OSError as error:
        raise CheckpointError(
            f"{error.filename} cannot be read: {error.strerror}.\n"
            f"An ncnn network is two files, {param.name} and {binary.name}."
        ) from error
    layers = _parse(param, text)
    reader = _Weights(binary, raw)
    weights = {layer.name: reader.convolution(layer) for layer in layers if layer.kind.startswith("Convolution")}
    reader.finish()
    return NcnnGraph(layers, weights)


def _parse(param: Path, text: str) -> list[Layer]:
    lines = text.split("\n")
    if lines[0].strip() != MAGIC:
        raise CheckpointError(f"{param} is not an ncnn .param file: it does not start with {MAGIC}")
    layers: list[Layer] = []
    known: set[str] = set()
    for number, line in enumerate(lines[2:], start=3):
        words = line.split()
        if not words:
            continue
        try:
            inputs, outputs = int(words[2]), int(words[3])
            blobs = words[4 : 4 + inputs + outputs]
            if min(inputs, outputs) < 0 or len(blobs) < inputs + outputs or any("=" in name for name in blobs):
                raise ValueError("too few tensors")
            pairs = (word.split("=") for word in words[4 + len(blobs) :])
            settings = {int(key): value for key, value in pairs}
        except (IndexError, ValueError) as error:
            raise CheckpointError(f"{param}, line {number} is not an ncnn layer: {line.strip()!r}") from error
        layer = Layer(words[0], words[1], tuple(blobs[:inputs]), tuple(blobs[inputs:]), settings)
        if not (layer.kind in ("Input", "Split", *OPERATORS) or layer.kind.startswith("Convolution")):
            raise CheckpointError(f"{param}, line {number}: the layer type {layer.kind!r} is not known here")
        missing = [name for name in layer.inputs if name not in known]
        if missing or "." in layer.name:
            raise CheckpointError(f"{param}, line {number}: layer {layer.name!r} reads {missing}, which nothing makes")
        known.update(layer.outputs)
        layers.append(layer)
    if not layers:
        raise CheckpointError(f"{param} holds no layers; is it truncated?")
    return layers


class _Weights:
    """The ``.bin`` file, read from front to back."""

    def __init__(self, path: Path, raw: bytes) -> None:
        self.path, self._raw, self._at = path, raw, 0

    def convolution(self, layer: Layer) -> nn.Conv2d:
        """The next convolution: keys 0 outputs, 1 kernel, 3 stride, 4 padding, 5 bias, 6 weights, 7 groups."""
        outputs, kernel, count = layer.number(0), layer.number(1), layer.number(6)
        groups = layer.number(7, 1)
        sane = 0 < outputs <= MOST_CHANNELS and 0 < kernel <= MOST_KERNEL and 0 < groups <= outputs
        sane = sane and outputs % groups == 0
        inputs = count // (outputs * kernel * kernel) * groups if sane else 0
        if not sane or not 0 < inputs <= MOST_CHANNELS or count * groups != outputs * inputs * kernel * kernel:
            raise CheckpointError(f"{self.path}: layer {layer.name} has impossible sizes {layer.settings}")
        if layer.number(5) != 1 or layer.number(2, 1) != 1:
            raise CheckpointError(f"{self.path}: layer {layer.name} is dilated or has no bias, which is not known here")
        convolution = nn.Conv2d(
            inputs, outputs, kernel, layer.number(3, 1), layer.number(4), groups=groups, bias=True
        ).requires_grad_(False)
        assert convolution.bias is not None
        tag = int.from_bytes(self._take(4), "little")
        if tag not in (FLOAT32_TAG, FLOAT16_TAG):
            raise CheckpointError(f"{self.path}: layer {layer.name} is stored in an unknown way (tag {tag:#x})")
        half = tag == FLOAT16_TAG
        weight = np.frombuffer(self._take(2 * count if half else 4 * count), np.float16 if half else np.float32)
        self._at += -self._at % 4
        bias = np.frombuffer(self._take(4 * outputs), np.float32)
        for values in (weight, bias):
            if not np.isfinite(values).all():
                raise CheckpointError(f"{self.path}: layer {layer.name} holds NaN or infinite values")
        convolution.weight.copy_(_tensor(weight).reshape(convolution.weight.shape))
        convolution.bias.copy_(_tensor(bias))
        return convolution

    def _take(self, count: int) -> bytes:
        part = self._raw[self._at : self._at + count]
        if len(part) < count:
            raise CheckpointError(f"{self.path} is truncated: it has {len(self._raw):,} bytes and goes on")
        self._at += count
        return part

    def finish(self) -> None:
        """Everything must have been read."""
        if self._at != len(self._raw):
            raise CheckpointError(f"{self.path} has {len(self._raw) - self._at:,} bytes that no layer of it reads")


def _tensor(values: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


def _activated(layer: Layer, output: Tensor) -> Tensor:
    """Key 9 fuses an activation: 0 none, 1 ReLU, 4 sigmoid."""
    kind = layer.number(9)
    if kind == 0:
        return output
    if kind == 1:
        return F.relu(output)
    if kind == 4:
        return torch.sigmoid(output)
    raise CheckpointError(f"layer {layer.name} has the activation {kind}, which is not known here")


def _focus(_: Layer, inputs: list[Tensor]) -> Tensor:
    """YOLOv5's space to depth: even and odd rows and columns side by side."""
    image = inputs[0]
    parts = [image[..., row::2, column::2] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))]
    return torch.cat(parts, dim=1)


def _pool(layer: Layer, inputs: list[Tensor]) -> Tensor:
    return F.max_pool2d(inputs[0], layer.number(1), layer.number(2, 1), layer.number(3))


def _enlarge(layer: Layer, inputs: list[Tensor]) -> Tensor:
    return F.interpolate(inputs[0], scale_factor=float(layer.settings.get(1, "1")), mode="nearest")


def _concat(layer: Layer, inputs: list[Tensor]) -> Tensor:
    return torch.cat(inputs, dim=1 + layer.number(0))  # ncnn does not count the batch


def _reshape(layer: Layer, inputs: list[Tensor]) -> Tensor:
    return inputs[0].flatten(2)


OPERATORS: dict[str, Callable[[Layer, list[Tensor]], Tensor]] = {
    "YoloV5Focus": _focus,
    "Swish": lambda _, inputs: F.silu(inputs[0]),
    "BinaryOp": lambda _, inputs: inputs[0] + inputs[1],
    "Pooling": _pool,
    "Interp": _enlarge,
    "Concat": _concat,
    "Reshape": _reshape,
    "Permute": lambda _, inputs: inputs[0].transpose(1, 2),
}
"""Layers without weights."""

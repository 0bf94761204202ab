"""Read ``.caffemodel`` files without Caffe, and fill a PyTorch network from one by layer name.

The format is a protocol buffer (https://protobuf.dev/programming-guides/encoding) of the messages in Caffe's
``caffe.proto``. These fields are read, the others are passed over: NetParameter.layer = 100; LayerParameter.name = 1,
type = 2, blobs = 7; BlobProto.shape = 7, data = 5, double_data = 8, and the older num, channels, height, width = 1 to
4; BlobShape.dim = 1. Files are untrusted: every length is checked against what is left of the message around it.
"""

from __future__ import annotations

import difflib
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekit.errors import CheckpointError
from edgekit.models.pvanet_layers import Scale

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types; 3 and 4 are groups, which Caffe never used."""

MOST_LAYERS, MOST_BLOBS = 1 << 14, 8
"""In a file and in a layer; more is damage, and would make millions of objects of a few bytes each."""

MOST_DIMENSIONS, MOST_SIDE = 8, 1 << 31
"""Larger shapes are damage."""

NAMED_AT_MOST = 5
"""Layers that one message names; a file of another network would name hundreds."""


@dataclass(frozen=True, kw_only=True)
class CaffeLayer:
    """One layer that has weights."""

    name: str
    """E.g. ``conv2_1/1/conv``."""

    kind: str
    """E.g. ``Convolution``."""

    blobs: tuple[NDArray[np.float32], ...]
    """Its weights in Caffe's order, each in the shape that the file states."""


def read_caffemodel(path: Path) -> tuple[CaffeLayer, ...]:
    """The layers of a file that have weights, in the order of the file.

    Raises:
        CheckpointError: the file is missing, truncated, damaged, holds NaN, or names two layers alike.
    """
    try:
        raw = memoryview(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"the Caffe weights {path} cannot be read: {error.strerror}") from error
    layers: list[CaffeLayer] = []
    old_layers = 0
    try:
        for field, wire, value in _fields(raw):
            if field == 100 and wire == BYTES:
                layer = _layer(_bytes(value))
                if layer.blobs:
                    layers.append(layer)
                if len(layers) > MOST_LAYERS:
                    raise _DamageError(f"it has more than {MOST_LAYERS} layers with weights")
            old_layers += field == 2 and wire == BYTES
    except _DamageError as error:
        raise CheckpointError(f"{path} is not a readable .caffemodel file: {error}") from error
    if not layers:
        old = "; it is of an older format, which Caffe's upgrade_net_proto_binary converts" if old_layers else ""
        raise CheckpointError(f"{path} is not a readable .caffemodel file: it holds no layer with weights{old}")
    twice = [name for name, times in Counter(layer.name for layer in layers).items() if times > 1]
    if twice:
        raise CheckpointError(f"{path} has more than one layer called {_listed(twice)}")
    return tuple(layers)


def load_caffe(module: nn.Module, path: Path) -> None:
    """Fill ``module`` from a ``.caffemodel`` file; nothing is changed unless everything fits.

    A layer of the file belongs to the submodule whose path, with "/" for ".", is its name; the first part of the path
    does not count where ``module.CAFFE_PARTS`` has it. BatchNorm's mean and variance are divided by the factor behind
    them, and are zero where it is.

    Raises:
        CheckpointError: the file cannot be read; it has a layer that ``module`` lacks, or lacks one; or a layer is of
            another type or shape.
    """
    layers = {layer.name: layer for layer in read_caffemodel(path)}
    wanted = dict(_caffe_layers(module))
    unknown = [name for name in layers if name not in wanted]
    if unknown:
        near = difflib.get_close_matches(unknown[0], wanted, n=1)
        hint = f"; did the network mean {near[0]!r}?" if near else ""
        raise CheckpointError(f"{path} has layers that the network has not: {_listed(unknown)}{hint}")
    missing = [name for name in wanted if name not in layers]
    if missing:
        merged = "BatchNorm" not in {layer.kind for layer in layers.values()} and any(
            isinstance(wanted[name], nn.BatchNorm1d | nn.BatchNorm2d) for name in missing
        )
        hint = (
            "\nIt has no batch norms: expected the file that was trained, got one with its norms merged.\n"
            "Take the one beside it, original.model instead of test.model"
        )
        raise CheckpointError(f"{path} lacks layers that the network has: {_listed(missing)}{hint * merged}")
    copies = [copy for name, part in wanted.items() for copy in _copies(path, layers[name], part)]
    with torch.no_grad():
        for target, values in copies:
            # A copy, as the file's bytes are read-only and PyTorch warns of that.
            target.copy_(torch.from_numpy(np.array(values)).view(target.shape))


class _DamageError(Exception):
    """The bytes are no message; the text says why."""


def _fields(message: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Number, wire type and value of each field: an int for varints, else the bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        field, wire = tag >> 3, tag & 7
        if field == 0:
            raise _DamageError("a field has the number 0")
        if wire == VARINT:
            value, at = _varint(message, at)
            yield field, wire, value
            continue
        if wire == BYTES:
            length, at = _varint(message, at)
        elif wire in (FIXED32, FIXED64):
            length = 4 if wire == FIXED32 else 8
        else:
            raise _DamageError(f"field {field} is stored in an unknown way ({wire})")
        if length > len(message) - at:
            raise _DamageError(
                f"field {field} should have {length} bytes and {len(message) - at} are left; is it truncated?"
            )
        yield field, wire, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A whole number in groups of seven bits, lowest first, and where the next field begins."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise _DamageError("it ends within a number; is it truncated?")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise _DamageError("a number has more than ten bytes")


def _bytes(value: int | memoryview) -> memoryview:
    assert isinstance(value, memoryview)
    return value


def _layer(message: memoryview) -> CaffeLayer:
    texts = {1: "", 2: ""}
    blobs: list[memoryview] = []
    for field, wire, value in _fields(message):
        if wire == BYTES and field in texts:
            texts[field] = bytes(_bytes(value)).decode("utf-8", errors="replace")
        elif wire == BYTES and field == 7:
            blobs.append(_bytes(value))
    name = texts[1]
    if len(blobs) > MOST_BLOBS:
        raise _DamageError(f"layer {name!r} has {len(blobs)} blobs, and no layer has more than {MOST_BLOBS}")
    try:
        return CaffeLayer(name=name, kind=texts[2], blobs=tuple(_blob(blob) for blob in blobs))
    except _DamageError as error:
        raise _DamageError(f"layer {name!r}: {error}") from error


def _blob(message: memoryview) -> NDArray[np.float32]:
    """The numbers of one blob, in its shape."""
    shape: list[int] | None = None
    old_shape: dict[int, int] = {}
    parts: list[NDArray[np.float32]] = []
    loose = bytearray()  # numbers that are not packed, one in a field
    for field, wire, value in _fields(message):
        if field == 7 and wire == BYTES:
            shape = _dimensions(_bytes(value))
        elif field in (1, 2, 3, 4) and wire == VARINT:
            assert isinstance(value, int)
            old_shape[field] = value
        elif field == 5 and wire == FIXED32:
            loose += _bytes(value)
        elif (field, wire) in ((5, BYTES), (8, BYTES), (8, FIXED64)):
            parts.append(_numbers(_bytes(value), "<f4" if field == 5 else "<f8"))
    if loose:
        parts.append(_numbers(memoryview(loose), "<f4"))
    if shape is None:
        shape = [old_shape.get(field, 1) for field in (1, 2, 3, 4)] if old_shape else [sum(len(part) for part in parts)]
    _check_sides(shape)
    count = sum(len(part) for part in parts)
    if count != math.prod(shape):
        raise _DamageError(f"a blob of shape {shape} should hold {math.prod(shape)} numbers and holds {count}")
    values = parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.float32), *parts])
    if not np.isfinite(values).all():
        raise _DamageError("a blob holds NaN or infinite numbers")
    return values.reshape(shape)


def _numbers(raw: memoryview, kind: str) -> NDArray[np.float32]:
    if len(raw) % np.dtype(kind).itemsize:
        raise _DamageError(f"{len(raw)} bytes are no whole number of {kind[1:]} values")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, which is refused
        return np.asarray(np.frombuffer(raw, kind), np.float32)


def _dimensions(message: memoryview) -> list[int]:
    """BlobShape: whole numbers, packed or one a field."""
    sides: list[int] = []
    for field, wire, value in _fields(message):
        if field != 1:
            continue
        if isinstance(value, int):
            sides.append(value)
        elif wire == BYTES:
            at = 0
            while at < len(value):
                side, at = _varint(value, at)
                sides.append(side)
        if len(sides) > MOST_DIMENSIONS:
            break
    return sides


def _check_sides(shape: list[int]) -> None:
    if len(shape) > MOST_DIMENSIONS or any(side >= MOST_SIDE for side in shape):
        raise _DamageError(f"a blob has the impossible shape {shape}")


def _caffe_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name in Caffe and module of everything that a file holds weights of."""
    parts = getattr(module, "CAFFE_PARTS", ())
    for path, part in module.named_modules():
        if any(isinstance(part, kind) for kind in KINDS):
            first, _, rest = path.partition(".")
            yield (rest if first in parts else path).replace(".", "/"), part


def _copies(path: Path, layer: CaffeLayer, part: nn.Module) -> list[tuple[Tensor, NDArray[np.float32]]]:
    """Where each number of ``layer`` goes in ``part``."""
    kind = next(name for known, name in KINDS.items() if isinstance(part, known))
    if layer.kind != kind:
        raise CheckpointError(f"{path}: layer {layer.name} should be of type {kind}, got {layer.kind!r}")
    if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
        assert part.running_mean is not None
        assert part.running_var is not None
        targets = [part.running_mean, part.running_var, torch.empty(1)]
    else:
        targets = [tensor for tensor in (part.weight, part.bias) if isinstance(tensor, Tensor)]
    expected, found = [list(tensor.shape) for tensor in targets], [list(blob.shape) for blob in layer.blobs]
    # Older files give every blob four sides: what they put in front is 1.
    if list(map(_without_leading_ones, expected)) != list(map(_without_leading_ones, found)):
        raise CheckpointError(f"{path}: layer {layer.name} should have blobs of shapes {expected}, got {found}")
    blobs = list(layer.blobs)
    if kind == "BatchNorm":
        factor = float(blobs.pop().reshape(-1)[0])
        with np.errstate(over="ignore", invalid="ignore"):  # judged below
            blobs = [np.asarray(blob * np.float32(0 if factor == 0 else 1 / factor), np.float32) for blob in blobs]
        if not all(np.isfinite(blob).all() for blob in blobs) or (blobs[1] < 0).any():
            raise CheckpointError(
                f"{path}: layer {layer.name} should have finite means and variances of 0 and more once divided by its "
                f"factor, {factor}; the file is damaged"
            )
    return list(zip(targets, blobs, strict=False))


def _without_leading_ones(shape: list[int]) -> list[int]:
    first = next((place for place, side in enumerate(shape) if side != 1), len(shape))
    return shape[first:]


def _listed(names: Iterable[str]) -> str:
    """The first few of ``names``, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - NAMED_AT_MOST} more" if len(every) > NAMED_AT_MOST else ""
    return ", ".join(every[:NAMED_AT_MOST]) + more


KINDS: dict[type[nn.Module], str] = {
    nn.ConvTranspose2d: "Deconvolution",
    nn.Conv2d: "Convolution",
    nn.Linear: "InnerProduct",
    nn.BatchNorm1d: "BatchNorm",
    nn.BatchNorm2d: "BatchNorm",
    Scale: "Scale",
}
"""What a module is called in a Caffe file."""

"""Which int8 number stands for which value, decided once for the TFLite and the ONNX graph.

real = scale * (quantised - zero_point), quantised in -128..127. Weights are symmetric with a scale per output
channel; activations have one scale and a zero point that represents 0 exactly, so that padding and masked background
stay exact. Operations that only move values (concat, resize, mask, ...) keep their parameters, so tensors that they
connect form groups with one scale. A part of a concat that something else reads too keeps a scale of its own, the
finest for that reader, and is brought to the concat's on the way into it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ExportError
from edgekit.exporters.calibration import Calibration
from edgekit.exporters.onnx_graph import Graph, Node, fused_relu
from edgekit.exporters.ranges import measure

MOVES = frozenset({"Reshape", "Transpose", "Resize", "Concat"})
"""Every input value appears in the output unchanged."""

REAL = frozenset(
    {
        *("Abs", "Cast", "Div", "Erf", "Floor", "Gather", "Gemm", "LayerNormalization", "MatMul", "Min", "ReduceMax"),
        *("ReduceMean", "ScatterND", "Sigmoid", "Sin", "Slice", "Softmax", "Sqrt", "Sub", "TopK", "Unsqueeze"),
    }
)
"""What transformers compute with: it has no integer form here, and neither has what is made of its results."""

POOLS = frozenset({"MaxPool", "AveragePool"})
"""The output lies within the input's range."""

LOGITS = frozenset({"class_logits", "objectness"})
"""Outputs that a sigmoid follows."""

LOGIT_LIMIT = 10.0
"""Logits beyond it saturate in int8: a score of .00005 or of .99995 is as good as 0 or 1. Trained heads say -135 to
some background, and steps of half a logit where objects are cost the built-in detector 1.7 points of AP50."""

BIAS_LIMIT = 2.0**30
"""A bias beyond it would leave no room in the 32-bit accumulator."""


@dataclass(frozen=True)
class Affine:
    """real = scale * (quantised - zero_point)."""

    scale: float
    zero_point: int

    @classmethod
    def of_range(cls, low: float, high: float) -> Affine:
        """The finest parameters that cover ``low``..``high`` and 0, and represent 0 exactly."""
        low, high = min(low, 0.0), max(high, 0.0)
        if high == low:
            return cls(1.0, 0)  # always zero: any scale is exact
        scale = float(np.float32((high - low) / 255))
        return cls(scale, int(np.clip(round(-128 - low / scale), -128, 127)))


MASK = Affine(1.0, 0)
"""0 and 1 are themselves, so that feature * mask multiplies by exactly 1 or exactly 0 at the feature's own scale."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What calibration says about a graph's activations."""

    plan: dict[str, Affine]
    """The parameters of every tensor that an int8 graph can hold."""

    means: dict[str, NDArray[np.float64]]
    """Tensor that a convolution reads -> mean of each of its channels at active sites, [C]."""


def plan_activations(path: Path, graph: Graph, calibration: Calibration) -> dict[str, Affine]:
    """Only the parameters of :func:`measure_activations`."""
    return measure_activations(path, graph, calibration).plan


def measure_activations(path: Path, graph: Graph, calibration: Calibration) -> Measured:
    """Run ``graph`` (the file ``path``) on all calibration inputs.

    Raises:
        ExportError: there is no calibration input, an activation is not finite, or a concat mixes mask and features.
    """
    masks, real = graph.mask_tensors(), real_tensors(graph)
    groups = _groups(graph, masks, real)
    shown = {tensor for group in groups for tensor in group if _shows_range(graph, tensor)}
    found = measure(path, sorted(shown), calibration)
    plan = dict.fromkeys(masks, MASK)
    for group in groups:
        ranges = [calibration.input_ranges[tensor] for tensor in group if tensor in calibration.input_ranges]
        ranges += [(found[tensor].low, found[tensor].high) for tensor in group if tensor in found]
        low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
        if group & LOGITS & set(graph.outputs):
            low, high = max(low, -LOGIT_LIMIT), min(high, LOGIT_LIMIT)
        affine = Affine.of_range(low, high)
        plan.update(dict.fromkeys(group, affine))
    read = {node.inputs[0] for node in graph.nodes if node.op == "Conv"}
    means = {name: part.channel_means for name, part in found.items() if name in read}
    return Measured(plan=plan, means=means)


def _groups(graph: Graph, masks: frozenset[str], real: frozenset[str]) -> list[frozenset[str]]:
    """All feature tensors, those that must share parameters together, in order of first appearance."""
    fused = {node.output: relu.output for node in graph.nodes if (relu := fused_relu(graph, node)) is not None}
    read = {node.inputs[0] for node in graph.nodes if node.op == "Conv"}  # in integers, whatever made it
    apart = masks | (real - read)
    features = [name for name in (*graph.inputs, *(node.output for node in graph.nodes)) if name not in apart]
    parent = {name: name for name in features if name not in fused}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    multiplied = graph.mask_multiplications()
    for node in graph.nodes:
        if node.output in masks | real:
            continue
        same = [multiplied[node.name]] if node.name in multiplied else _unchanged_inputs(graph, node)
        for name in same:
            if node.op == "Concat" and not _is_read_once(graph, name):
                continue
            if name in masks:
                raise ExportError(f"node {node.name!r} ({node.op}) mixes the mask with features; int8 cannot hold both")
            parent[root(node.output)] = root(name)
    groups: dict[str, list[str]] = {}
    for name in parent:
        groups.setdefault(root(name), []).append(name)
    return [frozenset(group) for group in groups.values()]


def _unchanged_inputs(graph: Graph, node: Node) -> list[str]:
    if node.op not in MOVES | POOLS:
        return []
    return [tensor for tensor in node.inputs if tensor and tensor not in graph.constants]


def _shows_range(graph: Graph, tensor: str) -> bool:
    """Whether a tensor's values are not all found in the result of what reads it.

    A feature map that is only read through the mask counts as masked: what it holds outside is thrown away.
    """
    if tensor in graph.outputs:
        return True
    multiplied = graph.mask_multiplications()
    readers = graph.consumers(tensor)
    if not readers or (any(node.op == "Concat" for node in readers) and not _is_read_once(graph, tensor)):
        return True
    return any(node.op not in MOVES and node.name not in multiplied for node in readers)


def _is_read_once(graph: Graph, tensor: str) -> bool:
    """Whether ``tensor``, and all that it was before it was moved, pooled or masked, has one reader."""
    multiplied = graph.mask_multiplications()
    makers = {node.output: node for node in graph.nodes}
    waiting = [tensor]
    while waiting:
        name = waiting.pop()
        if len(graph.consumers(name)) > 1:
            return False
        if name in makers:
            node = makers[name]
            waiting += [multiplied[node.name]] if node.name in multiplied else _unchanged_inputs(graph, node)
    return True


@dataclass(frozen=True, kw_only=True)
class QuantisedConv:
    """Weights and bias of a convolution in integers."""

    weight: NDArray[np.int8]
    """Shape of the float weight, [out, in / groups, kh, kw]; symmetric."""

    weight_scales: NDArray[np.float32]
    """[out]"""

    bias: NDArray[np.int32]
    """[out], in units of ``bias_scales``."""

    bias_scales: NDArray[np.float32]
    """[out] input scale times weight scale."""


def quantise_convolution(
    weight: NDArray[np.float32], bias: NDArray[np.float32], input_scale: float, *, pair_limit: int | None = None
) -> QuantisedConv:
    """Weights to -127..127 with a scale per output channel, bias to the accumulator's units.

    With ``pair_limit`` no two weights of a channel that have one sign add up to more than it, unless the convolution
    is depthwise: see ``onnx_int8.PAIR_LIMIT``.
    """
    rows = weight.reshape(len(weight), -1)
    scales = np.abs(rows).max(axis=1) / 127
    if pair_limit is not None and weight.shape[1] > 1:
        for signed in (np.maximum(rows, 0), np.maximum(-rows, 0)):
            largest = np.partition(signed, max(signed.shape[1] - 2, 0), axis=1)[:, -2:]
            scales = np.maximum(scales, largest.sum(axis=1) / pair_limit)
    # A dead channel (weights ~0, bias not) needs a scale coarse enough that its bias still fits.
    scales = np.maximum(scales, np.abs(bias) / (input_scale * BIAS_LIMIT))
    scales = np.where(scales > 0, scales, 1.0).astype(np.float32)
    bias_scales = (scales * np.float32(input_scale)).astype(np.float32)
    return QuantisedConv(
        weight=np.clip(np.round(weight / scales.reshape(-1, *[1] * (weight.ndim - 1))), -127, 127).astype(np.int8),
        weight_scales=scales,
        bias=np.round(bias.astype(np.float64) / bias_scales).astype(np.int32),
        bias_scales=bias_scales,
    )


def saturated(output: str, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """``values`` of the graph output ``output`` as far as scores can tell them apart: logits within the limit."""
    return np.clip(values, -LOGIT_LIMIT, LOGIT_LIMIT) if output in LOGITS else values


def float_tensors(graph: Graph, keep_float: Iterable[str]) -> frozenset[str]:
    """The tensors that stay float32 because their convolution does, and :func:`real_tensors`.

    A kept convolution's result stays float through everything that only moves or masks it, up to the next operation
    with integer arithmetic; a concat stays float if any of its parts is.
    """
    kept, floats = set(keep_float), set(real_tensors(graph))
    multiplied = graph.mask_multiplications()
    for node in graph.nodes:
        moved = node.op in MOVES | POOLS | {"Clip", "Relu"} or node.name in multiplied
        if node.name in kept or (moved and floats & set(node.inputs)):
            floats.add(node.output)
    return frozenset(floats)


def real_tensors(graph: Graph) -> frozenset[str]:
    """The results of operations without an integer form, of all that reads them up to the next convolution, and masks
    that become rows of tokens, as well as tokens that learn their places."""
    masks = graph.mask_tensors()
    found: set[str] = set()
    for node in graph.nodes:
        rows_of_mask = node.op == "Transpose" and node.inputs[0] in masks
        if node.op != "Conv" and (node.op in REAL or rows_of_mask or found & set(node.inputs) or _places(graph, node)):
            found.add(node.output)
    return frozenset(found)


def _places(graph: Graph, node: Node) -> bool:
    """Whether ``node`` adds constants to tokens: a vision transformer's positions."""
    return (
        node.op == "Add" and len(graph.shapes[node.output]) == 2 and not graph.constants.keys().isdisjoint(node.inputs)
    )

"""Gives the channels between two convolutions about one range, which int8 needs: it has one scale for all of them.

A channel that stays below 0.1 where others reach 6 has four of the 256 steps, and if the next convolution multiplies it
by a large weight, four steps are what the network sees. In MobileNetV2 many channels behind the stem are such. A ReLU6
passes a factor through as long as nothing meets its upper bound, so such a channel is multiplied in the convolution
before it and divided in the convolutions behind it: the same function, a finer step (after arXiv 1906.04721, section
4.1, which does it for pairs of weights; here what activations reach on calibration pictures decides).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.exporters.calibration import Calibration
from edgekit.exporters.onnx_build import build_model, save_model
from edgekit.exporters.onnx_graph import Graph, Node, fused_relu, read_graph, relu_bound
from edgekit.exporters.ranges import measure

BOUND = 6.0
"""Where ReLU6 clips."""

HEADROOM = 1.5
"""Other pictures may exceed the largest calibrated value by so much before the ReLU6 clips what it did not before."""

MOST = 256.0
"""Largest factor: nothing is gained by blowing up what is as good as never there."""


def equalise_file(path: Path, calibration: Calibration) -> None:
    """:func:`equalise` the ONNX graph at ``path`` in place, by what its activations reach on ``calibration``.

    Raises:
        ExportError: not a valid graph, nothing to calibrate with, or an activation is not finite.
    """
    graph = read_graph(path)
    tensors = sorted(tensor for tensor, _, _ in _links(graph))
    if not tensors:
        return
    found = measure(path, tensors, calibration)
    save_model(build_model(equalise(graph, {name: found[name].channel_highs for name in tensors})), path)


def equalise(graph: Graph, highs: Mapping[str, NDArray[np.float64]]) -> Graph:
    """``graph`` with the channels of its ReLU6 outputs multiplied up towards the bound; it computes the same.

    Args:
        graph: with float weights.
        highs: tensor that convolutions read -> the largest value of each of its channels, [C]; others stay.
    """
    constants = dict(graph.constants)
    for tensor, before, behind in _links(graph):
        if tensor not in highs:
            continue
        factors = np.clip(BOUND / (HEADROOM * np.maximum(highs[tensor], 1e-9)), 1.0, MOST)
        factors[highs[tensor] <= 0] = 1.0  # never there at all
        weight = constants[before.inputs[1]]
        constants[before.inputs[1]] = (weight * factors.reshape(-1, 1, 1, 1)).astype(weight.dtype)
        if len(before.inputs) > 2 and before.inputs[2]:
            bias = constants[before.inputs[2]]
            constants[before.inputs[2]] = (bias * factors).astype(bias.dtype)
        for reader in behind:
            weight = constants[reader.inputs[1]]  # [out, in / groups, kh, kw]
            grouped = factors.reshape(-1, weight.shape[1])  # [groups, in / groups]
            divisors = np.repeat(grouped, len(weight) // len(grouped), axis=0)[:, :, None, None]
            constants[reader.inputs[1]] = (weight / divisors).astype(weight.dtype)
    return replace(graph, constants=constants)


def _links(graph: Graph) -> list[tuple[str, Node, tuple[Node, ...]]]:
    """What is read of a convolution's ReLU6 (masked or not), that convolution, and the convolutions that read it.

    Only where nothing else reads the result, and where the weights belong to these convolutions alone.
    """
    multiplied = graph.mask_multiplications()
    links = []
    for node in graph.nodes:
        clip = fused_relu(graph, node) if node.op == "Conv" else None
        if clip is None or relu_bound(graph, clip) != BOUND:
            continue
        tensor, readers = clip.output, graph.consumers(clip.output)
        if len(readers) == 1 and readers[0].name in multiplied:
            tensor, readers = readers[0].output, graph.consumers(readers[0].output)
        alone = all(_owns_weights(graph, conv) for conv in (node, *readers))
        reads_only = all(reader.op == "Conv" and reader.inputs.count(tensor) == 1 for reader in readers)
        if readers and reads_only and alone and not {tensor, clip.output} & set(graph.outputs):
            links.append((tensor, node, readers))
    return links


def _owns_weights(graph: Graph, node: Node) -> bool:
    return all(name in graph.constants and len(graph.consumers(name)) == 1 for name in node.inputs[1:] if name)

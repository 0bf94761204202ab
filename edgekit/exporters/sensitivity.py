"""Which layers suffer most from int8: the names that a refused export gives, and what ``--keep-float worst:N`` keeps.

Every convolution is quantised alone, its weights per channel and its input and output per tensor, while everything
else stays float32; the noise that then reaches the graph's outputs is the layer's error. Errors of single layers about
add up, so keeping the N worst in float removes the most noise that N layers can. (The usual shortcut, comparing each
layer's own output, ranks a layer high whose error the next one discards.)

The quantisation is simulated on the ONNX graph with onnxruntime, whatever engine the export is for: engines differ
in rounding, and that is far below what makes a layer bad.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.decoding import detr
from edgekit.errors import ExportError, UsageError
from edgekit.exporters.calibration import Calibration
from edgekit.exporters.dense_graph import dense_copy
from edgekit.exporters.dependencies import load
from edgekit.exporters.onnx_build import build_model
from edgekit.exporters.onnx_graph import Graph, Node, fused_relu, read_graph
from edgekit.exporters.quantisation import Affine, plan_activations, quantise_convolution, saturated

Tensors = dict[str, NDArray[np.float32]]

SAMPLES = 4
"""Pictures to judge layers by: errors differ between layers by orders of magnitude, between pictures by little."""


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """What int8 in one layer alone does to the outputs."""

    layer: str
    """``GRAPH.CONVOLUTION``, e.g. ``detector.backbone.blocks.3.project.conv``; what ``--keep-float`` takes."""

    noise: float
    """Power of the error relative to the power of the output, averaged over the graph's outputs."""

    @property
    def sqnr_db(self) -> float:
        """Signal to quantisation noise ratio of the outputs in decibels; 40 is good, 10 is bad."""
        return -10 * math.log10(max(self.noise, 1e-20))


def rank_layers(
    graphs: Mapping[str, Path],
    samples: Iterable[Tensors],
    *,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[LayerError, ...]:
    """Every convolution of ``graphs`` (name -> float32 ONNX file), worst first.

    Args:
        graphs: the files that ``export_onnx`` wrote; ranked is what ``dense_graph`` makes of them.
        samples: inputs by name; each graph takes those it knows. A handful is enough (:data:`SAMPLES`).
        threads: of onnxruntime.
        progress: called with (layers done, layers in all).

    Raises:
        ExportError: no sample was given, or a file is no valid graph.
        MissingDependencyError: onnx or onnxruntime is not installed.
    """
    inputs = list(samples)
    if not inputs:
        raise ExportError("ranking layers needs at least one picture, got none")
    calibration = Calibration(inputs=inputs, images=len(inputs), sha256="")
    total = sum(len(read_graph(path).convolutions()) for path in graphs.values())
    errors: list[LayerError] = []
    for name, path in graphs.items():
        with dense_copy(path) as copy:
            graph = read_graph(copy)
            plan = plan_activations(copy, graph, calibration)
        feeds = [{key: sample[key] for key in graph.inputs} for sample in inputs]
        session = _session(graph, threads)
        exact = [_run(session, feed) for feed in feeds]
        for layer in graph.convolutions():
            session = _session(quantise_layer(graph, layer, plan), threads)
            noise = [_noise(_run(session, feed), target) for feed, target in zip(feeds, exact, strict=True)]
            errors.append(LayerError(layer=f"{name}.{layer}", noise=float(np.mean(noise))))
            if progress is not None:
                progress(len(errors), total)
    return tuple(sorted(errors, key=lambda error: -error.noise))


def quantise_layer(graph: Graph, layer: str, plan: Mapping[str, Affine]) -> Graph:
    """``graph`` with the convolution called ``layer`` computing on int8 values, written as float32.

    ``plan`` has the parameters of the convolution's input and of its output (after a ReLU, if one follows).
    """
    node = next(node for node in graph.nodes if node.name == layer)
    last = fused_relu(graph, node) or node
    constants = dict(graph.constants)
    weight = constants[node.inputs[1]]
    bias = constants[node.inputs[2]] if len(node.inputs) > 2 else np.zeros(len(weight), np.float32)
    whole = quantise_convolution(weight, bias, plan[node.inputs[0]].scale)
    constants[node.inputs[1]] = whole.weight * whole.weight_scales.reshape(-1, 1, 1, 1)
    source, exact = f"{layer}.input.int8", f"{last.output}.exact"
    nodes: list[Node] = []
    for current in graph.nodes:
        if current is node:
            nodes += _round_trip(constants, node.inputs[0], source, plan[node.inputs[0]])
            current = replace(current, inputs=(source, *node.inputs[1:]))
        if current.name == last.name:
            nodes.append(replace(current, output=exact))
            nodes += _round_trip(constants, exact, last.output, plan[last.output])
        else:
            nodes.append(current)
    return replace(graph, nodes=tuple(nodes), constants=constants)


def _round_trip(constants: dict[str, NDArray[Any]], source: str, result: str, affine: Affine) -> tuple[Node, Node]:
    """Nodes that round ``source`` to int8 steps and write it to ``result``; their scale goes to ``constants``."""
    names = (f"{result}.scale", f"{result}.zero_point")
    constants[names[0]] = np.array(affine.scale, np.float32)
    constants[names[1]] = np.array(affine.zero_point, np.int8)
    middle = f"{result}.quantised"
    return (
        Node(name=middle, op="QuantizeLinear", inputs=(source, *names), output=middle, attributes={}),
        Node(name=f"{result}.restored", op="DequantizeLinear", inputs=(middle, *names), output=result, attributes={}),
    )


def _session(graph: Graph, threads: int) -> Any:
    onnxruntime = load("onnxruntime", package="onnxruntime", purpose="rank layers by their int8 error")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    # As written: the basic level already rounds the float weights of a convolution between quantised tensors once more,
    # with one scale for all channels, and the extended one turns the pairs of nodes into integer kernels.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = build_model(graph).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _run(session: Any, feed: Tensors) -> Tensors:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feed), strict=True))


def _noise(values: Tensors, exact: Tensors) -> float:
    """Relative error power, averaged over output tensors; logits count as far as scores can tell them apart."""
    if {"class_logits", "boxes"} <= exact.keys():  # a DETR, whose queries have no order
        values = detr.aligned(exact, values)
    shares = []
    for name, target in exact.items():
        target = saturated(name, target)
        error = float(np.square(saturated(name, values[name]).astype(np.float64) - target).sum())
        power = float(np.square(target, dtype=np.float64).sum())
        shares.append(error / power if power else float(error > 0))
    return float(np.mean(shares))


@dataclass(frozen=True, kw_only=True)
class KeepFloat:
    """What ``--keep-float`` asks for: some layers by name, or the ``worst`` ones of the ranking."""

    worst: int = 0
    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> KeepFloat:
        """Read ``worst:N`` or ``NAME,NAME``; an empty text keeps nothing.

        Raises:
            UsageError: N is no positive number, or a name is empty.
        """
        if text.strip() == "":
            return cls()
        if text.startswith("worst:"):
            count = text.removeprefix("worst:")
            if not count.isdecimal() or int(count) < 1:
                raise UsageError(
                    f"--keep-float worst:N expects a positive number of layers, got {count!r}; try worst:3"
                )
            return cls(worst=int(count))
        names = tuple(name.strip() for name in text.split(","))
        if not all(names):
            raise UsageError(f"--keep-float expects worst:N or NAME,NAME, got {text!r} with an empty name")
        return cls(names=names)

    def __bool__(self) -> bool:
        return bool(self.worst or self.names)


def by_graph(layers: Iterable[str], graphs: Iterable[str]) -> dict[str, frozenset[str]]:
    """Split full layer names into graph -> names of its convolutions.

    Raises:
        UsageError: a name does not start with a graph's.
    """
    split: dict[str, set[str]] = {name: set() for name in graphs}
    for layer in layers:
        graph, _, convolution = layer.partition(".")
        if graph not in split or not convolution:
            raise UsageError(
                f"--keep-float: {layer!r} names no layer; names start with {' or '.join(f'{name}.' for name in split)}"
                " and are listed when the gate refuses a model"
            )
        split[graph].add(convolution)
    return {name: frozenset(convolutions) for name, convolutions in split.items()}

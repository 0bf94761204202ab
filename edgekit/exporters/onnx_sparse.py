"""ONNX -> sparse program: one operation of ``edgekit.sparse.program`` for each convolution, and little else.

Multiplications by the mask become nothing, because inactive sites are not computed; a graph in which that would
change a result is refused (``sparse_masks``). Activations, residuals and C.ReLU go into the convolution before them
(``sparse_chains``), concatenations into the operations that write the parts.

* fp32: as is.
* int8: the parameters of the TFLite file (:mod:`edgekit.exporters.quantisation`), moved up by 128 to uint8, so the two
  compute the same but for the rounding of what is fused here and not there. Convolutions named in ``keep_float`` stay
  float32 between DEQUANTISE and QUANTISE.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgekit.errors import ExportError, SparseProgramError
from edgekit.exporters.calibration import Calibration
from edgekit.exporters.conversion import Precision
from edgekit.exporters.onnx_graph import MASK_INPUT, Graph
from edgekit.exporters.quantisation import Affine
from edgekit.exporters.source_graph import read_source
from edgekit.exporters.sparse_chains import find_chains
from edgekit.exporters.sparse_emitter import Emitter, choose_numbers
from edgekit.exporters.sparse_masks import check_masks
from edgekit.exporters.sparse_nodes import refusal
from edgekit.exporters.sparse_ops import CHAINS, HANDLERS
from edgekit.sparse.format import write_program
from edgekit.sparse.program import Kind, Program

FUSED_ONLY = frozenset({"Clip", "Relu", "Neg"})
"""Operations that exist only as a part of another."""


def to_sparse(
    onnx_path: Path,
    out_path: Path,
    precision: Precision,
    calibration: Calibration | None = None,
    keep_float: frozenset[str] = frozenset(),
    *,
    mean: float,
    std: float,
    float_predictions: bool = False,
) -> None:
    """Write a ``.sparse`` file; see :class:`edgekit.exporters.conversion.Converter`.

    Args:
        onnx_path: as for every converter.
        out_path: as for every converter.
        precision: fp32 or int8.
        calibration: as for every converter.
        keep_float: as for every converter.
        mean: subtracted from every pixel; ``DetectorSpec.mean``.
        std: divides the result; ``DetectorSpec.std``.
        float_predictions: in an int8 program, do not round what the last convolutions compute: they give float32
            from integers. Without, outputs take the values that those of a TFLite file can.

    Raises:
        ExportError: an operation or attribute outside the subset, or one whose result would depend on inactive sites
            (the message names the node), fp16, or a request that contradicts itself.
        MissingDependencyError: onnx or (int8) onnxruntime is not installed.
    """
    graph, plan = read_source(onnx_path, precision, calibration, keep_float)
    if precision == "fp16":
        raise ExportError("a sparse program has no half-precision weights; expected fp32 or int8, got fp16")
    program = lower(graph, mean=mean, std=std, plan=plan, keep_float=keep_float, float_predictions=float_predictions)
    try:
        data = write_program(program)
    except SparseProgramError as error:
        raise ExportError(f"{onnx_path} is beyond what a sparse program can hold. {error}") from error
    out_path.parent.mkdir(parents=True, exist_ok=True)
    out_path.write_bytes(data)


def lower(
    graph: Graph,
    *,
    mean: float,
    std: float,
    plan: dict[str, Affine] | None = None,
    keep_float: frozenset[str] = frozenset(),
    float_predictions: bool = False,
) -> Program:
    """The program that computes ``graph``; arguments as in :func:`to_sparse`, and the int8 parameters of each tensor.

    An output [1, A, K] is [A, K] in the program, and one [1, C, H, W] is [H * W, C].

    Raises:
        ExportError: an operation or attribute outside the subset, or one whose result would depend on inactive sites.
    """
    _check_known(graph)
    check_masks(graph)
    numbers = choose_numbers(graph, plan, keep_float, float_predictions=float_predictions)
    emitter = Emitter(graph, numbers)
    _read_image(emitter, mean=mean, std=std)
    chains = find_chains(
        graph,
        lambda conv, add: conv.attributes.get("group", 1) == 1 and numbers.of(conv.output) == numbers.of(add.output),
    )
    places = {chain.place: chain for chain in chains}
    emitter.covered |= {name for chain in chains for name in chain.nodes}
    masks = graph.mask_tensors()
    for node in graph.nodes:
        if node.name in places:
            CHAINS[places[node.name].root.op](emitter, places[node.name])
        elif node.name not in emitter.covered and node.output not in masks:
            if node.op in FUSED_ONLY:
                expected = "a ReLU6, ReLU or C.ReLU of a convolution or sum that only it reads"
                raise refusal(node, expected, node.inputs[0])
            HANDLERS[node.op](emitter, node)
    return emitter.finish()


def _read_image(emitter: Emitter, *, mean: float, std: float) -> None:
    """The INPUT operation."""
    graph = emitter.graph
    images = [name for name in graph.inputs if name != MASK_INPUT]
    if len(images) != 1 or len(graph.shapes[images[0]]) != 4:
        raise ExportError(f"expected an image [1, C, H, W] and perhaps a mask as inputs, got {', '.join(graph.inputs)}")
    output = emitter.new(images[0], emitter.numbers.of(images[0]))
    channels = graph.shapes[images[0]][1]
    emitter.operation(
        Kind.INPUT, output=output, weights=np.full(channels, mean, np.float32), bias=np.full(channels, std, np.float32)
    )


def _check_known(graph: Graph) -> None:
    known = {*HANDLERS, *CHAINS, *FUSED_ONLY}
    for node in graph.nodes:
        if node.op not in known:
            raise ExportError(
                f"node {node.name!r} is a {node.op}, which a sparse program does not know;"
                f" it knows: {', '.join(sorted(known))}"
            )

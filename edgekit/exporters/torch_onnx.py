"""PyTorch -> ONNX: the graphs of a spec, of which ``omg`` (image -> objectness) is the first.

torch's TorchScript exporter folds batch norms and is several times faster than the dynamo one; both give the same
nodes for these models. What it writes is then tidied: constants become initializers, one per use, and every node is
called by its module's path (``backbone.blocks.3.project.conv``), so that a message about a layer can be understood.
"""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import ExportError
from edgekit.exporters.dependencies import load
from edgekit.exporters.onnx_build import OPSET, build_model, save_model
from edgekit.exporters.onnx_graph import Graph, Node, read_graph

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekit.models.masked_detector import MaskedDetector

CONSTANT_NAMES = {
    "Conv": {1: "weight", 2: "bias"},
    "Clip": {1: "min", 2: "max"},
    "Reshape": {1: "shape"},
    "Resize": {1: "roi", 2: "scales", 3: "sizes"},
}
"""What the constant inputs of each operation are called, by position."""


def export_onnx(model: MaskedDetector, directory: Path) -> dict[str, Path]:
    """Write ``omg.onnx``, and ``detector.onnx`` or what it falls into: float32, opset 17, batch 1, evaluation mode.

    Inputs are ``image`` [1, 3, H, W] and ``mask`` [1, 1, G, G]; outputs ``objectness`` [1, 1, G, G],
    ``class_logits`` [1, A, C] and ``box_offsets`` [1, A, 4], all float32. ``edgekit.exporters.pvanet_onnx`` has those
    of a two-stage detector, ``edgekit.exporters.detr_onnx`` those of a DETR. ``model`` is not changed.

    Returns:
        Graph name -> file.

    Raises:
        ExportError: the model uses an operation that ONNX or our converters cannot express.
        MissingDependencyError: torch or onnx is not installed.
    """
    torch = load("torch", package="torch", purpose="export a model")
    model = copy.deepcopy(model).cpu().float().eval()
    spec = model.spec
    image = torch.zeros(1, 3, spec.height, spec.width)
    mask = torch.ones(1, 1, *spec.mask_grid)
    directory.mkdir(parents=True, exist_ok=True)
    paths = {name: directory / f"{name}.onnx" for name in spec.graphs}
    export_graph(model.omg, {"image": image}, ["objectness"], paths["omg"])
    if spec.kind == "detr":
        from edgekit.exporters.detr_onnx import export_detr

        export_detr(model.detr, directory, spec)
        return paths
    if spec.two_stage is not None:
        from edgekit.exporters.pvanet_onnx import export_pvanet

        rois = spec.two_stage.proposals
        export_pvanet(model.two_stage, directory, height=spec.height, width=spec.width, rois=rois)
        return paths
    export_graph(model.detector, {"image": image, "mask": mask}, ["class_logits", "box_offsets"], paths["detector"])
    return paths


def export_graph(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], path: Path) -> None:
    """Write ``module``, in evaluation mode, as one tidied graph.

    Args:
        module: its forward takes ``inputs`` by position, and returns ``outputs``.
        inputs: name -> an example of the one shape that the graph takes.
        outputs: names.
        path: the file.

    Raises:
        ExportError: ONNX cannot express an operation.
        MissingDependencyError: torch or onnx is not installed.
    """
    torch = load("torch", package="torch", purpose="export a model")
    errors = load("torch.onnx.errors", package="torch", purpose="export a model")
    load("onnx", package="onnx", purpose="export a model")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore", DeprecationWarning)  # the exporter's own age
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # mask levels are chosen by shapes, which are fixed
        try:
            torch.onnx.export(
                module,
                tuple(inputs.values()),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=list(inputs),
                output_names=outputs,
            )
        except errors.OnnxExporterError as error:
            raise ExportError(f"{type(module).__name__} cannot be exported to ONNX: {error}") from error
    save_model(build_model(tidy(read_graph(path))), path)


def tidy(graph: Graph) -> Graph:
    """The same graph with nodes, their results and their constants named after the module they came from."""
    names = {node.name: readable_name(node) for node in graph.nodes}
    if len(set(names.values())) < len(names):
        raise ExportError(f"two nodes of the exported graph share a name: {sorted(names.values())}")
    tensors = {node.output: names[node.name] for node in graph.nodes if node.output not in graph.outputs}
    constants, nodes = {}, []
    for node in graph.nodes:
        inputs = []
        for position, tensor in enumerate(node.inputs):
            if tensor in graph.constants:
                part = CONSTANT_NAMES.get(node.op, {}).get(position, str(position))
                inputs.append(f"{names[node.name]}.{part}")
                constants[inputs[-1]] = graph.constants[tensor]
            else:
                inputs.append(tensors.get(tensor, tensor))
        output = tensors.get(node.output, node.output)
        nodes.append(replace(node, name=names[node.name], inputs=tuple(inputs), output=output))
    shapes = {tensors.get(name, name): shape for name, shape in graph.shapes.items()}
    return replace(graph, nodes=tuple(nodes), constants=constants, shapes=shapes)


def readable_name(node: Node) -> str:
    """``/stem/conv/Conv`` -> ``stem.conv``, ``/stem/Mul_1`` -> ``stem.Mul_1``."""
    path = node.name.strip("/").replace("/", ".")
    return path.removesuffix(".Conv") if node.op == "Conv" else path

"""A DETR -> ONNX, in three stages of fixed shapes; between them a token budget is chosen, refined and put back."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.errors import ExportError
from edgekit.exporters.dependencies import load
from edgekit.exporters.onnx_build import build_model, save_model
from edgekit.exporters.onnx_folding import fold_constants
from edgekit.exporters.onnx_graph import read_graph
from edgekit.exporters.torch_onnx import export_graph
from edgekit.spec import TOKEN_STRIDES

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekit.models.sparse_detr import SparseDetr
    from edgekit.spec import DetectorSpec


def export_detr(model: SparseDetr, directory: Path, spec: DetectorSpec) -> None:
    """Write ``backbone.onnx``, an encoder for each number of tokens, and ``decoder.onnx``: float32, opset 17, batch 1.

    S tokens of all levels one after the other, W channels of each, Q queries, C classes. All graphs take ``mask``
    [1, 1, G, G].

    * ``backbone``: ``image`` [1, 3, height, width] -> for each level ``features_STRIDE`` [1, cells, W].
    * ``encoder_N``, one for each of ``spec.encoders``: these -> ``tokens`` [1, S, W], of which N at most are refined.
    * ``decoder``: ``tokens`` -> ``class_logits`` [1, Q, C] and ``boxes`` [1, Q, 4]: centre x, centre y, width, height,
      0..1 of the picture.

    Args:
        model: what to export; it is not changed.
        directory: where to.
        spec: the detector.

    Raises:
        ExportError: the model uses an operation that ONNX cannot express, or levels that cannot be made static.
        MissingDependencyError: torch or onnx is not installed.
        ValueError: a map has no level of the mask.
    """
    torch = load("torch", package="torch", purpose="export a model")
    from edgekit.models.static_detr import BackboneStage, DecoderStage, EncoderStage, StaticDetr

    model = copy.deepcopy(model).cpu().float().eval()
    try:
        static = StaticDetr(model, height=spec.height, width=spec.width, spec=spec).eval()
    except ValueError as error:
        raise ExportError(str(error)) from error
    mask, width = torch.ones(1, 1, *spec.mask_grid), model.size.width
    levels = {
        f"features_{stride}": torch.zeros(1, rows * columns, width)
        for stride, (rows, columns) in zip(TOKEN_STRIDES, static.shapes, strict=False)
    }
    picture = {"image": torch.zeros(1, 3, spec.height, spec.width), "mask": mask}
    write_static(BackboneStage(static), picture, list(levels), directory / "backbone.onnx")
    for name, budget in spec.encoders.items():
        stage = EncoderStage(static, budget)
        write_static(stage, {"mask": mask, **levels}, ["tokens"], directory / f"{name}.onnx")
    tokens = torch.zeros(1, static.positions.shape[0], width)
    outputs = ["class_logits", "boxes"]
    write_static(DecoderStage(static), {"mask": mask, "tokens": tokens}, outputs, directory / "decoder.onnx")


def write_static(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], path: Path) -> None:
    """Write a module of :mod:`edgekit.models.static_detr` with its constants folded; see ``export_graph``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    export_graph(module.eval(), inputs, outputs, path)
    save_model(build_model(fold_constants(read_graph(path))), path)

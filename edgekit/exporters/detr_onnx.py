"""A DETR -> ONNX: one graph for pictures of one size, in which a token budget is chosen, refined and put back."""

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

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekit.models.sparse_detr import SparseDetr
    from edgekit.spec import DetectorSpec


def export_detr(
    model: SparseDetr,
    path: Path,
    *,
    height: int,
    width: int,
    mask_grid: tuple[int, int] | None = None,
    spec: DetectorSpec | None = None,
) -> None:
    """Write one graph: float32, opset 17, batch 1, evaluation mode. ``model`` is not changed.

    It takes ``image`` [1, 3, height, width] and, with ``mask_grid``, ``mask`` [1, 1, rows, columns]; it gives
    ``class_logits`` [1, Q, C] and ``boxes`` [1, Q, 4]: centre x, centre y, width, height, 0..1 of the picture.

    Args:
        model: what to export.
        path: the file.
        height: of the input in pixels.
        width: likewise.
        mask_grid: rows and columns of the mask; ``None`` leaves it out.
        spec: whose ``mean`` and ``std`` the image has; ``None`` is those of the backbone.

    Raises:
        ExportError: the model uses an operation that ONNX cannot express, or levels that cannot be made static.
        MissingDependencyError: torch or onnx is not installed.
        ValueError: a map has no level of the mask.
    """
    torch = load("torch", package="torch", purpose="export a model")
    from edgekit.models.static_detr import StaticDetr

    try:
        static = StaticDetr(copy.deepcopy(model).cpu().float().eval(), height=height, width=width, spec=spec).eval()
    except ValueError as error:
        raise ExportError(str(error)) from error
    inputs = {"image": torch.zeros(1, 3, height, width)}
    if mask_grid is not None:
        inputs["mask"] = torch.ones(1, 1, *mask_grid)
    write_static(static, inputs, ["class_logits", "boxes"], path)


def write_static(module: nn.Module, inputs: dict[str, Tensor], outputs: list[str], path: Path) -> None:
    """Write a module of :mod:`edgekit.models.static_detr` with its constants folded; see ``export_graph``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    export_graph(module, inputs, outputs, path)
    save_model(build_model(fold_constants(read_graph(path))), path)

"""PVANet -> ONNX: the graph ``shared``, all that does not depend on RoIs, and the graph ``head``, which reads them.

Between the two lie the proposals and the pooling (``edgekit.models.pvanet_rois``), which inference engines have no
operations for. Batch norms are folded; what is left of those that read a sum, a factor and a shift for every channel,
becomes a depthwise 1x1 convolution, which every converter and the native engine know.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.exporters.dependencies import load
from edgekit.exporters.torch_onnx import export_graph

if TYPE_CHECKING:
    from torch import nn

    from edgekit.models.pvanet import PVANet


def export_pvanet(network: PVANet, directory: Path, *, height: int, width: int, rois: int) -> dict[str, Path]:
    """Write ``shared.onnx`` and ``head.onnx``: float32, batch 1, evaluation mode. ``network`` is not changed.

    ``shared`` takes ``image`` [1, 3, height, width], BGR minus the mean, and ``mask`` [1, 1, height / 16, width / 16];
    it gives ``rpn_logits`` [1, cells, 2A], ``rpn_deltas`` [1, cells, 4A] and ``features`` [1, cells, C], a row a cell,
    in the order of rows and columns. ``head`` takes the pooled features as ``image`` [1, C * 36, rois, 1] and
    ``mask`` [1, 1, rois, 1], 0 where there is no RoI; it gives ``roi_logits`` [1, rois, K + 1] and ``roi_deltas``
    [1, rois, 4 (K + 1)].

    Args:
        network: what to export.
        directory: where to.
        height: of the input in pixels, a multiple of 32.
        width: likewise.
        rois: how many RoIs one call of the head takes.

    Returns:
        Graph name -> file.

    Raises:
        ExportError: the network uses an operation that ONNX or our converters cannot express.
        MissingDependencyError: torch or onnx is not installed.
        ValueError: a side is no multiple of 32.
    """
    torch = load("torch", package="torch", purpose="export a model")
    from edgekit.models.pvanet import HeadSites, SharedRows, check_sides
    from edgekit.models.pvanet_layers import fold
    from edgekit.models.pvanet_rois import POOLED, STRIDE

    check_sides(height=height, width=width)
    folded = fold(network).cpu().float().eval()
    scales_to_convolutions(folded)
    directory.mkdir(parents=True, exist_ok=True)
    paths = {name: directory / f"{name}.onnx" for name in ("shared", "head")}
    cells = (height // STRIDE, width // STRIDE)
    shared_inputs = {"image": torch.zeros(1, 3, height, width), "mask": torch.ones(1, 1, *cells)}
    export_graph(SharedRows(folded), shared_inputs, ["rpn_logits", "rpn_deltas", "features"], paths["shared"])
    pooled = torch.zeros(1, folded.head.channels * POOLED * POOLED, rois, 1)
    head_inputs = {"image": pooled, "mask": torch.ones(1, 1, rois, 1)}
    export_graph(HeadSites(folded.head), head_inputs, ["roi_logits", "roi_deltas"], paths["head"])
    return paths


def scales_to_convolutions(folded: nn.Module) -> None:
    """Replace each Scale behind a BatchNorm that :func:`fold` absorbed by a depthwise 1x1 convolution, in place.

    Those of C.ReLU, called ``scale``, stay: converters give their factors to the convolution in front of them.
    """
    torch = load("torch", package="torch", purpose="export a model")
    from edgekit.models.pvanet_layers import Scale

    for part in list(folded.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, Scale) and name.endswith("bn_scale"):
                channels = len(child.weight)
                layer = torch.nn.Conv2d(channels, channels, 1, groups=channels)
                with torch.no_grad():
                    layer.weight.copy_(child.weight.view(-1, 1, 1, 1))
                    layer.bias.copy_(child.bias)
                setattr(part, name, layer)

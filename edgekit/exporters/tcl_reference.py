"""The PyTorch model behind the pipeline of the bundles: what a converted segmenter is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from edgekit.backends.torch import TorchEngine
from edgekit.segmentation.pipeline import SegmentationPipeline
from edgekit.segmentation.spec import GRAPH, SegmenterSpec

if TYPE_CHECKING:
    from edgekit.models.tcl.model import TCL
    from edgekit.segmentation.prompts import Prompts


class DenseMaps(nn.Module):
    """The model's own modules, none of them rewritten as for a graph."""

    def __init__(self, model: TCL, *, known: bool) -> None:
        super().__init__()
        self.model, self.known = model, known

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """[1, 3, H, W] normalised -> [1, D, h, w], and where asked for the encoder's own map."""
        encoder, cells = self.model.clip_image_encoder, self.model.cells(image)
        features = encoder.features(image)
        embedding: Tensor = self.model.masker.image_encoder(features, *cells)
        return (embedding, encoder.dense(features, *cells)) if self.known else (embedding,)


def reference_segmenter(model: TCL, spec: SegmenterSpec, prompts: Prompts, *, threads: int) -> SegmentationPipeline:
    """``model`` on PyTorch, in the input of ``spec``, looking for ``prompts``."""
    outputs = tuple(spec.outputs)
    maps = DenseMaps(model, known="known" in outputs).eval()
    graph = TorchEngine(maps, GRAPH, inputs=("image",), outputs=outputs, threads=threads)
    return SegmentationPipeline(spec, graph, prompts)

"""Two graphs and what lies between them as one detector: regions are proposed, pooled and classified.

``shared`` is all that does not depend on regions, ``head`` what classifies them; inference engines have no operations
for proposals and RoI pooling, so these run here, whatever the engine (arXiv 1506.01497).

A anchors a cell, C channels, R regions of interest (RoIs), K classes without the background.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.backends import Engine, Tensors
from edgekit.backends.boundary import check_outputs
from edgekit.boxes import Boxes
from edgekit.models.pvanet_rois import STRIDE
from edgekit.spec import DetectorSpec, TwoStage
from edgekit.two_stage import pool_rows, propose_rows, roi_mask


class TwoStageEngine:
    """An engine for the graph ``detector`` of a spec with ``two_stage``.

    Inputs: ``image`` and ``mask`` as everywhere; ``scale``, input pixels over the source's; and, to see what is made of
    known regions, ``rois`` [R, 4], right and bottom inclusive, instead of proposals. Outputs: ``rois``, ``roi_logits``
    [1, R, K + 1] and ``roi_deltas`` [1, R, 4 (K + 1)] of the head, ``rpn_logits`` [1, cells, 2A] and ``rpn_deltas``
    [1, cells, 4A] of the proposal network.
    """

    def __init__(self, shared: Engine, head: Engine, spec: DetectorSpec) -> None:
        """Join two loaded graphs of one detector."""
        assert spec.two_stage is not None
        self._shared, self._head, self._spec = shared, head, spec
        self._rules: TwoStage = spec.two_stage
        self._outputs = len(spec.classes) + 1
        self._anchors = first_anchors(spec)
        (rows, columns), anchors = spec.mask_grid, len(self._anchors)
        self._maps: dict[str, tuple[int | None, ...]] = {
            "rpn_logits": (1, rows * columns, 2 * anchors),
            "rpn_deltas": (1, rows * columns, 4 * anchors),
            "features": (1, rows * columns, None),
        }
        self._found: dict[str, tuple[int | None, ...]] = {
            "roi_logits": (1, self._rules.proposals, self._outputs),
            "roi_deltas": (1, self._rules.proposals, 4 * self._outputs),
        }
        self.name, self.takes_pixels = shared.name, shared.takes_pixels

    def run(self, inputs: Tensors) -> Tensors:
        """Run both graphs once; the second not at all where nothing is proposed.

        Raises:
            EngineError: one fails, gives NaN, or gives what does not fit the spec.
        """
        maps = self._computed(inputs)
        rois = inputs["rois"] if "rois" in inputs else self._propose(maps, inputs["mask"], float(inputs["scale"]))
        logits, deltas = self._classify(maps["features"][0], rois)
        return {
            "rois": rois,
            "roi_logits": logits,
            "roi_deltas": deltas,
            "rpn_logits": maps["rpn_logits"],
            "rpn_deltas": maps["rpn_deltas"],
        }

    def regions(self, inputs: Tensors) -> Tensors | None:
        """What the head would be given for ``image`` and ``mask``; ``None`` where nothing is proposed."""
        maps = self._computed(inputs)
        rois = self._propose(maps, inputs["mask"], 1.0)
        return self._pooled(maps["features"][0], rois) if len(rois) else None

    def _computed(self, inputs: Tensors) -> Tensors:
        maps = self._shared.run({name: inputs[name] for name in ("image", "mask")})
        return check_outputs(self.name, "the graph 'shared'", maps, self._maps)

    def _propose(self, maps: Tensors, mask: NDArray[np.float32], scale: float) -> Boxes:
        spec, rules = self._spec, self._rules
        rois, _ = propose_rows(
            maps["rpn_logits"][0],
            maps["rpn_deltas"][0],
            self._anchors,
            height=spec.height,
            width=spec.width,
            before=rules.before_nms,
            after=rules.proposals,
            nms_iou=rules.nms_iou,
            smallest=rules.smallest,
            resized=(scale, scale),
            mask=mask[0, 0] > 0,
        )
        return rois

    def _pooled(self, features: NDArray[np.float32], rois: Boxes) -> Tensors:
        """The head's inputs: pooled ``features`` [cells, C] of at most as many RoIs as it has room for."""
        spec, places = self._spec, self._rules.proposals
        return {
            "image": pool_rows(features, rois, height=spec.height, width=spec.width, places=places),
            "mask": roi_mask(len(rois), places=places),
        }

    def _classify(self, features: NDArray[np.float32], rois: Boxes) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits [1, R, K + 1] and deltas [1, R, 4 (K + 1)]; more RoIs than proposals take more than one run."""
        places, parts = self._rules.proposals, []
        for first in range(0, len(rois), places):
            some = rois[first : first + places]
            found = self._head.run(self._pooled(features, some))
            check_outputs(self.name, "the graph 'head'", found, self._found)
            parts.append((found["roi_logits"][:, : len(some)], found["roi_deltas"][:, : len(some)]))
        if not parts:
            return np.zeros((1, 0, self._outputs), np.float32), np.zeros((1, 0, 4 * self._outputs), np.float32)
        logits, deltas = zip(*parts, strict=True)
        return np.concatenate(logits, axis=1), np.concatenate(deltas, axis=1)


def first_anchors(spec: DetectorSpec) -> Boxes:
    """[A, 4] the anchors of the first cell, right and bottom inclusive."""
    sides = np.array(spec.anchors[0].sizes, np.float32)
    return np.concatenate([(STRIDE - sides) / 2, (STRIDE + sides) / 2 - 1], axis=1).astype(np.float32)

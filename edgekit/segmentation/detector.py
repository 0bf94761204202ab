"""A segmenter in the place of a detector: what words name is found as things, which can be followed, counted and sent.

    detector = WordDetector(open_segmenter("words.edgekit"))
    result = detector.process(image)           # a FrameResult, with `segments`
    result.segments.labels == 1                # pixels of detector.classes[0], in a map of its own size
    result.detections                          # connected parts of those pixels, with boxes in the picture

h x w the picture's size.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.detections import Detections
from edgekit.opencv import require_opencv
from edgekit.pipeline import FrameResult, Segments
from edgekit.segmentation.fitting import Fitted
from edgekit.segmentation.pipeline import SegmentationPipeline

LONGEST_SIDE = 320
"""Of the map of labels, in pixels: finer than any model's masks, and a quarter of the time that 640 would take."""

SMALLEST_SHARE = 0.001
"""Of a thing in the picture: smaller ones are crumbs of a mask."""

JOIN_SHARE = 0.04
"""Of the map's shorter side: parts of a mask that are no further apart are one thing."""


@dataclass(frozen=True, kw_only=True)
class WordSpec:
    """What must be known of it to report and draw what it found (``edgekit.spec.Described``)."""

    model: str
    classes: tuple[str, ...]
    """The prompts."""

    height: int
    width: int
    score_threshold: float
    """That of the background: no thing scores less."""


class WordDetector:
    """Looks for the prompts of a segmenter in the frames of cameras; it remembers nothing of them."""

    def __init__(self, segmenter: SegmentationPipeline) -> None:
        """Raises :class:`MissingDependencyError` where there is no OpenCV."""
        require_opencv("find the connected parts of a mask")
        self.segmenter = segmenter
        spec = segmenter.spec
        self.spec = WordSpec(
            model=spec.model,
            classes=segmenter.names,
            height=spec.height,
            width=spec.width,
            score_threshold=spec.background,
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names that ``Detections.class_ids`` index."""
        return self.spec.classes

    @property
    def engine_name(self) -> str:
        """The engine with its version and device."""
        return self.segmenter.engine_name

    def fit(self, image_rgb: NDArray[np.uint8]) -> Fitted:
        """The picture in the segmenter's input; any thread may do it ahead of :meth:`process`.

        Raises:
            ValueError: not a uint8 picture [h, w, 3].
        """
        return self.segmenter.fit(image_rgb)

    def process(
        self, image_rgb: NDArray[np.uint8], score_threshold: float | None = None, *, fitted: Fitted | None = None
    ) -> FrameResult:
        """Segment one picture and take the masks apart into things.

        Args:
            image_rgb: [h, w, 3] of any size.
            score_threshold: lowest score 0..1 of a thing to report; masks are those of the background's score.
            fitted: what :meth:`fit` made of it before.

        Raises:
            EngineError: the graph fails or gives NaN.
            ValueError: not a uint8 picture [h, w, 3].
        """
        from edgekit.segmentation.things import find_things

        start = time.perf_counter()
        height, width = image_rgb.shape[:2]
        size = _map_size(height, width)
        found = self.segmenter.process(image_rgb, size=size, fitted=fitted)
        segmented = time.perf_counter()
        things = find_things(
            found.labels,
            found.confidence,
            smallest_px=SMALLEST_SHARE * found.labels.size,
            join_px=JOIN_SHARE * min(size),
        )
        kept = [thing for thing in things if thing.score >= (score_threshold or 0.0)]
        boxes = np.array([thing.box_xywh for thing in kept], np.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        boxes *= np.array([width / size[1], height / size[0]] * 2, np.float32)
        detections = Detections(
            boxes_xyxy=boxes,
            scores=np.array([thing.score for thing in kept], np.float32),
            class_ids=np.array([thing.class_id for thing in kept], np.int64),
        )
        end = time.perf_counter()
        stages = {"letterbox" if name == "fit" else name: ms for name, ms in found.timings_ms.items()}
        return FrameResult(
            detections=detections,
            segments=Segments(labels=found.labels, shares=found.shares, scores=found.scores),
            mask=np.ones((1, 1), np.bool_),
            active_share=1.0,
            omg_ran=False,
            timings_ms={**stages, "things": 1e3 * (end - segmented), "total": 1e3 * (end - start)},
        )


def _map_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) of the map of labels of such a picture."""
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))

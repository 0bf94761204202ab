"""From a picture and prompts to a label for each pixel: the one path of val, run, the export gate and verify.

fit -> graph -> cosines -> PAMR -> the picture's size -> the best prompt, or the background.

    segmenter = open_segmenter("words.edgekit", prompts=Path("other_words.json"))
    result = segmenter.process(image)          # RGB uint8 [h, w, 3]
    result.labels == 1                         # pixels of segmenter.names[0]

N prompts, D embedding, h x w a picture's size.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.backends import Engine, load_engine, usable_engines
from edgekit.backends.boundary import check_outputs
from edgekit.backends.of_bundle import default_threads
from edgekit.bundle import SegmentationBundle, open_segmentation_bundle
from edgekit.errors import UsageError
from edgekit.segmentation.fitting import Fitted, fit, input_tensor, way_back
from edgekit.segmentation.prompts import Prompts, decode_prompts, read_prompts
from edgekit.segmentation.scores import masks
from edgekit.segmentation.spec import GRAPH, SegmenterSpec


@dataclass(frozen=True, kw_only=True, eq=False)
class SegmentResult:
    """What is where in one picture."""

    labels: NDArray[np.uint8]
    """[h, w] in the picture's own size, or in that asked for: 0 is the background, k the k-th prompt, from 1."""

    confidence: NDArray[np.float32]
    """[h, w] score (0..1) of each pixel's label; that of the background is the one that prompts must exceed."""

    scores: NDArray[np.float32]
    """[N] mean score (0..1) of the pixels of each prompt; 0 where it has none."""

    shares: NDArray[np.float32]
    """[N] share (0..1) of the picture that each prompt has; what is left is background."""

    masks: NDArray[np.float32]
    """[N, rows, columns] how well each cell of the input's map, bars included, fits each prompt, 0..1."""

    timings_ms: dict[str, float]
    """Wall time of ``fit``, ``graph``, ``masks`` (cosines and PAMR), ``labels``, and ``total``."""


class SegmentationPipeline:
    """A segmenter ready to run: specification, graph and prompts."""

    def __init__(self, spec: SegmenterSpec, graph: Engine, prompts: Prompts) -> None:
        """Put the parts together.

        Raises:
            UsageError: the prompts were made for another model.
        """
        self.spec = spec
        self.graph = graph
        self.prompts = prompts.check_for(spec)

    @property
    def names(self) -> tuple[str, ...]:
        """What is looked for: the k-th is the label k, from 1."""
        return self.prompts.names

    @property
    def engine_name(self) -> str:
        """The engine with its version and device."""
        return self.graph.name

    def with_prompts(self, prompts: Prompts) -> SegmentationPipeline:
        """The same loaded graph, looking for something else; raises ``UsageError`` as the constructor does."""
        return SegmentationPipeline(self.spec, self.graph, prompts)

    def with_options(self, *, background: float | None = None, pamr: bool | None = None) -> SegmentationPipeline:
        """The same loaded graph and prompts.

        Args:
            background: score (0..1) that a prompt must exceed, 0 for no background; ``None`` leaves it as it is.
            pamr: whether masks are refined along colours, which costs most of the time outside the graph; ``None``
                leaves it as it is.
        """
        spec = replace(
            self.spec,
            background=self.spec.background if background is None else background,
            pamr=self.spec.pamr if pamr is None else pamr,
        )
        return SegmentationPipeline(spec, self.graph, self.prompts)

    def fit(self, image_rgb: NDArray[np.uint8]) -> Fitted:
        """The picture in the size that the model sees; any thread may do it ahead of :meth:`process`.

        Raises:
            ValueError: not a uint8 picture [h, w, 3].
        """
        return fit(image_rgb, self.spec)

    def process(
        self, image_rgb: NDArray[np.uint8], *, size: tuple[int, int] | None = None, fitted: Fitted | None = None
    ) -> SegmentResult:
        """Segment one picture.

        Args:
            image_rgb: [h, w, 3] of any size.
            size: (height, width) of the labels; ``None`` is the picture's own. Fewer are quicker: at full HD most of
                the time goes into labels that are finer than the masks.
            fitted: what :meth:`fit` made of it before.

        Raises:
            EngineError: the graph fails or gives NaN.
            ValueError: not a uint8 picture [h, w, 3].
        """
        start = time.perf_counter()
        if fitted is None:
            fitted = self.fit(image_rgb)
        image = input_tensor(fitted, self.spec)
        seen = time.perf_counter()
        outputs = self.run(image)
        ran = time.perf_counter()
        found = masks(self.spec, outputs, self.prompts.embeddings, image)
        scored = time.perf_counter()
        height, width = size or (fitted.source_height, fitted.source_width)
        labels, confidence = label(found, fitted, self.spec, height=height, width=width)
        scores, shares = summary(labels, confidence, len(found))
        end = time.perf_counter()
        laps = {"fit": seen - start, "graph": ran - seen, "masks": scored - ran, "labels": end - scored}
        return SegmentResult(
            labels=labels,
            confidence=confidence,
            scores=scores,
            shares=shares,
            masks=found,
            timings_ms={name: 1e3 * lap for name, lap in {**laps, "total": end - start}.items()},
        )

    def run(self, image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Run the graph on [1, 3, H, W] normalised: the outputs of ``spec.outputs``, checked."""
        outputs = self.graph.run({"image": image})
        return check_outputs(self.graph.name, GRAPH, outputs, self.spec.outputs)


def label(
    found: NDArray[np.float32], fitted: Fitted, spec: SegmenterSpec, *, height: int, width: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(labels, their scores), both [height, width], of the masks ``found`` [N, rows, columns]."""
    down, across = way_back(fitted, spec, height=height, width=width)
    best = np.full((height, width), spec.background, np.float32)
    labels = np.zeros((height, width), np.uint8)
    for number, mask in enumerate(found @ across, start=1):  # one at a time: N full-HD planes are 8 MB each
        plane = down @ mask
        better = plane > best
        np.copyto(labels, np.uint8(number), where=better)
        np.maximum(best, plane, out=best)
    return labels, best


def summary(
    labels: NDArray[np.uint8], confidence: NDArray[np.float32], count: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(mean scores, shares of the picture), both [N], of N = ``count`` prompts."""
    flat = labels.reshape(-1)
    counts = np.bincount(flat, minlength=count + 1)[1:]
    sums = np.bincount(flat, weights=confidence.reshape(-1), minlength=count + 1)[1:]
    return (sums / np.maximum(counts, 1)).astype(np.float32), (counts / labels.size).astype(np.float32)


def open_segmenter(
    path: str | Path, *, engine: str = "auto", threads: int | None = 1, prompts: Path | Prompts | None = None
) -> SegmentationPipeline:
    """Open a segmentation bundle (folder or zip).

    Args:
        path: what to open.
        engine: one that the bundle has graphs for; ``auto`` is the first of them that works here.
        threads: CPU threads; ``None`` is what the bundle was made for, or as many as there are processors here.
        prompts: what to look for instead of the bundle's own; a file of ``edgekit prompts``.

    Raises:
        UsageError: a bundle of another task, an engine that cannot run it, or prompts made for another model.
        PromptsError: the file of prompts is malformed.
        MissingDependencyError: no engine that can run it is installed.
        BundleError, EngineError: it cannot be loaded.
    """
    bundle = open_segmentation_bundle(path)
    if isinstance(prompts, Path):
        prompts = read_prompts(prompts).check_for(bundle.manifest.spec, str(prompts))
    return segmenter_of(bundle, engine=engine, threads=threads, prompts=prompts)


def segmenter_of(
    bundle: SegmentationBundle, *, engine: str = "auto", threads: int | None = 1, prompts: Prompts | None = None
) -> SegmentationPipeline:
    """The pipeline of an open bundle; arguments and errors as :func:`open_segmenter`."""
    manifest = bundle.manifest
    if engine == "auto":
        engine = next(usable_engines(manifest.engines))
    elif engine not in manifest.engines:
        raise UsageError(
            f"the bundle {manifest.name!r} has {manifest.graph_format} graphs, which {engine!r} does not run; its "
            f"engines are: {', '.join(manifest.engines)}"
        )
    options = {**manifest.engine_options.get(engine, {}), "precision": manifest.precision}
    graph = load_engine(engine, bundle.graph(GRAPH), threads=threads or default_threads(bundle), options=options)
    return SegmentationPipeline(manifest.spec, graph, prompts or own_prompts(bundle))


def own_prompts(bundle: SegmentationBundle) -> Prompts:
    """What the bundle looks for if nobody says otherwise.

    Raises:
        PromptsError, UsageError: the file is malformed, or made for another model.
    """
    name = bundle.manifest.prompts
    return decode_prompts(bundle.file(name).read_bytes(), name).check_for(bundle.manifest.spec, name)

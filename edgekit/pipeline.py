"""From a picture to detections: the one path that val, run, the export gate, verify and profile all take.

letterbox -> mask -> detector -> decode. A graph runs only when its result is needed: the OMG network if the mask source
asks for objectness, the detector if any cell is active.

H, W input height and width; G mask grid; A anchors; C classes.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit import decoding
from edgekit.backends import Engine, Tensors
from edgekit.backends.of_bundle import default_threads, load_best, load_graphs
from edgekit.boxes import Boxes
from edgekit.bundle import Bundle, open_bundle
from edgekit.data.letterbox import Letterboxed, letterbox, normalise
from edgekit.decoding.one_stage import sigmoid
from edgekit.detections import Detections
from edgekit.errors import EngineError, MissingDependencyError, UsageError
from edgekit.masks.pyramid import Mask
from edgekit.masks.sources import MaskInput, MaskSource, parse_mask_source
from edgekit.masks.statistics import active_share, refined_tokens
from edgekit.spec import DetectorSpec
from edgekit.tracking import Event, Track


@dataclass(frozen=True, kw_only=True, eq=False)
class Segments:
    """Which pixels are what, where a segmenter looked."""

    labels: NDArray[np.uint8]
    """[h, w] over the whole picture, in a size of their own: 0 is the background, k the class ``k - 1``."""

    shares: NDArray[np.float32]
    """[C] share (0..1) of the picture that each class has."""

    scores: NDArray[np.float32]
    """[C] mean score (0..1) of its pixels; 0 where it has none."""


@dataclass(frozen=True, kw_only=True)
class FrameResult:
    """Everything about one frame."""

    detections: Detections
    mask: Mask
    """[G, G] the cells that the detector looked at."""

    active_share: float
    """Share 0..1 of the cells that are active."""

    regions: int | None = None
    """How many regions a two-stage detector classified; None of a one-stage one."""

    tokens: int | None = None
    """How many tokens a detection transformer's encoder refined; None of any other detector."""

    segments: Segments | None = None
    """The masks that the detections were taken from; None of a detector, which knows boxes alone."""

    omg_ran: bool = True
    """Whether the mask source asked the OMG network."""

    tracks: tuple[Track, ...] | None = None
    """What is being followed; None where nobody follows."""

    events: tuple[Event, ...] = ()
    """What happened to tracks in this frame."""

    timings_ms: dict[str, float]
    """Wall time of ``letterbox``, ``mask`` (with the OMG network), ``detector``, ``decode`` (with NMS), ``total``."""


class Pipeline:
    """A detector ready to run: specification, two graphs and a source of masks."""

    def __init__(self, spec: DetectorSpec, omg: Engine, detector: Engine, mask_source: MaskSource) -> None:
        """Put the parts together.

        Raises:
            EngineError: one graph takes pixels and the other normalised numbers; both are given the same picture.
        """
        if omg.takes_pixels != detector.takes_pixels:
            raise EngineError(
                "both graphs of a model must take pixels, or both normalised numbers; here the mask network takes "
                f"{_kind_of_image(omg)} and the detector {_kind_of_image(detector)}.\n"
                "They were not exported together; export them again with: edgekit export"
            )
        self.spec = spec
        self.omg = omg
        self.detector = detector
        self.mask_source = mask_source
        self._previous: Detections | None = None  # of the picture before; only the mask source ``tracks`` looks at it

    @property
    def classes(self) -> tuple[str, ...]:
        """Names that ``Detections.class_ids`` index."""
        return self.spec.classes

    @property
    def engine_name(self) -> str:
        """The engine with its version and device."""
        return self.detector.name

    def with_mask(self, mask: str | MaskSource) -> Pipeline:
        """The same loaded graphs behind another mask source."""
        return Pipeline(self.spec, self.omg, self.detector, _mask_source(mask, self.spec))

    def process(
        self,
        image_rgb: NDArray[np.uint8],
        truth_xyxy: NDArray[np.float32] | None = None,
        score_threshold: float | None = None,
        *,
        tracks: NDArray[np.float32] | None = None,
        time_s: float | None = None,
        letterboxed: Letterboxed | None = None,
    ) -> FrameResult:
        """Detect objects in one picture.

        Args:
            image_rgb: [h, w, 3] of any size.
            truth_xyxy: [N, 4] ground-truth boxes in its pixels; only the mask source ``truth`` looks at them.
            score_threshold: lowest score 0..1 to report; ``None`` is ``spec.score_threshold``.
            tracks: [N, 4] boxes in its pixels where followed objects are expected; for the mask source ``tracks``.
            time_s: when it was captured, in seconds of a clock that only runs forwards; for masks that learn.
            letterboxed: what :meth:`fit` made of it before.

        Raises:
            EngineError: a graph fails or gives NaN.
            UsageError: the mask source needs what this frame lacks.
            ValueError: not a uint8 picture [h, w, 3].
        """
        clock = _Clock()
        if letterboxed is None:
            letterboxed = self.fit(image_rgb)
        image = self.input_tensor(letterboxed)
        clock.lap("letterbox")
        objectness = functools.cache(functools.partial(self.objectness, image))
        mask = self.mask_source(
            MaskInput(
                letterboxed=letterboxed,
                spec=self.spec,
                objectness=objectness,
                truth_xyxy=truth_xyxy,
                previous=self._previous,
                tracks=tracks,
                time_s=time_s,
            )
        )
        clock.lap("mask")
        raw = self.detect(image, mask, scale=letterboxed.scale) if mask.any() else None
        clock.lap("detector")
        threshold = self.spec.score_threshold if score_threshold is None else score_threshold
        detections = decoding.detections(self.spec, raw, mask, letterboxed, threshold) if raw else Detections.empty()
        self._previous = detections
        clock.lap("decode")
        return FrameResult(
            detections=detections,
            mask=mask,
            active_share=active_share(mask),
            regions=None if self.spec.two_stage is None else len(raw["rois"]) if raw else 0,
            tokens=None if self.spec.detr is None else refined_tokens(self.spec, mask),
            omg_ran=objectness.cache_info().currsize > 0,
            timings_ms=clock.total("total"),
        )

    def fit(self, image_rgb: NDArray[np.uint8]) -> Letterboxed:
        """The picture in the detector's input; any thread may do it ahead of :meth:`process`.

        Raises:
            ValueError: not a uint8 picture [h, w, 3].
        """
        return letterbox(image_rgb, height=self.spec.height, width=self.spec.width)

    def input_tensor(self, letterboxed: Letterboxed) -> NDArray[np.uint8] | NDArray[np.float32]:
        """[1, 3, H, W], pixels or normalised; a view of NHWC memory, which engines of that layout need not copy."""
        if self.detector.takes_pixels:
            return letterboxed.image.transpose(2, 0, 1)[None]
        return normalise(letterboxed.image, self.spec).transpose(2, 0, 1)[None]

    def objectness(self, image: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the OMG graph on [1, 3, H, W]: probabilities [G, G] in 0..1."""
        return sigmoid(self.omg.run({"image": image})["objectness"][0, 0])

    def detect(
        self,
        image: NDArray[np.uint8] | NDArray[np.float32],
        mask: Mask,
        *,
        scale: float = 1.0,
        rois: Boxes | None = None,
    ) -> Tensors:
        """Run the detector: its raw outputs, which ``edgekit.decoding`` reads.

        Args:
            image: as :meth:`input_tensor` gives it.
            mask: [G, G].
            scale: input pixels over the source's; only proposals, whose smallest size is measured there, depend on it.
            rois: of a two-stage detector, regions to classify in place of what it would propose.

        Raises:
            EngineError: a graph fails or gives NaN.
        """
        inputs: Tensors = {"image": image, "mask": mask[None, None].astype(np.float32)}
        if self.spec.two_stage is not None:
            inputs |= {"scale": np.array(scale, np.float32)} if rois is None else {"rois": rois}
        return self.detector.run(inputs)


def open_pipeline(
    path_or_name: str | Path,
    *,
    engine: str = "auto",
    mask: str | MaskSource = "omg",
    threads: int | None = 1,
) -> Pipeline:
    """Open a bundle (folder or zip), a ``.pt`` checkpoint or ``default``.

    Args:
        path_or_name: what to open; ``default`` is the detector that edgekit ships.
        engine: ``auto`` is the best that works here (``edgekit.backends.of_bundle``); checkpoints run on ``torch``.
        mask: a mask source, or its text (``edgekit.masks.sources``).
        threads: CPU threads; ``None`` is what the bundle was made for, or as many as there are processors here.

    Raises:
        UsageError: nothing there, an engine that cannot run it, or an unknown mask.
        MissingDependencyError: no engine that can run it is installed.
        BundleError, CheckpointError, EngineError: it cannot be loaded.
    """
    path = resolve_model(path_or_name, engine=engine)
    if is_checkpoint(path):
        return _open_checkpoint(path, engine, mask, threads or 1)
    bundle = open_bundle(path)
    return pipeline_of(bundle, engine=engine, mask=mask, threads=threads)


def pipeline_of(
    bundle: Bundle, *, engine: str = "auto", mask: str | MaskSource = "omg", threads: int | None = 1
) -> Pipeline:
    """The pipeline of an open bundle; arguments and errors as :func:`open_pipeline`."""
    manifest = bundle.manifest
    source = _mask_source(mask, manifest.spec)
    load = load_best if engine == "auto" else functools.partial(load_graphs, engine=engine)
    omg, detector = load(bundle, threads=threads or default_threads(bundle))
    return Pipeline(manifest.spec, omg, detector, source)


def resolve_model(path_or_name: str | Path, *, engine: str = "auto") -> Path:
    """The file or folder that ``path_or_name`` means: ``default`` is a bundle, or a checkpoint for ``engine="torch"``.

    Raises:
        UsageError: nothing is there.
    """
    if str(path_or_name) == "default":
        from edgekit.models.default import default_bundle, default_checkpoint

        return default_checkpoint() if engine == "torch" else default_bundle()
    path = Path(path_or_name)
    if not path.exists():
        raise UsageError(
            f"there is no model {str(path)!r}: expected a bundle (folder or file), a .pt checkpoint or 'default'.\n"
            "Make a bundle with: edgekit export CHECKPOINT -o NAME.edgekit"
        )
    return path


def is_checkpoint(path: Path) -> bool:
    """Whether ``path`` is a training checkpoint rather than a bundle, by its suffix."""
    return path.suffix == ".pt"


def _open_checkpoint(path: Path, engine: str, mask: str | MaskSource, threads: int) -> Pipeline:
    if engine not in ("auto", "torch"):
        raise UsageError(
            f"a checkpoint runs on torch, not on {engine!r}.\n"
            f"Make a bundle for other engines with: edgekit export {path} -o NAME.edgekit"
        )
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependencyError("torch", "train", "run a checkpoint") from error
    from edgekit.backends.torch import load_pair
    from edgekit.models.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    omg, detector = load_pair(checkpoint.model, threads=threads)
    return Pipeline(checkpoint.spec, omg, detector, _mask_source(mask, checkpoint.spec))


def _mask_source(mask: str | MaskSource, spec: DetectorSpec) -> MaskSource:
    return parse_mask_source(mask, spec) if isinstance(mask, str) else mask


def _kind_of_image(engine: Engine) -> str:
    return "pixels" if engine.takes_pixels else "normalised numbers"


class _Clock:
    """Milliseconds of consecutive stages."""

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self._laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """End the stage ``name`` now."""
        now = time.perf_counter()
        self._laps[name] = (now - self._last) * 1e3
        self._last = now

    def total(self, name: str) -> dict[str, float]:
        """All stages, and everything since the start as ``name``."""
        return {**self._laps, name: (self._last - self._start) * 1e3}

"""One camera of a run: its frames, its mask, which remembers, and what it follows. The graphs are shared by all."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.cameras import Frame, Source
from edgekit.data.letterbox import Letterboxed
from edgekit.errors import UsageError
from edgekit.masks.reuse import video_mask
from edgekit.pipeline import FrameResult, Pipeline
from edgekit.segmentation.detector import WordDetector
from edgekit.segmentation.fitting import Fitted
from edgekit.sinks.camera_name import slug
from edgekit.tracking.events import DWELL_S
from edgekit.tracking.follow import Follower, clock_s


@dataclass(frozen=True, kw_only=True)
class Watching:
    """What every camera of a run does with its frames."""

    mask: str = "omg"
    """A mask expression; ``{camera}`` in it is the camera's name."""

    mask_every: int = 1
    mask_hold: int = 0
    keyframe_s: float | None = None
    budget: float | None = None
    """As in :func:`edgekit.masks.reuse.video_mask`."""

    follow: bool = False
    """Whether there are tracks and events."""

    zones: str | None = None
    """Path of the zones file; ``{camera}`` in it is the camera's name."""

    dwell_s: float | None = DWELL_S
    score: float | None = None
    """Lowest score 0..1 of a detection that is reported; ``None`` is the bundle's."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A frame that waits for the detector."""

    frame: Frame
    """With the camera's name."""

    fitted: Letterboxed | Fitted
    """The picture in the input of whatever looks at it."""

    letterbox_ms: float
    """What that took, on whichever thread."""


class Camera:
    """Frames in, results out.

    Args:
        name: of the camera; ``None`` where a run has one only, which goes by its source's name.
        source: its frames.
        looking: graphs that all cameras share; a detector's own mask is replaced by this camera's.
        watching: what to do.

    Raises:
        UsageError: the mask makes no sense, or a zones file is missing or malformed.
    """

    def __init__(self, name: str | None, source: Source, looking: Pipeline | WordDetector, watching: Watching) -> None:
        self.name, self.source = name, source
        self.zones = None if watching.zones is None else Path(of_camera(watching.zones, name))
        self.known_as = slug(name or getattr(source, "name", None) or "camera")
        """What sinks call it; of a file or folder they take the name from its frames."""

        self._looking = _behind_mask(looking, watching, name)
        self._score = looking.spec.score_threshold if watching.score is None else watching.score
        self._mask_follows = "tracks" in watching.mask
        self._follower = (
            Follower(score=self._score, live=source.live, zones=self.zones, dwell_s=watching.dwell_s)
            if watching.follow
            else None
        )

    def prepare(self, frame: Frame) -> Prepared:
        """What can be done before the detector is free, on the thread that reads the frames.

        Raises:
            ValueError: not a uint8 picture [h, w, 3].
        """
        if self.name is not None:
            frame = dataclasses.replace(frame, camera=self.name)
        start_s = time.perf_counter()
        fitted = self._looking.fit(frame.image)
        return Prepared(frame=frame, fitted=fitted, letterbox_ms=1e3 * (time.perf_counter() - start_s))

    def detect(self, prepared: Prepared) -> FrameResult:
        """What is in the frame.

        Raises:
            EngineError: a graph fails or gives NaN.
            UsageError: the mask needs what this frame lacks.
        """
        frame, follower = prepared.frame, self._follower
        if follower is None:
            result = self._process(prepared, self._score)
        else:
            expected = follower.expected(frame) if self._mask_follows else None
            result = follower.follow(frame, self._process(prepared, follower.least_score, tracks=expected))
        # `total` is what the frame cost the loop; fitting it in happened beside the frame before.
        return dataclasses.replace(result, timings_ms={**result.timings_ms, "letterbox": prepared.letterbox_ms})

    def _process(self, prepared: Prepared, score: float, *, tracks: NDArray[np.float32] | None = None) -> FrameResult:
        frame, fitted = prepared.frame, prepared.fitted
        if isinstance(fitted, Fitted):
            assert isinstance(self._looking, WordDetector)
            return self._looking.process(frame.image, score, fitted=fitted)
        assert isinstance(self._looking, Pipeline)
        time_s = clock_s(frame, live=self.source.live)
        return self._looking.process(
            frame.image, frame.truth_xyxy, score, tracks=tracks, time_s=time_s, letterboxed=fitted
        )


def _behind_mask(looking: Pipeline | WordDetector, watching: Watching, name: str | None) -> Pipeline | WordDetector:
    """``looking`` with the mask of the camera called ``name``; a segmenter has none, and is refused other settings."""
    if isinstance(looking, Pipeline):
        mask = video_mask(
            of_camera(watching.mask, name),
            looking.spec,
            every=watching.mask_every,
            hold=watching.mask_hold,
            keyframe_s=watching.keyframe_s,
            budget=watching.budget,
        )
        return looking.with_mask(mask)
    plain = Watching()
    if watching.mask not in (plain.mask, "off") or any(
        getattr(watching, setting) != getattr(plain, setting)
        for setting in ("mask_every", "mask_hold", "keyframe_s", "budget")
    ):
        raise UsageError(
            "a segmenter looks at the whole of each picture; masks are for detectors.\n"
            "It can be the mask of one: edgekit run DETECTOR --mask 'tcl(words.edgekit)'"
        )
    return looking


def name_sources(texts: Sequence[str]) -> list[tuple[str | None, str]]:
    """Name and source of each ``NAME=SOURCE`` or ``SOURCE``; of several, those without a name are numbered.

    Raises:
        UsageError: two have the same name.
    """
    named = []
    for number, text in enumerate(texts, start=1):
        name, equals, source = text.partition("=")
        # What is a name can be no path or URL; a file that is called like this can be given as ./NAME=...
        if not equals or not source or not re.fullmatch(r"[A-Za-z][\w-]{0,47}", name, re.ASCII):
            name, source = f"camera-{number}" if len(texts) > 1 else "", text
        named.append((name or None, source))
    names = [name for name, _ in named]
    if twice := sorted({name for name in names if name is not None and names.count(name) > 1}):
        raise UsageError(f"two sources are called {twice[0]!r}; give each a name of its own: --source NAME=URI")
    return named


def of_camera(text: str, name: str | None) -> str:
    """``text`` with the camera's name for each ``{camera}``."""
    return text.replace("{camera}", name or "camera")


def check_one_each(option: str, value: str | None, cameras: int) -> None:
    """Raises :class:`UsageError` if it is no path, or if several cameras would write to it."""
    if value == "":
        raise UsageError(f"{option} needs the name of a file or folder, and got an empty one")
    if value is not None and cameras > 1 and "{camera}" not in value:
        raise UsageError(
            f"{option} {value}: {cameras} cameras cannot share it. Put {{camera}} into the name, for example "
            f"{Path(value).with_name('{camera}-' + Path(value).name)}"
        )

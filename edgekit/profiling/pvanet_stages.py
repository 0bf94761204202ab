"""The time of a PVANet stage by stage, and by the share of active cells, for rivals that take turns.

The stages are those of arXiv 1608.08021: ``trunk`` (with the hyper feature), ``rpn``, ``proposals``, ``pool``,
``head`` and ``post``, what becomes of the head's outputs. Three are graphs in the rival's engine. The others no engine
has operations for: they are edgekit's kernels for every rival.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgekit.backends import Tensors
from edgekit.boxes import Boxes
from edgekit.data.letterbox import Letterboxed
from edgekit.masks.pyramid import Mask, mask_at
from edgekit.models.pvanet_rois import POOLED, STRIDE, cell_anchors, clip
from edgekit.profiling.blobs import blob_mask
from edgekit.profiling.interleaved import interleave
from edgekit.profiling.latency import summarise
from edgekit.profiling.pvanet_rivals import PVANetRival, random_picture
from edgekit.profiling.shares import MASKS
from edgekit.two_stage import find_objects, pool_rows, propose_rows, roi_mask

if TYPE_CHECKING:
    from edgekit.metrics.macs import LayerCall
    from edgekit.models.pvanet import PVANet, Variant

log = logging.getLogger("edgekit")

STAGES = ("trunk", "rpn", "proposals", "pool", "head", "post")

SCORE = 0.01
"""Of an object, as the published networks were tested: random heads find thousands of candidates over it."""

Times = dict[str, tuple[float, float]]
"""Stage, or ``total`` -> (least, median) milliseconds."""


@dataclass(frozen=True, kw_only=True)
class PVANetWork:
    """What multiplies in a PVANet, for one picture."""

    maps: tuple[LayerCall, ...]
    """Trunk, hyper feature and region proposal network."""

    head_macs: int
    """Of one RoI."""

    def macs(self, mask: Mask, rois: int) -> float:
        """Multiply-accumulates at the active sites under ``mask`` [H / 16, W / 16] and for ``rois`` RoIs."""
        shares: dict[tuple[int, int], float] = {}
        for call in self.maps:
            size = call.rows, call.columns
            if size not in shares:
                shares[size] = float(mask_at(mask, rows=call.rows, columns=call.columns).mean())
        return sum(call.macs * shares[call.rows, call.columns] for call in self.maps) + rois * self.head_macs


def count_work(network: PVANet, *, height: int, width: int) -> PVANetWork:
    """Run ``network`` once on a picture of ``height`` x ``width`` pixels, and count."""
    import torch

    from edgekit.metrics.macs import layer_calls

    maps = layer_calls(network, torch.zeros(1, 3, height, width))
    head = layer_calls(network.head, torch.zeros(1, network.head.channels, POOLED, POOLED))
    return PVANetWork(maps=tuple(maps), head_macs=sum(call.macs for call in head))


def drawn_rois(count: int, *, height: int, width: int, seed: int = 0) -> Boxes:
    """[count, 4] RoIs of the sizes that objects have: sides from a twentieth of the picture's to all of it, the
    logarithm uniform, at any place that leaves them inside."""
    random = np.random.default_rng(seed)
    limits = np.array([width, height])
    sides = limits * np.exp(random.uniform(np.log(1 / 20), 0, (count, 2)))
    corners = random.uniform(0, 1, (count, 2)) * (limits - sides)
    boxes = np.concatenate([corners, corners + sides - 1], axis=1).astype(np.float32)
    return clip(boxes, height=height, width=width)


class Frame:
    """One picture through all stages of a rival, again and again."""

    def __init__(
        self, rival: PVANetRival, variant: Variant, mask: Mask, rois: Boxes, *, places: int, height: int, width: int
    ) -> None:
        """Take ``mask`` [H / 16, W / 16] for the picture; ``rois`` of ``places`` are pooled and classified."""
        self._graphs, self._mask, self._rois, self._places = rival.graphs, mask, rois, places
        self._size = {"height": height, "width": width}
        self._letterboxed = Letterboxed(
            image=np.zeros((0, 0, 3), np.uint8), scale=1, left=0, top=0, source_height=height, source_width=width
        )
        self._inputs = {
            "image": rival.laid_out(random_picture(**self._size, seed=0)),
            "mask": mask[None, None].astype(np.float32),
        }
        self._anchors, self._before = cell_anchors(variant.anchors), variant.proposals_before_nms
        self._head_mask = roi_mask(len(rois), places=places)
        self.laps: list[dict[str, float]] = []
        """Milliseconds of each stage, a dictionary for each :meth:`run`; ``shared`` is trunk and RPN together."""

    def run(self) -> None:
        """The trunk alone, then every stage.

        RoIs are proposed from the maps that come out, and then not used: a network of random weights proposes anything.
        """
        marks = [time.perf_counter_ns()]
        self._graphs["trunk"].run(self._inputs)
        marks.append(time.perf_counter_ns())
        maps = self._graphs["shared"].run(self._inputs)
        marks.append(time.perf_counter_ns())
        self._propose(maps)
        marks.append(time.perf_counter_ns())
        pooled = pool_rows(maps["features"][0], self._rois, **self._size, places=self._places)
        marks.append(time.perf_counter_ns())
        found = self._graphs["head"].run({"image": pooled, "mask": self._head_mask})
        marks.append(time.perf_counter_ns())
        find_objects(
            self._rois,
            found["roi_logits"][0],
            found["roi_deltas"][0],
            **self._size,
            letterboxed=self._letterboxed,
            score_threshold=SCORE,
        )
        marks.append(time.perf_counter_ns())
        names = ("trunk", "shared", *STAGES[2:])
        lap = {name: (end - start) / 1e6 for name, start, end in zip(names, marks, marks[1:], strict=False)}
        self.laps.append({**lap, "total": (marks[-1] - marks[1]) / 1e6})

    def _propose(self, maps: Tensors) -> None:
        propose_rows(
            maps["rpn_logits"][0],
            maps["rpn_deltas"][0],
            self._anchors,
            height=self._size["height"],
            width=self._size["width"],
            before=self._before,
            after=self._places,
            mask=self._mask,
        )


def time_stages(
    rivals: Sequence[PVANetRival],
    variant: Variant,
    work: PVANetWork,
    shares: Sequence[float],
    *,
    height: int,
    width: int,
    rois: int,
    threads: int,
    iterations: int,
    between: Callable[[], object] | None = None,
) -> list[dict[str, Any]]:
    """Rows ``engine``, ``precision``, ``active``, ``rois``, ``threads``, ``ms_min``, ``ms_median``, ``stages``,
    ``gmacs_executed``, ``gmacs_dense_equivalent``, ``gmacs_layers``, ``to_dense`` and ``detail``, one a share and
    rival.

    ``stages`` has ``ms_min`` and ``ms_median`` of each of :data:`STAGES`; that of ``rpn`` is the time of the graph with
    it minus the time of the graph without, and so its ``ms_min`` may be a little too small or too large. ``to_dense``
    is ``ms_min`` over that of the fastest dense rival of the same precision and share, ``None`` where there is none.
    A dense engine computes all sites and RoIs, whatever is active. ``gmacs_layers`` is ``gmacs_executed`` over the time
    of the stages that multiply, trunk, RPN and head, instead of that of the frame.

    Args:
        rivals: of one network.
        variant: of that network.
        work: of that network.
        shares: of active cells and RoIs, 0..1.
        height: of the input in pixels.
        width: of the input in pixels.
        rois: how many a call of the head takes.
        threads: what the rivals were loaded with.
        iterations: runs that count, over all masks of a share.
        between: takes a turn among the rivals, untimed: to measure what they are held against.

    Raises:
        EngineError: a graph fails.
    """
    grid = (height // STRIDE, width // STRIDE)
    whole = work.macs(np.ones(grid, np.bool_), rois)
    rows = []
    for share in shares:
        masks = [blob_mask(share, grid=grid, seed=seed) for seed in range(MASKS if share < 1 else 1)]
        runs = max(1, iterations // len(masks))
        some = drawn_rois(rois, height=height, width=width)[: round(share * rois)]
        executed = sum(work.macs(mask, len(some)) for mask in masks) / len(masks)
        parts: list[list[Times]] = [[] for _ in rivals]
        for mask in masks:
            log.info("%.0f %% active ...", 100 * mask.mean())
            frames = [Frame(rival, variant, mask, some, places=rois, height=height, width=width) for rival in rivals]
            for part, times in zip(parts, _times(frames, runs=runs, between=between), strict=True):
                part.append(times)
        for rival, part in zip(rivals, parts, strict=True):
            row = _row(rival, _mean(part), executed=executed if rival.sparse else whole, whole=whole)
            rows.append({**row, "active": share, "rois": len(some), "threads": threads})
    return [{**row, "to_dense": _to_dense(row, rows)} for row in rows]


def _times(frames: Sequence[Frame], *, runs: int, between: Callable[[], object] | None) -> list[Times]:
    """Of each frame, which take turns."""
    burst = min(4, runs)
    turns: dict[str, Callable[[], object]] = {str(index): frame.run for index, frame in enumerate(frames)}
    if between is not None:
        turns["between"] = between
    interleave(turns, rounds=-(-runs // burst), burst=burst)
    found = []
    for frame in frames:
        counted = [lap for number, lap in enumerate(frame.laps) if number % (burst + 1)]  # the first of a turn warms up
        times = {name: _summary([lap[name] for lap in counted]) for name in counted[0]}
        # Neighbours in time met the same moods of the machine.
        apart = _summary([lap["shared"] - lap["trunk"] for lap in counted])[1]
        shared, trunk = times.pop("shared")[0], times.pop("trunk")
        found.append({"trunk": trunk, "rpn": (shared - trunk[0], apart), **times})
    return found


def _summary(samples_ms: Sequence[float]) -> tuple[float, float]:
    latency = summarise(samples_ms)
    return latency.min_ms, latency.p50_ms


def _mean(parts: Sequence[Times]) -> Times:
    return {name: tuple(np.mean([part[name] for part in parts], axis=0)) for name in parts[0]}


def _row(rival: PVANetRival, times: Times, *, executed: float, whole: float) -> dict[str, Any]:
    def shown(name: str) -> dict[str, float]:
        return {"ms_min": round(float(times[name][0]), 4), "ms_median": round(float(times[name][1]), 4)}

    total = shown("total")
    layers_ms = sum(float(times[name][0]) for name in ("trunk", "rpn", "head"))
    return {
        "engine": rival.engine,
        "precision": rival.precision,
        **total,
        "stages": {name: shown(name) for name in STAGES},
        "gmacs_executed": round(executed / total["ms_min"] / 1e6, 2),
        "gmacs_dense_equivalent": round(whole / total["ms_min"] / 1e6, 2),
        "gmacs_layers": round(executed / layers_ms / 1e6, 2),
        "sparse": rival.sparse,
        "detail": rival.detail,
    }


def _to_dense(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> float | None:
    same = [other for other in rows if all(other[key] == row[key] for key in ("active", "precision"))]
    dense = min((other["ms_min"] for other in same if not other["sparse"]), default=None)
    return None if dense is None else round(row["ms_min"] / dense, 3)

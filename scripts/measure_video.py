#!/usr/bin/env python3
"""Measure masks on video: ``scripts/measure_video.py --shared ../shared`` fills docs/results/video.json.

The shipped bundle goes through a clip of a fixed camera, in which each person is labelled with the number of its track,
once for each mask. ``scripts/readme_tables.py`` then writes the table. A few minutes on one thread.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from edgekit.data.datasets import DetectionDataset, open_dataset
from edgekit.data.letterbox import letterbox
from edgekit.detections import Detections
from edgekit.masks.reuse import video_mask
from edgekit.metrics.detection import evaluate_detections
from edgekit.metrics.layers import layer_table
from edgekit.metrics.macs import LayerMacs, executed_macs
from edgekit.metrics.masks import MaskMeter
from edgekit.metrics.tracks import ONE_ID_SHARE, TrackMeter
from edgekit.pipeline import FrameResult, Pipeline, open_pipeline, resolve_model
from edgekit.tracking import Track
from edgekit.tracking.tracker import Tracker

RESULTS = Path(__file__).resolve().parent.parent / "docs" / "results"

FRAMES_PER_SECOND = 7.0
"""As PETS 2009 was recorded; the video's header has another number."""

EVALUATION_SCORE = 0.01
"""Average precision wants the whole curve; tracks begin where ``run`` reports."""

PASSES = 5
"""How often frames are timed: of each its best time counts, as other programs on the machine only ever add to it."""

SETTINGS: tuple[tuple[str, float | None], ...] = (
    ("off", None),
    ("omg", None),
    ("omg & motion", 2.0),
    ("omg & motion | tracks", 2.0),
    ("omg | tracks", None),
    ("motion", 2.0),
    ("motion | tracks", 2.0),
    ("tracks", 2.0),
)
"""Masks, and the seconds between their keyframes."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """The labelled frames."""

    dataset: DetectionDataset
    pictures: list[NDArray[np.uint8]]
    labels: list[NDArray[np.int64]]
    """Of each frame, the track numbers of ``dataset.samples``' boxes."""


def read_clip(folder: Path, classes: tuple[str, ...], limit: int | None) -> Clip:
    """The first ``limit`` frames of the clip in ``folder``, with the numbers of tracks, which a data set has not."""
    dataset = open_dataset(folder, "val", classes)
    dataset = replace(dataset, samples=dataset.samples[:limit])
    numbers: dict[int, list[int]] = {}
    for annotation in json.loads((folder / "instances.json").read_text())["annotations"]:
        numbers.setdefault(annotation["image_id"], []).append(annotation["track_id"])
    labels = [np.array(numbers.get(sample.image_id, []), np.int64) for sample in dataset.samples]
    assert all(len(label) == len(sample.boxes_xyxy) for label, sample in zip(labels, dataset.samples, strict=True))
    return Clip(dataset=dataset, pictures=[sample.read() for sample in dataset.samples], labels=labels)


def frames(
    pipeline: Pipeline, pictures: Iterable[NDArray[np.uint8]], score: float | None
) -> Iterable[tuple[FrameResult, tuple[Track, ...], float]]:
    """Every frame's result, tracks and milliseconds, tracker included; ``score`` None is what following needs."""
    tracker = Tracker(score=pipeline.spec.score_threshold)
    for index, picture in enumerate(pictures):
        time_s = index / FRAMES_PER_SECOND
        start = time.perf_counter()
        result = pipeline.process(
            picture,
            score_threshold=tracker.least_score if score is None else score,
            tracks=tracker.expected(time_s),
            time_s=time_s,
        )
        tracks = tracker.update(result.detections, time_s)
        yield result, tracks, (time.perf_counter() - start) * 1e3


def measure(pipeline: Pipeline, clip: Clip, layers: tuple[LayerMacs, ...], mask: str, keyframe_s: float | None) -> Any:
    """One row of the table, in numbers, but for its time."""
    spec = pipeline.spec
    shown = {int(class_id) for sample in clip.dataset.samples for class_id in sample.class_ids}
    detections: dict[int, Detections] = {}
    tracks, masks, executed = TrackMeter(), MaskMeter(), 0
    masked = pipeline.with_mask(video_mask(mask, spec, keyframe_s=keyframe_s))
    seen = zip(clip.dataset.samples, clip.labels, clip.pictures, frames(masked, clip.pictures, EVALUATION_SCORE),
               strict=True)  # fmt: skip
    for sample, labels, picture, (result, followed, _) in seen:
        detections[sample.image_id] = result.detections
        tracks.add([track for track in followed if track.class_id in shown], labels, sample.boxes_xyxy)
        boxes = letterbox(picture, height=spec.height, width=spec.width).to_input(sample.boxes_xyxy)
        masks.add(result.mask, boxes, height=spec.height, width=spec.width)
        executed += executed_macs(layers, result.mask, omg=result.omg_ran, regions=result.regions)
    return {
        "mask": mask,
        "keyframe_s": keyframe_s,
        "ap50": evaluate_detections(clip.dataset, detections).ap50,
        "tracks": tracks.result(),
        "masks": masks.result(),
        "macs_executed": executed / len(clip.pictures),
    }


def timed(pipeline: Pipeline, clip: Clip) -> list[float]:
    """Mean milliseconds a frame for each of ``SETTINGS``, which take turns."""
    best = np.full((len(SETTINGS), len(clip.pictures)), np.inf)
    for _ in range(PASSES):
        for row, (mask, keyframe_s) in enumerate(SETTINGS):
            masked = pipeline.with_mask(video_mask(mask, pipeline.spec, keyframe_s=keyframe_s))
            best[row] = np.minimum(best[row], [taken_ms for *_, taken_ms in frames(masked, clip.pictures, None)])
    means: list[float] = best.mean(1).tolist()
    return means


def percent(share: float) -> str:
    """0..1 as per cent."""
    return f"{100 * share:.1f} %"


def table(rows: list[Any], engine: str, frames: int) -> dict[str, Any]:
    """The rows as ``scripts/readme_tables.py`` reads them."""
    cells = [
        [
            f"`{row['mask'].replace('|', chr(92) + '|')}`",
            "" if row["keyframe_s"] is None else f"{row['keyframe_s']:g} s",
            percent(row["ap50"]),
            f"{row['tracks'].found} / {row['tracks'].labelled}",
            f"{row['tracks'].followed} / {row['tracks'].labelled}",
            percent(row["tracks"].held_share),
            percent(row["tracks"].frame_recall),
            percent(row["masks"].mask_recall),
            percent(row["masks"].active_share),
            f"{row['macs_executed'] / 1e6:.0f} M",
            f"{1e3 / row['ms']:.0f}",
        ]
        for row in rows
    ]
    labelled = rows[0]["tracks"].labelled
    return {
        "columns": ["--mask", "keyframe", "AP50", "found", "followed", "held", "boxes tracked", "mask recall", "active",
                    "executed MACs", "frames/s"],
        "rows": cells,
        "note": f"The shipped bundle on pets09, {frames} frames, {FRAMES_PER_SECOND:g} a second, {labelled} labelled "
        f"persons; {engine}, one thread of a busy machine, with the tracker, without reading the video. Found: persons "
        "on whom (IoU .5) there was a track in some frame; followed: those on whom one and the same id was in "
        f"{ONE_ID_SHARE:.0%} of their frames; held: that share of frames, in the mean of all persons; boxes tracked: "
        "the share of all labelled boxes with a track on them, whatever its id. Executed MACs count the mask network "
        "where it ran.",
    }  # fmt: skip


@click.command()
@click.option("--shared", type=click.Path(exists=True, path_type=Path), required=True, help="Folder that holds data/.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=RESULTS / "video.json", help="Where to write.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N frames.")
def main(shared: Path, output: Path, limit: int | None) -> None:
    """Fill docs/results/video.json."""
    pipeline = open_pipeline("default", threads=1)
    layers = layer_table(resolve_model("default"))
    clip = read_clip(shared / "data" / "fixedcam_pets09", pipeline.classes, limit)
    rows = []
    for mask, keyframe_s in SETTINGS:
        rows.append(measure(pipeline, clip, layers, mask, keyframe_s))
        click.echo(json.dumps(rows[-1], default=str), err=True)
    for row, row_ms in zip(rows, timed(pipeline, clip), strict=True):
        row["ms"] = row_ms
    document = table(rows, pipeline.engine_name, len(clip.pictures))
    output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""Masks on real footage of a fixed camera, through the shipped detector and the tracker: what they save and keep."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from edgekit.cameras import Frame
from edgekit.data.datasets import open_dataset
from edgekit.masks.reuse import video_mask
from edgekit.metrics.layers import layer_table
from edgekit.metrics.macs import executed_macs
from edgekit.pipeline import FrameResult, Pipeline, open_pipeline, resolve_model
from edgekit.tracking.follow import Follower
from edgekit.tracking.zones import Zone, Zones
from edgekit.tracking.zones_file import save_zones

FRAMES = 60


@dataclass
class Run:
    """What came out."""

    results: list[FrameResult]
    macs: float
    """Executed MACs, the mean of all frames."""


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return open_pipeline("default", threads=1)


@pytest.fixture(scope="module")
def frames(pets09: Path, pipeline: Pipeline) -> list[Frame]:
    samples = open_dataset(pets09, "val", pipeline.classes).samples[:FRAMES]
    return [Frame(image=sample.read(), index=n, time_s=n / 7, source="pets09") for n, sample in enumerate(samples)]


def run(
    pipeline: Pipeline, frames: list[Frame], mask: str, *, keyframe_s: float | None = None, zones: Path | None = None
) -> Run:
    masked = pipeline.with_mask(video_mask(mask, pipeline.spec, keyframe_s=keyframe_s))
    follower = Follower(score=pipeline.spec.score_threshold, live=False, zones=zones, dwell_s=2)
    layers, results, macs = layer_table(resolve_model("default")), [], []
    for frame in frames:
        found = masked.process(
            frame.image,
            score_threshold=follower.least_score,
            tracks=follower.expected(frame),
            time_s=frame.time_s,
        )
        results.append(follower.follow(frame, found))
        macs.append(executed_macs(layers, found.mask, omg=found.omg_ran))
    return Run(results, float(np.mean(macs)))


def count(run: Run) -> int:
    return sum(len(result.detections) for result in run.results)


def test_motion_costs_less_than_the_network_and_finds_about_the_same(pipeline: Pipeline, frames: list[Frame]) -> None:
    off, omg = run(pipeline, frames, "off"), run(pipeline, frames, "omg")
    both = run(pipeline, frames, "omg & motion", keyframe_s=2)
    followed = run(pipeline, frames, "omg & motion | tracks", keyframe_s=2)
    assert both.macs < 0.85 * omg.macs < 0.4 * off.macs
    assert followed.macs < omg.macs
    assert count(both) > 0.9 * count(omg)
    assert count(followed) > 0.9 * count(omg)
    assert not all(result.omg_ran for result in run(pipeline, frames, "motion", keyframe_s=2).results)


def test_tracks_and_events_of_real_people(pipeline: Pipeline, frames: list[Frame], tmp_path: Path) -> None:
    path = tmp_path / "zones.json"
    save_zones(path, Zones(zones=(Zone(name="all", corners=np.array([[0, 0], [1, 0], [1, 1], [0, 1]])),)))
    results = run(pipeline, frames, "omg", zones=path).results
    tracks = {track.id: track for result in results for track in result.tracks or ()}
    assert sorted(tracks) == list(range(1, len(tracks) + 1))
    assert max(track.age_s for track in tracks.values()) > 6  # somebody was followed through most of the clip
    events = [event for result in results for event in result.events]
    assert sum(event.kind == "enter" for event in events) == len(tracks)
    assert sum(event.kind == "zone_enter" for event in events) <= len(tracks)
    assert any(event.kind == "dwell" and event.place == "all" for event in events)
    shown = [float(score) for result in results for score in result.detections.scores]
    assert min(shown) >= pipeline.spec.score_threshold


def test_a_zone_that_is_drawn_while_the_camera_runs_makes_frames_cheaper(
    pipeline: Pipeline, frames: list[Frame], tmp_path: Path
) -> None:
    path = tmp_path / "zones.json"
    path.write_text(json.dumps({"polygons": []}))
    masked = pipeline.with_mask(video_mask(f"roi({path})", pipeline.spec))
    assert masked.process(frames[0].image).active_share == 0.8  # the cells that a picture of 4 to 3 touches
    save_zones(path, Zones(zones=(Zone(name="door", corners=np.array([[0, 0], [0.2, 0], [0.2, 0.2], [0, 0.2]])),)))
    assert masked.process(frames[1].image).active_share < 0.1

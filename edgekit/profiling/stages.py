"""Where a frame's time goes: the latency of each stage of the pipeline, and of the whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from edgekit.profiling.latency import Latency, summarise


def stage_latencies(timings_ms: Iterable[Mapping[str, float]]) -> dict[str, Latency]:
    """Collect the frames' ``FrameResult.timings_ms`` by stage.

    Args:
        timings_ms: one mapping a frame, stage name -> milliseconds; all with the same stages.

    Returns:
        Stage name -> its distribution, in the order of the first frame's stages. Percentiles of stages do not add up
        to the percentile of ``total``: the slow frame of one stage is seldom the slow frame of another.

    Raises:
        ValueError: no frame, or frames with different stages.
    """
    frames = list(timings_ms)
    if not frames:
        raise ValueError("stage latencies need at least one frame, got none")
    for frame in frames:
        if frame.keys() != frames[0].keys():
            raise ValueError(f"every frame must have the stages {list(frames[0])}, got {list(frame)}")
    return {stage: summarise([frame[stage] for frame in frames]) for stage in frames[0]}

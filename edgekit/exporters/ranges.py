"""How large each activation gets on calibration pictures, and what its channels are on average.

One pass of the float graph through onnxruntime. Ranges are minima and maxima. Clipping outliers for finer steps was
tried on ImageNet MobileNetV2: by least squared error it was no better on average and worse on the worst picture, by
the 99.99th percentile worse on both. Nothing is kept but a few numbers a channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ExportError
from edgekit.exporters.calibration import Calibration
from edgekit.exporters.dependencies import load
from edgekit.exporters.onnx_graph import load_model


@dataclass(frozen=True, kw_only=True)
class Range:
    """What one tensor held over all calibration inputs."""

    low: float
    high: float
    """The smallest and largest value, widened to include 0."""

    channel_means: NDArray[np.float64]
    """[C] mean of each channel over the sites where any channel is not zero; empty for what is not [1, C, H, W]."""

    channel_highs: NDArray[np.float64]
    """[C] largest value of each channel, 0 or more; empty like ``channel_means``."""

    channel_lows: NDArray[np.float64]
    """[C] smallest value of each channel, 0 or less; empty like ``channel_means``."""

    @property
    def channel_sizes(self) -> NDArray[np.float64]:
        """[C] largest absolute value of each channel; empty like ``channel_means``."""
        return np.maximum(self.channel_highs, -self.channel_lows)


def measure(path: Path, tensors: Sequence[str], calibration: Calibration) -> dict[str, Range]:
    """The range of each of ``tensors`` (results or inputs of the graph at ``path``).

    Raises:
        ExportError: there is no calibration input, or a tensor is not finite on one.
    """
    lows, highs, images = np.zeros(len(tensors)), np.zeros(len(tensors)), 0
    sums, sites = [np.zeros(0)] * len(tensors), np.zeros(len(tensors))
    tops, bottoms = [np.zeros(0)] * len(tensors), [np.zeros(0)] * len(tensors)
    for values in _run_all(path, tensors, calibration.inputs):
        images += 1
        lows = np.minimum(lows, [value.min() for value in values])
        highs = np.maximum(highs, [value.max() for value in values])
        finite = np.isfinite(lows) & np.isfinite(highs)
        if not finite.all():
            bad = tensors[int(np.argmin(finite))]
            raise ExportError(f"{bad!r} is not finite on calibration picture {images}: the weights are damaged")
        for index, value in enumerate(values):
            if value.ndim == 4:
                total = value.sum(axis=(0, 2, 3), dtype=np.float64)
                sums[index] = total + sums[index] if images > 1 else total
                sites[index] += int(value.any(axis=1).sum())
                peak = np.maximum(value.max(axis=(0, 2, 3)).astype(np.float64), 0)
                tops[index] = np.maximum(peak, tops[index]) if images > 1 else peak
                trough = np.minimum(value.min(axis=(0, 2, 3)).astype(np.float64), 0)
                bottoms[index] = np.minimum(trough, bottoms[index]) if images > 1 else trough
    if images == 0:
        raise ExportError("calibration expects pictures, got none")
    return {
        name: Range(
            low=float(lows[index]),
            high=float(highs[index]),
            channel_means=sums[index] / max(sites[index], 1.0),
            channel_highs=tops[index],
            channel_lows=bottoms[index],
        )
        for index, name in enumerate(tensors)
    }


def _run_all(
    path: Path, tensors: Sequence[str], inputs: Iterable[dict[str, NDArray[np.float32]]]
) -> Iterator[list[NDArray[np.float32]]]:
    """``tensors`` for each of ``inputs``, in the order asked for: the graph with inner tensors as outputs."""
    onnx = load("onnx", package="onnx", purpose="measure activation ranges")
    runtime = load("onnxruntime", package="onnxruntime", purpose="measure activation ranges")
    model = load_model(path)
    known = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    graph_inputs = {value.name for value in model.graph.input}
    results = [name for name in tensors if name not in graph_inputs]
    del model.graph.output[:]
    model.graph.output.extend(known.get(name) or onnx.helper.make_empty_tensor_value_info(name) for name in results)
    options = runtime.SessionOptions()
    options.log_severity_level = 3  # it would warn about every constant that an extra output keeps alive
    session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    for feed in inputs:
        used = {name: value for name, value in feed.items() if name in graph_inputs}
        found = session.run(results, used) if results else []
        values = used | dict(zip(results, found, strict=True))
        yield [values[name] for name in tensors]

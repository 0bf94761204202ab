"""How large each activation gets on calibration pictures, and which range loses least when it has 256 steps.

Two passes of the float graph through onnxruntime: the first finds minima and maxima, the second fills a histogram
between them. A range is then narrowed as long as clipping the outliers costs less squared error than the finer steps
save (the usual MSE calibration, e.g. arXiv 2106.08295 section 2.3.1). Nothing is kept but one histogram a tensor.
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

BINS = 2048
LEVELS = 256
SHRINKS = np.linspace(1.0, 0.3, 71)
"""Candidate ranges, as a share of the observed one."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """The distribution of one tensor's values, or of several that share a range."""

    low: float
    high: float
    """The smallest and largest value seen, widened to include 0."""

    counts: NDArray[np.float64]
    """[BINS] equal bins from ``low`` to ``high``."""

    def merged(self, others: Sequence[Histogram]) -> Histogram:
        """The distribution of all values together."""
        parts = (self, *others)
        low, high = min(part.low for part in parts), max(part.high for part in parts)
        counts = np.zeros(BINS)
        for part in parts:
            counts += np.histogram(part.centres(), BINS, (low, high), weights=part.counts)[0] if high > low else 0
        return Histogram(low=low, high=high, counts=counts)

    def centres(self) -> NDArray[np.float64]:
        """[BINS] the middle of each bin."""
        return self.low + (np.arange(BINS) + 0.5) * (self.high - self.low) / BINS

    def best_range(self) -> tuple[float, float]:
        """The range, a part of ``low``..``high`` with 0 in it, that 256 steps represent with least squared error."""
        values = self.centres()
        errors = []
        for shrink in SHRINKS:
            low, high = self.low * shrink, self.high * shrink
            step = max((high - low) / (LEVELS - 1), 1e-30)
            rounded = np.clip(np.round((values - low) / step), 0, LEVELS - 1) * step + low
            # Values inside a step are spread evenly, so rounding costs step^2/12 even where a bin's centre is exact.
            inside = (values >= low) & (values <= high)
            errors.append(float(self.counts @ np.where(inside, step**2 / 12, (values - rounded) ** 2)))
        best = float(SHRINKS[int(np.argmin(errors))])
        return self.low * best, self.high * best


def measure(path: Path, tensors: Sequence[str], calibration: Calibration) -> dict[str, Histogram]:
    """The histogram of each of ``tensors`` (results or inputs of the graph at ``path``) over all calibration inputs.

    Raises:
        ExportError: there is no calibration input, or a tensor is not finite on one.
    """
    session = _Session(path, tensors)
    lows, highs, images = np.zeros(len(tensors)), np.zeros(len(tensors)), 0
    for values in session.run_all(calibration.inputs):
        images += 1
        lows = np.minimum(lows, [value.min() for value in values])
        highs = np.maximum(highs, [value.max() for value in values])
        if not (np.isfinite(lows).all() and np.isfinite(highs).all()):
            bad = tensors[int(np.argmin(np.isfinite(lows) & np.isfinite(highs)))]
            raise ExportError(f"{bad!r} is not finite on calibration picture {images}: the weights are damaged")
    if images == 0:
        raise ExportError("calibration expects pictures, got none")
    counts = np.zeros((len(tensors), BINS))
    for values in session.run_all(calibration.inputs):
        for index, value in enumerate(values):
            if highs[index] > lows[index]:
                counts[index] += np.histogram(value, BINS, (lows[index], highs[index]))[0]
    return {
        name: Histogram(low=float(lows[index]), high=float(highs[index]), counts=counts[index])
        for index, name in enumerate(tensors)
    }


class _Session:
    """The float graph with inner tensors as outputs."""

    def __init__(self, path: Path, tensors: Sequence[str]) -> None:
        onnx = load("onnx", package="onnx", purpose="measure activation ranges")
        runtime = load("onnxruntime", package="onnxruntime", purpose="measure activation ranges")
        model = load_model(path)
        known = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
        self._tensors = tensors
        self._inputs = {value.name for value in model.graph.input}
        results = [name for name in tensors if name not in self._inputs]
        del model.graph.output[:]
        model.graph.output.extend(known.get(name) or onnx.helper.make_empty_tensor_value_info(name) for name in results)
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # it would warn about every constant that an extra output keeps alive
        self._session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        self._results = results

    def run_all(self, inputs: Iterable[dict[str, NDArray[np.float32]]]) -> Iterator[list[NDArray[np.float32]]]:
        """The tensors of each input, in the order asked for."""
        for feed in inputs:
            used = {name: value for name, value in feed.items() if name in self._inputs}
            found = self._session.run(self._results, used) if self._results else []
            values = used | dict(zip(self._results, found, strict=True))
            yield [values[name] for name in self._tensors]

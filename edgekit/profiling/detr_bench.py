"""Sparse DETR by the share of tokens that its encoder refines, in PyTorch and in every engine that runs its graph."""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.backends import load_engine
from edgekit.errors import EdgekitError, EngineError
from edgekit.exporters import CONVERTERS, SUFFIXES
from edgekit.exporters.conversion import Precision
from edgekit.exporters.dependencies import load
from edgekit.profiling.detr_subjects import Subject
from edgekit.profiling.interleaved import interleave
from edgekit.profiling.latency import summarise
from edgekit.profiling.machine import describe_machine
from edgekit.profiling.sides import read_sides

if TYPE_CHECKING:
    from edgekit.models.sparse_detr import SparseDetr
    from edgekit.models.static_detr import StaticDetr

log = logging.getLogger("edgekit")

FORMATS = {"torch": None, "onnxruntime": "onnx", "openvino": "openvino", "tflite": "tflite"}
"""Engine -> format of the graphs that it runs; PyTorch runs the modules that they are exported from."""

PARTS = ("whole", "encoder")


@dataclass(frozen=True, kw_only=True)
class Network:
    """One of the networks that are compared."""

    share: float | None
    """Of tokens that the encoder refines; ``None`` is all of them, without a network that scores them."""

    static: StaticDetr
    inputs: dict[str, dict[str, Any]]
    """Part -> name -> tensor: ``image`` of the whole, ``tokens`` of the encoder."""

    gmacs: dict[str, float]
    """Part -> 10^9 operations by :mod:`edgekit.metrics.flops`."""


def measure_detr(
    subject: Subject,
    *,
    shares: Sequence[float],
    engines: Sequence[str],
    threads: int,
    iterations: int,
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """Make networks that differ in their share alone, convert and time them.

    Args:
        subject: what they are made from (:mod:`edgekit.profiling.detr_subjects`).
        shares: of tokens, above 0 to 1; a dense network is always added.
        engines: of :data:`FORMATS`.
        threads: CPU threads of each engine.
        iterations: runs that count, taken in turns by all networks of an engine.
        precision: fp32 or fp16.

    Returns:
        ``machine``, ``model``, ``input`` and ``rows``: engine, share (``None`` is dense), tokens that are refined, and
        of the whole network and of its encoder with its scoring network alone GMACs, least and median milliseconds,
        and the ratio of the least to that of the dense network in the same engine; and ``ap50`` (0..1) where the
        subject can measure it.

    Raises:
        EngineError: no engine could run any of them.
        MissingDependencyError: torch is not installed.
    """
    torch = load("torch", package="torch", purpose="make a DETR of random weights")
    torch.set_num_threads(threads)
    wanted = (None, *sorted(set(shares)))
    networks = [_network(subject, share) for share in wanted]
    rows: list[dict[str, Any]] = []
    for engine in engines:
        try:
            with tempfile.TemporaryDirectory(prefix="edgekit-bench-") as folder:
                rows += _rows(engine, networks, Path(folder), precision, threads=threads, iterations=iterations)
        except EdgekitError as error:
            log.warning("warning: %s is left out: %s", engine, error)
    if not rows:
        raise EngineError(
            f"a DETR could be run by none of {', '.join(engines)}; the warnings say why.\n"
            "See what works with: edgekit doctor"
        )
    if subject.ap50 is not None:
        accuracy = {share: round(subject.ap50(share), 4) for share in wanted}
        rows = [{**row, "ap50": accuracy[row["share"]]} for row in rows]
    sides = {"height": subject.height, "width": subject.width}
    return {
        "machine": describe_machine().to_json(),
        "model": {"variant": subject.name, "classes": subject.classes, "precision": precision, **subject.remarks},
        "input": {**sides, "tokens": networks[0].static.positions.shape[0]},
        "threads": threads,
        "rows": rows,
    }


def _network(subject: Subject, share: float | None) -> Network:
    torch = load("torch", package="torch", purpose="run a DETR")
    from edgekit.models.static_detr import StaticDetr

    height, width = subject.height, subject.width
    model = subject.network(share)
    gmacs = _gmacs(model, height=height, width=width)
    static = StaticDetr(model, height=height, width=width).eval()
    image, tokens = torch.randn(1, 3, height, width), torch.randn(static.positions.shape)
    inputs = {"whole": {"image": image}, "encoder": {"tokens": tokens}}
    return Network(share=share, static=static, inputs=inputs, gmacs=gmacs)


def _gmacs(model: SparseDetr, *, height: int, width: int) -> dict[str, float]:
    """Of the network as published, which asks its first box head of all tokens; shapes suffice to count."""
    torch = load("torch", package="torch", purpose="make a DETR of random weights")
    from edgekit.metrics.flops import count_flops

    shape = copy.deepcopy(model).to("meta")
    picture = torch.zeros(1, 3, height, width, device="meta")
    counted = count_flops(shape, lambda: shape(picture, all_heads=False))
    encoder = set(shape.transformer.encoder.modules())
    if shape.share is not None:
        encoder |= set(shape.transformer.enc_mask_predictor.modules())
    flops = {"whole": sum(counted.values()), "encoder": sum(n for module, n in counted.items() if module in encoder)}
    return {part: count / 1e9 for part, count in flops.items()}


def _rows(
    engine: str, networks: Sequence[Network], folder: Path, precision: Precision, *, threads: int, iterations: int
) -> Iterator[dict[str, Any]]:
    rivals = {
        f"{index} {part}": _call(engine, network, part, folder / str(index), precision, threads=threads)
        for index, network in enumerate(networks)
        for part in PARTS
    }
    times = {name: summarise(samples) for name, samples in interleave(rivals, rounds=iterations, burst=1).items()}
    for index, network in enumerate(networks):
        row: dict[str, Any] = {"engine": engine, "share": network.share}
        row["tokens"] = network.static.budget or network.static.positions.shape[0]
        for part in PARTS:
            taken, dense = times[f"{index} {part}"], times[f"0 {part}"]
            row[part] = {
                "gmacs": round(network.gmacs[part], 3),
                "ms_min": round(taken.min_ms, 3),
                "ms_median": round(taken.p50_ms, 3),
                "to_dense": round(taken.min_ms / dense.min_ms, 4),
            }
        yield row


def _call(
    engine: str, network: Network, part: str, folder: Path, precision: Precision, *, threads: int
) -> Callable[[], object]:
    """What runs one part of a network once."""
    torch = load("torch", package="torch", purpose="export a model")
    from edgekit.exporters.detr_onnx import write_static
    from edgekit.models.static_detr import EncoderAlone

    module = network.static if part == "whole" else EncoderAlone(network.static).eval()
    inputs, graph_format = network.inputs[part], FORMATS[engine]
    if graph_format is None:

        def run() -> object:
            with torch.inference_mode():
                return module(*inputs.values())

        return run
    source, target = folder / f"{part}.onnx", folder / f"{part}.made{SUFFIXES[graph_format]}"
    outputs = ["class_logits", "boxes"] if part == "whole" else ["refined"]
    write_static(module, inputs, outputs, source)
    CONVERTERS[graph_format](source, target, precision)
    arrays = {name: value.numpy() for name, value in inputs.items()}
    loaded = load_engine(engine, target, threads=threads)
    return lambda: loaded.run(arrays)


def detr_lines(document: dict[str, Any]) -> list[str]:
    """A table of what :func:`measure_detr` gave."""
    size, model = document["input"], document["model"]
    measured = "ap50" in document["rows"][0]
    lines = [
        f"{document['machine']['cpu']}, threads: {document['threads']}",
        f"{model['variant']}, {model['precision']}, {size['height']}x{size['width']}: {size['tokens']} tokens",
        f"AP50 on {model['images']} pictures of {model['data']}, without a mask" if measured else "",
        f"{'':<12}{'share':>6}{'tokens':>8}"
        + "".join(f"{'GMAC':>9}{'ms':>9}{'median':>9}{'to dense':>10}" for _ in PARTS)
        + ("   AP50" if measured else "")
        + "   (whole, then its encoder)",
    ]
    for row in document["rows"]:
        share = "dense" if row["share"] is None else f"{row['share']:.2f}"
        parts = "".join(
            f"{row[part]['gmacs']:>9.2f}{row[part]['ms_min']:>9.1f}{row[part]['ms_median']:>9.1f}"
            f"{row[part]['to_dense']:>10.2f}"
            for part in PARTS
        )
        accuracy = f"{row['ap50']:>7.3f}" if measured else ""
        lines.append(f"{row['engine']:<12}{share:>6}{row['tokens']:>8}{parts}{accuracy}")
    return lines


def sides_of(text: str) -> tuple[int, int]:
    """Height and width of ``HxW``.

    Raises:
        UsageError: these are not two numbers of pixels from 64 up.
    """
    return read_sides(text, lambda side: side >= 64, wanted=" from 64 up, as in 800x1066")

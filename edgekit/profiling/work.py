"""The work of one frame: parameters and MACs by layer, dense and under the masks seen, as data and as lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit.masks.pyramid import Mask
from edgekit.metrics.macs import LayerMacs, executed_layer_macs, layers_to_json, total_macs


def dense_work(table: Sequence[LayerMacs]) -> dict[str, Any]:
    """``parameters``, ``macs`` of the detector, ``macs_omg`` and ``layers``, as ``json`` can write them."""
    return {
        "parameters": sum(layer.parameters for layer in table),
        "macs": total_macs(table, "detector"),
        "macs_omg": total_macs(table, "omg"),
        "layers": layers_to_json(table),
    }


def masked_work(table: Sequence[LayerMacs], masks: Sequence[Mask], *, omg: bool) -> dict[str, Any]:
    """:func:`dense_work`, and ``macs_executed`` of all and of each layer: the mean over ``masks`` [G, G]."""
    by_mask = [executed_layer_macs(table, mask, omg=omg) for mask in masks]
    executed = [round(sum(layer) / len(masks)) for layer in zip(*by_mask, strict=True)]
    dense = dense_work(table)
    layers = [{**layer, "macs_executed": share} for layer, share in zip(dense.pop("layers"), executed, strict=True)]
    return {**dense, "macs_executed": sum(executed), "layers": layers}


def work_lines(work: dict[str, Any], *, every_layer: bool) -> list[str]:
    """A table of what :func:`dense_work` or :func:`masked_work` gave: its layers and both graphs, or these alone."""
    rows = work["layers"]
    counts = [key for key in ("parameters", "macs", "macs_executed") if key in work]
    width = max((len(row["name"]) for row in rows), default=8) + 2
    titles = {"parameters": f"{'parameters':>12}", "macs": f"{'MMAC':>10}", "macs_executed": f"{'executed':>10}"}

    def line(name: str, size: str, row: dict[str, int]) -> str:
        cells = (f"{row[key]:>12,}" if key == "parameters" else f"{row[key] / 1e6:>10.2f}" for key in counts)
        return f"{name:<{width}}{size:>10}" + "".join(cells)

    lines = [f"{'':<{width}}{'output':>10}" + "".join(titles[key] for key in counts)]
    for row in rows if every_layer else ():
        lines.append(line(row["name"], f"{row['rows']}x{row['columns']}", row))
    for graph in dict.fromkeys(row["graph"] for row in rows):
        part = [row for row in rows if row["graph"] == graph]
        lines.append(line(graph, "", {key: sum(row[key] for row in part) for key in counts}))
    return lines

"""Drawings of a :class:`ShareCurve`: as text for a terminal, as SVG for a page."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from edgekit.errors import StorageError
from edgekit.profiling.share_curve import ShareCurve

COLUMNS, LINES = 61, 14
"""Of the text; every tenth of the cells is six columns."""

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 60, 20, 40, 50
"""Of the SVG, pixels, and the margins of its axes."""

NATIVE_COLOUR, DENSE_COLOUR, BREAK_COLOUR = "#0b6e4f", "#b23a48", "#555555"


def text_plot(curve: ShareCurve) -> list[str]:
    """Milliseconds against the share of active cells: ``o`` measured, ``.`` between, ``-`` dense, ``|`` break-even."""
    top = _top(curve)
    canvas = [[" "] * COLUMNS for _ in range(LINES)]

    def row(milliseconds: float) -> int:
        return LINES - 1 - round(milliseconds / top * (LINES - 1))

    if curve.dense_ms is not None:
        canvas[row(curve.dense_ms)] = ["-"] * COLUMNS
    if curve.break_even is not None and curve.break_even < 1:
        for line in canvas:
            line[_column(curve.break_even)] = "|"
    for column in range(_column(curve.shares[0]), COLUMNS):
        milliseconds = float(np.interp(column / (COLUMNS - 1), curve.shares, curve.native_ms))
        canvas[row(milliseconds)][column] = "."
    for share, milliseconds in zip(curve.shares, curve.native_ms, strict=True):
        canvas[row(milliseconds)][_column(share)] = "o"
    labels = {0: f"{top:.3g} ms", LINES - 1: "0"}
    lines = [f"{labels.get(index, ''):>9} {''.join(line)}".rstrip() for index, line in enumerate(canvas)]
    axis = "".join(f"{tenth:<6}" for tenth in range(0, 100, 10)) + "100 % active"
    return [*lines, f"{'':>10}{axis}", f"{'':>10}{_legend(curve)}"]


def write_svg(path: Path, curve: ShareCurve, title: str) -> None:
    """The same as a drawing of its own; raises :class:`StorageError` if ``path`` cannot be written."""
    try:
        path.write_text(svg_plot(curve, title), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error


def svg_plot(curve: ShareCurve, title: str) -> str:
    """The text of an SVG file."""
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
            'font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            *_svg_marks(curve, title),
            "</svg>\n",
        ]
    )


def _svg_marks(curve: ShareCurve, title: str) -> Iterator[str]:
    top, right, bottom = _top(curve), WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(share: float) -> float:
        return round(LEFT + share * (right - LEFT), 1)

    def y(milliseconds: float) -> float:
        return round(bottom - milliseconds / top * (bottom - TOP), 1)

    yield f'<text x="{LEFT}" y="22" font-size="14">{html.escape(title)}</text>'
    for tick in np.arange(0, top * 1.001, top / 5):
        yield f'<path d="M{LEFT} {y(tick)}H{right}" stroke="#dddddd"/>'
        yield f'<text x="{LEFT - 6}" y="{y(tick) + 4}" text-anchor="end">{tick:.3g}</text>'
    for percent in range(0, 101, 20):
        yield f'<text x="{x(percent / 100)}" y="{bottom + 18}" text-anchor="middle">{percent} %</text>'
    yield f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 12}" text-anchor="middle">active cells</text>'
    yield f'<text x="14" y="{TOP - 10}">ms</text>'
    if curve.dense_ms is not None:
        label = html.escape(str(curve.dense_engine))
        yield f'<path d="M{LEFT} {y(curve.dense_ms)}H{right}" stroke="{DENSE_COLOUR}" stroke-width="2"/>'
        yield f'<text x="{LEFT + 6}" y="{y(curve.dense_ms) - 6}" fill="{DENSE_COLOUR}">{label}</text>'
    if curve.break_even is not None and curve.break_even < 1:
        at = x(curve.break_even)
        side = 'text-anchor="end" dx="-6"' if curve.break_even > 0.5 else 'dx="6"'
        yield f'<path d="M{at} {TOP}V{bottom}" stroke="{BREAK_COLOUR}" stroke-dasharray="4 4"/>'
        yield f'<text x="{at}" y="{bottom - 8}" {side}>break-even {curve.break_even:.0%}</text>'
    points = [(x(share), y(time)) for share, time in zip(curve.shares, curve.native_ms, strict=True)]
    line = " ".join(f"{a},{b}" for a, b in points)
    yield f'<polyline points="{line}" fill="none" stroke="{NATIVE_COLOUR}" stroke-width="2"/>'
    for a, b in points:
        yield f'<circle cx="{a}" cy="{b}" r="3" fill="{NATIVE_COLOUR}"/>'
    a, b = points[0]
    yield f'<text x="{a + 8}" y="{b + 14}" fill="{NATIVE_COLOUR}">native</text>'


def _legend(curve: ShareCurve) -> str:
    parts = ["o native"]
    if curve.dense_ms is not None:
        parts.append(f"- {curve.dense_engine}, {curve.dense_ms:.2f} ms")
    if curve.break_even is not None and curve.break_even < 1:
        parts.append(f"| break-even, {curve.break_even:.0%} active")
    return "   ".join(parts)


def _column(share: float) -> int:
    return round(share * (COLUMNS - 1))


def _top(curve: ShareCurve) -> float:
    """The end of the axis: a round number of milliseconds over everything that is drawn."""
    highest = max(*curve.native_ms, curve.dense_ms or 0.0, 1e-3)
    unit = 10 ** math.floor(math.log10(highest))
    return float(next(factor * unit for factor in (1, 1.5, 2, 3, 4, 5, 6, 8, 10) if factor * unit >= highest))

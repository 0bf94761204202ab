"""Where two curves cross, on curves that are known, and what is drawn of them."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import StorageError
from edgekit.profiling.share_curve import ShareCurve, crossing, rising, share_curve
from edgekit.profiling.share_plot import COLUMNS, LINES, svg_plot, text_plot, write_svg

SHARES = (0.1, 0.2, 0.5, 1.0)


@pytest.mark.parametrize(
    ("sparse_ms", "dense_ms", "share"),
    [
        ((1, 2, 5, 10), 8, 0.8),
        ((1, 2, 5, 10), 5, 0.5),
        ((1, 2, 5, 10), 1.5, 0.15),
        ((1, 2, 5, 10), 10, 1.0),  # never slower
        ((1, 2, 5, 10), 11, 1.0),
        ((1, 2, 5, 10), 0.9, 0.0),  # always slower
        ((1, 2, 5, 10), 1, 0.1),
        ((1, 3, 3, 3), 2, 0.15),
        ((3, 3, 3, 3), 3, 1.0),
        ((1, 6, 4, 10), 5.5, 0.55),  # the second and third are noise around 5
    ],
)
def test_crossings(sparse_ms: tuple[float, ...], dense_ms: float, share: float) -> None:
    assert crossing(SHARES, sparse_ms, dense_ms) == pytest.approx(share)


def test_one_share_is_a_curve() -> None:
    assert crossing((1.0,), (3.0,), 4.0) == 1
    assert crossing((1.0,), (3.0,), 2.0) == 0


def test_what_falls_is_evened_out() -> None:
    assert rising([1, 2, 3]) == [1, 2, 3]
    assert rising([1, 3, 2, 4]) == [1, 2.5, 2.5, 4]
    assert rising([4, 3, 2]) == [3, 3, 3]
    assert rising([5, 1, 1, 3]) == pytest.approx([7 / 3, 7 / 3, 7 / 3, 3])
    assert rising([]) == []


def row(engine: str, active: float, milliseconds: float) -> dict[str, Any]:
    return {"engine": engine, "active": active, "ms_median": milliseconds, "ms_min": 0.0}


ROWS = [
    *(row("native", share, 10 * share) for share in (1.0, 0.5, 0.1)),
    *(row("openvino", share, time) for share, time in ((1.0, 6), (0.5, 90), (0.1, 6))),  # one disturbed run
    *(row("tflite", share, 7) for share in (1.0, 0.5, 0.1)),
    *(row("tflite-sparse", share, 1) for share in (1.0, 0.5, 0.1)),
]


def test_a_curve_from_rows() -> None:
    curve = share_curve(ROWS, ("tflite", "openvino", "onnxruntime"))
    assert (curve.shares, curve.native_ms) == ((0.1, 0.5, 1.0), (1, 5, 10))
    assert (curve.dense_engine, curve.dense_ms) == ("openvino", 6)
    assert curve.break_even == pytest.approx(0.6)


def test_without_a_dense_engine_there_is_no_break_even() -> None:
    curve = share_curve(ROWS, ())
    assert (curve.dense_engine, curve.dense_ms, curve.break_even) == (None, None, None)


def curve(dense_ms: float | None) -> ShareCurve:
    engine = None if dense_ms is None else "a<b"
    return ShareCurve(shares=(0.1, 0.5, 1.0), native_ms=(1.0, 5.0, 10.0), dense_engine=engine, dense_ms=dense_ms)


def test_the_drawing_for_a_terminal() -> None:
    *lines, axis, legend = text_plot(curve(6.0))
    assert len(lines) == LINES
    assert all(len(line) <= 10 + COLUMNS for line in lines)
    assert sum(line.count("o") for line in lines) == 3
    assert lines[0].startswith("    10 ms ")
    assert lines[0].endswith("o")  # all cells, at the top
    assert {line[10 + 36] for line in lines if len(line) > 46} == {"|", "."}  # 60 of 100 %
    assert axis.strip() == "0     10    20    30    40    50    60    70    80    90    100 % active"
    assert legend.strip() == "o native   - a<b, 6.00 ms   | break-even, 60% active"


@pytest.mark.parametrize(("dense_ms", "legend"), [(None, "o native"), (12.0, "o native   - a<b, 12.00 ms")])
def test_a_drawing_without_a_crossing(dense_ms: float | None, legend: str) -> None:
    *lines, last = text_plot(curve(dense_ms))
    assert last.strip() == legend
    assert not any("|" in line for line in lines)
    assert any("-----" in line for line in lines) == (dense_ms is not None)
    assert "break-even" not in svg_plot(curve(dense_ms), "x")


@pytest.mark.parametrize("milliseconds", [0.0, 0.003, 0.4, 9.99, 1234.0])
def test_any_time_fits_the_drawing(milliseconds: float) -> None:
    one = ShareCurve(shares=(1.0,), native_ms=(milliseconds,), dense_engine="x", dense_ms=milliseconds)
    assert sum(line.count("o") for line in text_plot(one)[:LINES]) == 1
    ElementTree.fromstring(svg_plot(one, "x"))


def test_the_drawing_for_a_page(tmp_path: Path) -> None:
    write_svg(tmp_path / "x.svg", curve(6.0), "a & b")
    root = ElementTree.parse(tmp_path / "x.svg").getroot()
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a & b", "native", "a<b", "break-even 60%", "active cells"} <= set(texts)
    (line,) = root.iter("{http://www.w3.org/2000/svg}polyline")
    points = [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
    assert points == [(116.0, 319.0), (340.0, 195.0), (620.0, 40.0)]
    for circle in root.iter("{http://www.w3.org/2000/svg}circle"):
        assert (float(circle.attrib["cx"]), float(circle.attrib["cy"])) in points
    with pytest.raises(StorageError, match=r"absent/x\.svg cannot be written: No such file"):
        write_svg(tmp_path / "absent" / "x.svg", curve(6.0), "x")

"""The stages of a PVANet, timed on engines that do nothing: what is counted, and as what."""

from __future__ import annotations

import time

import numpy as np
import pytest

from edgekit.backends import Tensors, engine_problem
from edgekit.models.facts import find_facts
from edgekit.profiling.pvanet_rivals import PVANetRival, random_picture
from edgekit.profiling.pvanet_stages import STAGES, PVANetWork, count_work, drawn_rois, time_stages
from edgekit.profiling.pvanet_table import stage_lines

pytest.importorskip("torch", reason="counting needs PyTorch: pip install 'edgekit-vision[train]'")

HEIGHT, WIDTH, ROIS = 64, 96, 10
CELLS = HEIGHT * WIDTH // 256


class Pretended:
    """An engine that takes its time, and gives zeros."""

    name, takes_pixels = "pretended", False

    def __init__(self, seconds: float, **outputs: tuple[int, ...]) -> None:
        self.seconds, self.outputs, self.masks = seconds, outputs, []

    def run(self, inputs: Tensors) -> Tensors:
        self.masks.append(inputs["mask"])
        time.sleep(self.seconds)
        return {name: np.zeros(shape, np.float32) for name, shape in self.outputs.items()}


def rival(engine: str, *, sparse: bool, trunk: float, shared: float, head: float) -> PVANetRival:
    maps = {"rpn_logits": (1, CELLS, 50), "rpn_deltas": (1, CELLS, 100), "features": (1, CELLS, 8)}
    graphs = {
        "trunk": Pretended(trunk, features=(1, CELLS, 8)),
        "shared": Pretended(shared, **maps),
        "head": Pretended(head, roi_logits=(1, ROIS, 21), roi_deltas=(1, ROIS, 84)),
    }
    return PVANetRival(engine=engine, precision="fp32", sparse=sparse, graphs=graphs)


@pytest.fixture(scope="module")
def work() -> PVANetWork:
    from edgekit.models.pvanet import PVANet

    return count_work(PVANet("9.0", compressed=True, width=0.25).eval(), height=HEIGHT, width=WIDTH)


def test_the_work_is_that_of_the_published_network() -> None:
    from edgekit.models.pvanet import PVANet

    facts = find_facts("pvanet-lite")
    work = count_work(PVANet("lite").eval(), height=facts.height, width=facts.width)
    everywhere = np.ones((facts.height // 16, facts.width // 16), np.bool_)
    assert work.macs(everywhere, facts.rois) == facts.macs
    assert work.macs(~everywhere, 7) == 7 * work.head_macs
    left = everywhere.copy()
    left[:, 32:] = False  # a corner of whole cells at every level
    share = (work.macs(left, 0)) / work.macs(everywhere, 0)
    assert share == pytest.approx(32 / 66)


def test_drawn_rois_lie_inside() -> None:
    rois = drawn_rois(500, height=640, width=1056)
    sides = rois[:, 2:] - rois[:, :2] + 1
    assert rois.min() >= 0
    assert (rois[:, 2:] <= [1055, 639]).all()
    assert (sides >= np.array([1056, 640]) / 20 - 1).all()
    assert 0.1 < np.median(sides / [1056, 640]) < 0.35
    np.testing.assert_array_equal(rois, drawn_rois(500, height=640, width=1056))


def test_a_picture_lies_as_its_engine_reads_it() -> None:
    picture = random_picture(height=4, width=6, seed=0)
    assert -123 <= picture.min() < 0 < picture.max() <= 153
    for engine, last in (("native", True), ("tflite", True), ("openvino", False), ("onnxruntime", False)):
        laid_out = rival(engine, sparse=False, trunk=0, shared=0, head=0).laid_out(picture)
        np.testing.assert_array_equal(laid_out, picture)
        assert laid_out.flags.c_contiguous is not last
        assert laid_out.transpose(0, 2, 3, 1).flags.c_contiguous is last


@pytest.mark.skipif(engine_problem("native") is not None, reason="the kernels are not built")
def test_each_stage_has_its_time(work: PVANetWork) -> None:
    from edgekit.models.pvanet import VARIANTS

    sparse = rival("native", sparse=True, trunk=0.002, shared=0.005, head=0.003)
    dense = rival("openvino", sparse=False, trunk=0.004, shared=0.01, head=0.006)
    slower = rival("onnxruntime", sparse=False, trunk=0.004, shared=0.02, head=0.006)
    rows = time_stages(
        [sparse, dense, slower], VARIANTS["9.0"], work, [1.0, 0.5],
        height=HEIGHT, width=WIDTH, rois=ROIS, threads=1, iterations=8,
    )  # fmt: skip
    assert [(row["engine"], row["active"], row["rois"]) for row in rows] == [
        (engine, share, round(ROIS * share)) for share in (1.0, 0.5) for engine in ("native", "openvino", "onnxruntime")
    ]
    for row in rows:
        assert tuple(row["stages"]) == STAGES
        spent = sum(stage["ms_min"] for stage in row["stages"].values())
        assert 0.6 * row["ms_min"] < spent < 1.1 * row["ms_min"]
        assert row["ms_min"] <= row["ms_median"]
    first = {name: stage["ms_min"] for name, stage in rows[0]["stages"].items()}
    assert first["trunk"] == pytest.approx(2, abs=1)
    assert first["rpn"] == pytest.approx(3, abs=1)
    assert first["head"] == pytest.approx(3, abs=1)
    assert rows[1]["to_dense"] == 1
    assert rows[0]["to_dense"] == pytest.approx(8 / 16, abs=0.15)
    assert rows[2]["to_dense"] > 1.2
    half, dense_half = rows[3], rows[4]
    assert dense_half["gmacs_executed"] == dense_half["gmacs_dense_equivalent"]
    assert half["gmacs_executed"] < 0.8 * half["gmacs_dense_equivalent"]
    open_masks, half_masks = sparse.graphs["head"].masks[0], sparse.graphs["head"].masks[-1]
    assert (open_masks.sum(), half_masks.sum()) == (ROIS, ROIS // 2)
    assert sparse.graphs["shared"].masks[-1].sum() == CELLS // 2


def test_the_table_ends_with_what_was_published() -> None:
    times = {"ms_min": 1.0, "ms_median": 2.0}
    row = {
        "engine": "native", "precision": "fp32", "active": 1.0, **times, "stages": dict.fromkeys(STAGES, times),
        "gmacs_executed": 40.0, "to_dense": None,
        "of_gemm_peak": 0.8, "of_kernel_peak": 0.7, "of_kernel_peak_layers": 0.75,
    }  # fmt: skip
    peaks = {"gemm_peak_gmacs": 50.0, "kernel_peak_gmacs_int8": 200.0, "kernel_peak_gmacs": 57.0}
    document = {"machine": {"cpu": "Some"}, **peaks, "rows": [row]}
    machine, _, title, ours, published, source = stage_lines(document)
    assert machine == "Some; GEMM peak 50.0 GMAC/s; a kernel on data in the cache 57.0, in int8 200.0"
    assert title.split()[3:9] == list(STAGES)
    assert ours.split() == ["native", "fp32", "1.00", *["1.00"] * 6, "1.0", "2.0", "40.0", "80%", "70%", "75%"]
    assert published.split() == ["as", "published", "fp32", "1.00", "750.0", "16.7", "25%"]
    assert len({len(title), len(ours), len(published)}) == 1
    assert "1608.08021" in source

"""Ranges, and the int8 numbers that follow from them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit.exporters.calibration import Calibration
from edgekit.exporters.onnx_build import build_model, save_model
from edgekit.exporters.onnx_graph import read_graph
from edgekit.exporters.quantisation import (
    LOGIT_LIMIT,
    MASK,
    Affine,
    float_tensors,
    plan_activations,
    quantise_convolution,
    saturated,
)
from edgekit.exporters.ranges import measure


@pytest.mark.parametrize(("low", "high"), [(-1, 127 / 128), (0, 6), (-3.3, 0.1), (2, 5), (-5, -2)])
def test_zero_and_both_ends_can_be_stored(low: float, high: float) -> None:
    affine = Affine.of_range(low, high)
    assert -128 <= affine.zero_point <= 127
    for value in (low, 0.0, high):
        stored = np.clip(round(value / affine.scale) + affine.zero_point, -128, 127)
        assert affine.scale * (stored - affine.zero_point) == pytest.approx(value, abs=affine.scale)
    assert affine.scale * 0 == 0


def test_measuring_finds_inputs_and_results(graphs: dict[str, Path], calibration: Calibration) -> None:
    found = measure(graphs["omg"], ["image", "objectness"], calibration)
    images = np.concatenate([feed["image"] for feed in calibration.inputs])
    assert (found["image"].low, found["image"].high) == (images.min(), images.max())
    assert found["image"].channel_means == pytest.approx(images.mean(axis=(0, 2, 3)), abs=1e-6)
    assert found["objectness"].low < found["objectness"].channel_means[0] < found["objectness"].high


def test_means_are_those_of_active_sites(graphs: dict[str, Path], calibration: Calibration) -> None:
    found = measure(graphs["detector"], ["project", "project.masked", "class_logits"], calibration)
    sums, sites = np.zeros(16), 0.0
    for feed in calibration.inputs:
        one = Calibration(inputs=[feed], images=1, sha256="")
        active = float(feed["mask"].sum()) * 16  # cells of 4x4 sites
        if active:
            sums += measure(graphs["detector"], ["project.masked"], one)["project.masked"].channel_means * active
            sites += active
    assert found["project.masked"].channel_means == pytest.approx(sums / sites, rel=1e-6)
    assert found["class_logits"].channel_means.size == 0


def test_connected_tensors_share_their_numbers(graphs: dict[str, Path], calibration: Calibration) -> None:
    graph = read_graph(graphs["detector"])
    plan = plan_activations(graphs["detector"], graph, calibration)
    assert {plan[name] for name in graph.mask_tensors()} == {MASK}
    assert plan["image"] == plan["image.masked"] == Affine(1 / 128, 0)
    heads = {plan[name] for name in plan if name.startswith("class_logits")}
    assert len(heads) == 1
    assert heads != {plan["box_offsets"]}
    assert "stem" not in plan, "a ReLU6 is fused into it, so it is never stored"
    assert plan["stem.relu6"].zero_point == -128


def test_what_a_mask_hides_does_not_widen_a_range(graphs: dict[str, Path], calibration: Calibration) -> None:
    """The projection's bias fills the background before the mask removes it."""
    graph = read_graph(graphs["detector"])
    plan = plan_activations(graphs["detector"], graph, calibration)
    masked = measure(graphs["detector"], ["project.masked"], calibration)["project.masked"]
    assert plan["project"].scale * 255 <= (masked.high - masked.low) * 1.001


def test_logits_beyond_any_score_do_not_coarsen_the_others(graphs: dict[str, Path], calibration: Calibration) -> None:
    """A head that is very sure of some background, as trained ones are, keeps fine steps where scores are decided."""
    graph = read_graph(graphs["detector"])
    certain = dict(graph.constants)
    certain["class_logits.near.bias"] = certain["class_logits.near.bias"] + np.array([-135, 0, 0, 0], np.float32)
    path = graphs["detector"].with_name("certain.onnx")
    save_model(build_model(replace(graph, constants=certain)), path)
    plan = plan_activations(path, read_graph(path), calibration)
    assert plan["class_logits"].scale * 255 <= 2 * LOGIT_LIMIT
    assert plan["class_logits"] == plan["class_logits.near"]
    assert saturated("class_logits", np.float32([-135, 2])).tolist() == [-LOGIT_LIMIT, 2]
    assert saturated("box_offsets", np.float32([-135, 2])).tolist() == [-135, 2]


def test_float_spreads_to_what_only_moves_values(graphs: dict[str, Path]) -> None:
    graph = read_graph(graphs["detector"])
    floats = float_tensors(graph, {"class_logits.near", "depthwise"})
    assert {"class_logits.near", "class_logits.near.masked", "class_logits.near.masked.flat", "class_logits"} <= floats
    assert {"depthwise", "depthwise.relu6", "depthwise.relu6.masked"} <= floats
    assert not {"project", "residual", "class_logits.far", "box_offsets"} & floats


def test_weights_are_symmetric_per_channel() -> None:
    weight = np.array([[1.0, -0.5], [0.01, 0.025], [0.0, 0.0]], np.float32)[:, :, None, None]
    found = quantise_convolution(weight, np.array([1.0, -1.0, 0.0], np.float32), 0.5)
    assert found.weight[:, :, 0, 0].tolist() == [[127, -64], [51, 127], [0, 0]]
    assert found.bias_scales == pytest.approx(found.weight_scales * 0.5)
    assert found.bias * found.bias_scales == pytest.approx([1.0, -1.0, 0.0], rel=1e-3)


def test_pairs_of_one_sign_stay_within_the_limit() -> None:
    weight = np.array([[1.0, 0.9, -0.1], [1.0, -0.9, 0.1], [-1.0, -1.0, 0.5]], np.float32)[:, :, None, None]
    rows = quantise_convolution(weight, np.zeros(3, np.float32), 1.0, pair_limit=128).weight[:, :, 0, 0].astype(int)
    assert rows[0, 0] + rows[0, 1] == 128
    assert rows[1].tolist() == [116, -105, 12]
    assert rows[2].tolist() == [-64, -64, 32]


def test_a_bias_never_overflows() -> None:
    tiny = quantise_convolution(np.full((1, 1, 1, 1), 1e-20, np.float32), np.array([4.0], np.float32), 1e-3)
    assert 2**29 < tiny.bias[0] <= 2**30
    assert tiny.bias[0] * tiny.bias_scales[0] == pytest.approx(4.0)

"""Building networks by name."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from edgekit.errors import UsageError
from edgekit.models.anchors import anchor_boxes
from edgekit.models.pvanet import VARIANTS
from edgekit.models.pvanet_rois import all_anchors, to_exclusive
from edgekit.models.registry import MODELS, build, find_model, spec_at
from edgekit.spec import DetectorSpec


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'mobilenetv2-ssdlite-omg'"):
        build("mobilenetv2-ssd-omg", ("person",))


def test_a_network_that_cannot_be_trained_is_refused() -> None:
    with pytest.raises(UsageError, match=r"as published; behind a mask network, as it is trained: pvanet-9\.1-omg"):
        build("pvanet-9.1", ("person",))
    with pytest.raises(UsageError, match=r"9\.1-imagenet can be built, but not trained yet\. These can: mobilenetv2"):
        build("pvanet-9.1-imagenet", ("person",))


@pytest.mark.parametrize("size", [0, 100, -64])
def test_a_size_that_the_strides_do_not_divide_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"a multiple of 64, got {size}"):
        build("mobilenetv2-ssdlite-omg", ("person",), size=size)


@pytest.mark.parametrize("name", MODELS)
def test_every_network_builds_at_its_own_size(name: str) -> None:
    assert build(name, ("person", "cat")).spec.height == MODELS[name].input_size


@pytest.mark.parametrize("name", [name for name, info in MODELS.items() if info.variant])
def test_a_spec_has_the_anchors_that_regions_are_proposed_from(name: str) -> None:
    spec, variant = MODELS[name].spec(("cat",), 128, 192), VARIANTS[str(MODELS[name].variant)]
    boxes = to_exclusive(all_anchors(variant.anchors, rows=8, columns=12))
    centres = np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)
    np.testing.assert_allclose(anchor_boxes(spec), centres, atol=1e-3)
    assert spec.mask_grid == (8, 12)
    assert spec.two_stage is not None
    assert spec.two_stage.before_nms == variant.proposals_before_nms


def test_a_two_stage_detector_builds_from_what_its_spec_says() -> None:
    model = build("pvanet-9.1-compressed-omg", ("cat", "dog"), size=64, width_multiplier=0.125)
    spec = DetectorSpec.from_json(json.loads(json.dumps(model.spec.to_json())))
    assert spec == model.spec
    assert model.two_stage.width == 0.125
    assert [half.out_features for half in model.two_stage.head.parts("fc6")[0]] == [64, 512]
    assert model.two_stage.head.classes == 2


def test_widths_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match=r"mobilenetv2-ssdlite-omg has one width, 1; got 0\.5"):
        build("mobilenetv2-ssdlite-omg", ("cat",), width_multiplier=0.5)
    with pytest.raises(UsageError, match="above 0 and at most 4, got -1"):
        build("pvanet-9.0-omg", ("cat",), width_multiplier=-1)


def test_a_spec_moves_to_another_size_with_its_thresholds() -> None:
    spec = find_model("pvanet-lite-omg").spec(("cat",), 64, 64)
    moved = spec_at(replace(spec, mask_threshold=0.4), height=128, width=192)
    assert (moved.height, moved.width, moved.mask_grid) == (128, 192, (8, 12))
    assert moved.mask_threshold == 0.4
    with pytest.raises(UsageError, match="a multiple of 64, got 96x100"):
        spec_at(spec, height=96, width=100)


def test_a_mask_grid_of_one_number_is_square() -> None:
    spec = find_model("mobilenetv2-ssdlite-omg").spec(("cat",), 64, 64)
    document = {**spec.to_json(), "mask_grid": 4}
    del document["two_stage"], document["width_multiplier"]
    assert DetectorSpec.from_json(document) == spec

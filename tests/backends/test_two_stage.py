"""A two-stage detector from its two graphs: what PVANet.detect finds, region by region, and what masks leave out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from edgekit import decoding  # noqa: E402
from edgekit.backends import Engine, Tensors  # noqa: E402
from edgekit.backends.torch import load_pair  # noqa: E402
from edgekit.backends.two_stage import TwoStageEngine, first_anchors  # noqa: E402
from edgekit.data.letterbox import letterbox, normalise  # noqa: E402
from edgekit.errors import EngineError  # noqa: E402
from edgekit.masks.sources import off, omg  # noqa: E402
from edgekit.models.masked_detector import MaskedDetector  # noqa: E402
from edgekit.models.pvanet import VARIANTS  # noqa: E402
from edgekit.models.pvanet_rois import cell_anchors  # noqa: E402
from edgekit.models.registry import build  # noqa: E402
from edgekit.pipeline import Pipeline  # noqa: E402

SIZE = 128


@pytest.fixture(scope="module")
def model() -> MaskedDetector:
    """A narrow PVANet-lite that proposes different regions and tells classes apart, but has learnt nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build("pvanet-lite-omg", ("red", "green", "blue"), size=SIZE, width_multiplier=0.25).eval()
        network = model.two_stage
        for layer, deviation in (
            (network.rpn.rpn_cls_score, 0.3),
            (network.rpn.rpn_bbox_pred, 0.05),
            (network.head.cls_score, 0.3),
            (network.head.bbox_pred, 0.05),
        ):
            torch.nn.init.normal_(layer.weight, std=deviation)
    return model


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3)).astype(np.uint8)


def half_mask() -> np.ndarray:
    mask = np.zeros((SIZE // 16, SIZE // 16), np.bool_)
    mask[:, : SIZE // 32] = True
    return mask


class Counting:
    """An engine that remembers what it was given."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.name, self.takes_pixels = engine, engine.name, engine.takes_pixels
        self.seen: list[Tensors] = []

    def run(self, inputs: Tensors) -> Tensors:
        self.seen.append(inputs)
        return self.engine.run(inputs)


@pytest.fixture
def parts(model: MaskedDetector) -> tuple[Pipeline, Counting, Counting]:
    mask_network, detector = load_pair(model, threads=1)
    assert isinstance(detector, TwoStageEngine)
    detector._shared, detector._head = shared, head = Counting(detector._shared), Counting(detector._head)
    return Pipeline(model.spec, mask_network, detector, off), shared, head


def test_the_anchors_are_the_published_ones(model: MaskedDetector) -> None:
    np.testing.assert_allclose(first_anchors(model.spec), cell_anchors(VARIANTS["lite"].anchors), atol=1e-4)


@pytest.mark.parametrize("mask", [np.ones((SIZE // 16, SIZE // 16), np.bool_), half_mask()], ids=["open", "half"])
def test_it_finds_what_the_network_finds(
    model: MaskedDetector, parts: tuple[Pipeline, Counting, Counting], picture: np.ndarray, mask: np.ndarray
) -> None:
    pipeline, _, _ = parts
    image = pipeline.input_tensor(letterbox(picture, height=SIZE, width=SIZE))
    raw = pipeline.detect(image, mask)
    tensor = torch.from_numpy(np.ascontiguousarray(image))
    found = model.two_stage.detect(tensor, torch.from_numpy(mask.astype(np.float32))[None, None])[0]
    candidates = decoding.candidates(model.spec, raw, mask)
    assert 20 < len(candidates.scores) <= 200
    np.testing.assert_allclose(raw["rois"] + [0, 0, 1, 1], found.rois.numpy(), atol=1e-3)
    np.testing.assert_allclose(candidates.scores, found.probabilities[:, 1:].numpy(), atol=1e-5)
    np.testing.assert_allclose(candidates.boxes, found.boxes[:, 1:].numpy(), atol=1e-3)
    assert candidates.scores.max() > 0.5


def test_known_regions_are_classified_as_such(parts: tuple[Pipeline, Counting, Counting], picture: np.ndarray) -> None:
    pipeline, _, head = parts
    image, mask = pipeline.input_tensor(letterbox(picture, height=SIZE, width=SIZE)), half_mask()
    free = pipeline.detect(image, mask)
    some = free["rois"][[5, 2]]
    known = pipeline.detect(image, mask, rois=some)
    np.testing.assert_array_equal(known["rois"], some)
    np.testing.assert_allclose(known["roi_logits"][0], free["roi_logits"][0, [5, 2]], atol=1e-5)
    many = np.tile(some, (150, 1))  # more than the head takes at a time
    head.seen.clear()
    twice = pipeline.detect(image, mask, rois=many)
    assert len(head.seen) == 2
    np.testing.assert_allclose(twice["roi_deltas"][0], np.tile(known["roi_deltas"][0], (150, 1)), atol=1e-5)


def test_without_proposals_the_head_does_not_run(
    parts: tuple[Pipeline, Counting, Counting], picture: np.ndarray
) -> None:
    pipeline, shared, head = parts
    image = pipeline.input_tensor(letterbox(picture, height=SIZE, width=SIZE))
    raw = pipeline.detect(image, np.zeros((SIZE // 16, SIZE // 16), np.bool_))
    assert (len(shared.seen), len(head.seen)) == (1, 0)
    assert raw["roi_logits"].shape == (1, 0, 4)
    assert raw["roi_deltas"].shape == (1, 0, 16)
    boxed = letterbox(picture, height=SIZE, width=SIZE)
    assert len(decoding.detections(pipeline.spec, raw, half_mask(), boxed, 0.0)) == 0


def test_small_proposals_are_those_of_the_picture(
    parts: tuple[Pipeline, Counting, Counting], picture: np.ndarray
) -> None:
    """A picture that was enlarged three times has proposals of 48 pixels at least, which are 16 in it."""
    pipeline, _, _ = parts
    image = pipeline.input_tensor(letterbox(picture, height=SIZE, width=SIZE))
    whole = np.ones((SIZE // 16, SIZE // 16), np.bool_)
    sides = {}
    for scale in (1.0, 3.0):
        rois = pipeline.detect(image, whole, scale=scale)["rois"]
        sides[scale] = float((rois[:, 2:] - rois[:, :2] + 1).min())
    assert 16 <= sides[1.0] < 48 <= sides[3.0]


def test_a_frame_through_the_pipeline(parts: tuple[Pipeline, Counting, Counting], picture: np.ndarray) -> None:
    pipeline, _, _ = parts
    frame = np.repeat(picture, 2, axis=1)  # letterboxed, so boxes have to find their way back
    result = pipeline.process(frame, score_threshold=0.05)
    assert result.regions is not None
    assert 0 < result.regions <= 200
    assert len(result.detections) > 0
    boxes = result.detections.boxes_xyxy
    assert (boxes >= 0).all()
    assert (boxes[:, 2] <= 2 * SIZE).all()
    assert (boxes[:, 3] <= SIZE).all()
    assert (np.diff(result.detections.scores) <= 0).all()
    nothing = pipeline.with_mask(lambda frame: np.zeros(frame.spec.mask_grid, np.bool_)).process(frame)
    assert (nothing.regions, len(nothing.detections)) == (0, 0)
    assert pipeline.with_mask(omg).process(frame).omg_ran


def test_the_image_is_normalised_as_everywhere(parts: tuple[Pipeline, Counting, Counting], picture: np.ndarray) -> None:
    pipeline, shared, _ = parts
    pipeline.process(picture)
    expected = normalise(picture, pipeline.spec).transpose(2, 0, 1)[None]
    np.testing.assert_array_equal(shared.seen[0]["image"], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"classes": ("red",)},
            r"output 'roi_logits' of the graph 'head' should have the shape \[1, 200, 2\], got \[1, 2",
        ),
        ({"two_stage": "proposals"}, r"output 'roi_logits' of the graph 'head' should have the shape \[1, 100, 4\]"),
        ({"anchors": "fewer"}, r"output 'rpn_logits' of the graph 'shared' should have the shape \[1, 64, 48\], got"),
    ],
)
def test_graphs_of_another_specification(
    model: MaskedDetector, picture: np.ndarray, change: dict[str, Any], message: str
) -> None:
    spec = model.spec
    assert spec.two_stage is not None
    if "two_stage" in change:
        change = {"two_stage": replace(spec.two_stage, proposals=100)}
    if "anchors" in change:
        change = {"anchors": (replace(spec.anchors[0], sizes=spec.anchors[0].sizes[1:]),)}
    mask_network, detector = load_pair(model, threads=1)
    assert isinstance(detector, TwoStageEngine)
    other = replace(spec, **change)

    class Fixed(Counting):
        """As a file is: it takes and gives what it was made for."""

        def run(self, inputs: Tensors) -> Tensors:
            image, mask = np.zeros((1, 64 * 36, 200, 1), np.float32), np.ones((1, 1, 200, 1), np.float32)
            return self.engine.run({"image": image, "mask": mask})

    engine = TwoStageEngine(detector._shared, Fixed(detector._head), other)
    pipeline = Pipeline(other, mask_network, engine, off)
    with pytest.raises(EngineError, match=message):
        pipeline.process(picture)

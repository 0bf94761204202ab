"""What runs on a board in numpy against the PyTorch code that it stands for."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the other side is PyTorch")

from torch.nn import functional as F  # noqa: E402

from edgekit.exporters.tcl_onnx import default_size, segmenter_spec  # noqa: E402
from edgekit.exporters.tcl_reference import reference_segmenter  # noqa: E402
from edgekit.models.tcl import pamr as published  # noqa: E402
from edgekit.models.tcl.prompts import fingerprint  # noqa: E402
from edgekit.models.tcl.segmenter import SMALL_OPTIONS, SegmentOptions, changed, masks_of  # noqa: E402
from edgekit.segmentation import pamr  # noqa: E402
from edgekit.segmentation.enlarging import corner_interpolation, interpolation  # noqa: E402
from edgekit.segmentation.fitting import fit, input_tensor, way_back  # noqa: E402
from edgekit.segmentation.prompts import Prompts  # noqa: E402

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize("size", [(5, 9), (16, 12), (1, 30)])
def test_pamr(size: tuple[int, int]) -> None:
    picture = RANDOM.normal(size=(3, *size)).astype(np.float32)
    masks = RANDOM.uniform(size=(4, *size)).astype(np.float32)
    expected = published.refine(torch.from_numpy(picture)[None], torch.from_numpy(masks)[None])[0].numpy()
    assert np.abs(pamr.refine(picture, masks) - expected).max() < 2e-6


def test_pamr_of_a_larger_picture_shrinks_it_first() -> None:
    picture = RANDOM.normal(size=(3, 24, 40)).astype(np.float32)
    masks = RANDOM.uniform(size=(2, 6, 10)).astype(np.float32)
    small = F.interpolate(torch.from_numpy(picture)[None], size=(6, 10), mode="bilinear", align_corners=True)
    expected = published.refine(small, torch.from_numpy(masks)[None])[0].numpy()
    assert np.abs(pamr.refine(picture, masks) - expected).max() < 2e-5


@pytest.mark.parametrize(("source", "length"), [(7, 28), (7, 5), (1, 6), (6, 1), (19, 375), (4, 4)])
def test_interpolation(source: int, length: int) -> None:
    line = torch.from_numpy(RANDOM.normal(size=(1, 1, source)))
    for matrix, corners in ((interpolation(length, source), False), (corner_interpolation(length, source), True)):
        expected = F.interpolate(line, size=length, mode="linear", align_corners=corners)[0, 0].numpy()
        assert np.abs(matrix @ line[0, 0].numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("picture", [(48, 64), (64, 48), (40, 40), (31, 200), (1, 1)])
def test_the_way_into_the_input_and_back(picture: tuple[int, int]) -> None:
    """Cut out of the whole input and enlarged again, step by step in PyTorch."""
    spec = a_spec(height=64, width=64)
    image = RANDOM.integers(0, 256, (*picture, 3), dtype=np.uint8)
    fitted = fit(image, spec)
    height, width = fitted.image.shape[:2]
    tensor = input_tensor(fitted, spec)[0]
    place = np.s_[:, fitted.top : fitted.top + height, fitted.left : fitted.left + width]
    assert np.abs(tensor[place] * 128 + 128 - fitted.image.transpose(2, 0, 1)).max() < 1e-3
    rest = tensor.copy()
    rest[place] = 0
    assert not rest.any()
    found = torch.from_numpy(RANDOM.uniform(size=(1, 2, spec.rows, spec.columns)))
    whole = F.interpolate(found, size=(64, 64), mode="bilinear", align_corners=False)
    expected = F.interpolate(whole[..., place[1], place[2]], size=picture, mode="bilinear", align_corners=False)
    down, across = way_back(fitted, spec, height=picture[0], width=picture[1])
    assert np.abs(down @ found[0].numpy() @ across - expected[0].numpy()).max() < 1e-5


def a_spec(**changes: int):
    from edgekit.segmentation.spec import SegmenterSpec

    return SegmenterSpec(
        model="tiny", text="5" * 64, mean=(128.0,) * 3, std=(128.0,) * 3, stretch=1.25, rows=16, columns=16,
        embedding=4, sim_scale=10.0, sim_shift=-2.5, **changes,
    )  # fmt: skip


def test_a_picture_is_stretched_as_far_as_the_model_learnt() -> None:
    spec = a_spec(height=64, width=64)
    sizes = {
        (100, 100): (64, 64),
        (80, 100): (64, 64),
        (100, 80): (64, 64),
        (480, 640): (60, 64),  # 48 rows, and a quarter more
        (640, 480): (64, 60),
        (90, 180): (40, 64),
    }
    for picture, expected in sizes.items():
        assert fit(np.zeros((*picture, 3), np.uint8), spec).image.shape[:2] == expected


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32),
              np.zeros((0, 4, 3), np.uint8)],
)  # fmt: skip
def test_what_is_no_picture_is_refused(image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"expects a uint8 image \[h, w, 3\], got"):
        fit(image, a_spec(height=64, width=64))


@pytest.mark.parametrize("kind", ["mobile", "vit"])
@pytest.mark.parametrize(("pamr_on", "share"), [(True, 0.0), (False, 0.3), (True, 0.3)])
def test_labels_and_masks_are_pytorchs(tiny_tcl: ModuleType, kind: str, pamr_on: bool, share: float) -> None:
    """A picture of the input's own size, so that nothing is scaled: ``masks_of`` says what is right."""
    model = tiny_tcl.shaken(tiny_tcl.mobile_spec() if kind == "mobile" else tiny_tcl.vit_spec())
    options = SegmentOptions(pamr=pamr_on, clip_share=share, background=0.5, short_side=64)
    spec = segmenter_spec(model, options, height=64, width=96)
    depth = model.spec.embedding
    vectors = RANDOM.normal(size=(3, depth))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    prompts = Prompts(
        names=("a", "b", "c"), embeddings=vectors, model="tiny", text=fingerprint(model), templates="none"
    )
    pipeline = reference_segmenter(model, spec, prompts, threads=1)
    image = RANDOM.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    picture = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    expected = masks_of(model, picture, torch.from_numpy(vectors), pamr=pamr_on, clip_share=share)[0].numpy()
    result = pipeline.process(image)
    best = np.concatenate([np.full((1, 64, 96), 0.5), expected])
    sure = np.diff(np.sort(best, axis=0)[-2:], axis=0)[0] > 1e-4
    assert sure.mean() > 0.95
    assert np.array_equal(result.labels[sure], best.argmax(axis=0)[sure])
    assert len(np.unique(result.labels)) > 1
    for k, (share_of, score) in enumerate(zip(result.shares, result.scores, strict=True), start=1):
        assert share_of == pytest.approx((result.labels == k).mean())
        if share_of:
            assert score == pytest.approx(expected[k - 1][result.labels == k].mean(), abs=1e-3)


def test_labels_in_another_size(tiny_tcl: ModuleType) -> None:
    model = tiny_tcl.shaken(tiny_tcl.vit_spec())
    spec = segmenter_spec(model, changed(SMALL_OPTIONS, background=0.4), height=32, width=32)
    vectors = np.eye(2, model.spec.embedding, dtype=np.float32)
    prompts = Prompts(names=("a", "b"), embeddings=vectors, model="t", text=fingerprint(model), templates="none")
    pipeline = reference_segmenter(model, spec, prompts, threads=1)
    result = pipeline.process(RANDOM.integers(0, 256, (90, 120, 3), dtype=np.uint8), size=(9, 12))
    assert result.labels.shape == (9, 12)
    assert result.masks.shape == (2, 16, 16)
    assert set(result.timings_ms) == {"fit", "graph", "masks", "labels", "total"}
    everywhere = pipeline.with_options(background=0.0).process(np.zeros((9, 12, 3), np.uint8))
    assert everywhere.labels.min() == 1
    nowhere = pipeline.with_options(background=1.0).process(np.zeros((9, 12, 3), np.uint8))
    assert not nowhere.labels.any()


def test_the_input_if_nobody_says_otherwise(tiny_tcl: ModuleType) -> None:
    mobile, vit = tiny_tcl.shaken(tiny_tcl.mobile_spec()), tiny_tcl.shaken(tiny_tcl.vit_spec())
    assert default_size(mobile, SMALL_OPTIONS) == (224, 304)
    assert default_size(vit, SegmentOptions()) == (448, 448)

"""Inference: PAMR, windows, padding and the background rule, each against brute force."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")

from torch import Tensor  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from edgekit.errors import UsageError  # noqa: E402
from edgekit.models.tcl.pamr import refine  # noqa: E402
from edgekit.models.tcl.prompts import TEMPLATES, embed_names, parse_classes, parse_prompts, sentences  # noqa: E402
from edgekit.models.tcl.segmenter import Segmenter, SegmentOptions, masks_of  # noqa: E402
from edgekit.models.tcl.tokenizer import Tokenizer  # noqa: E402
from edgekit.models.tcl.windows import padding, scaled_size, slide, spans  # noqa: E402

pytest.importorskip("regex", reason="comes with the extra 'segment'")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


def refine_by_hand(picture: np.ndarray, masks: np.ndarray, rounds: int, distances: tuple[int, ...]) -> np.ndarray:
    """Cell by cell: picture [3, h, w], masks [N, h, w]."""
    rows, columns = picture.shape[1:]

    def at(maps: np.ndarray, y: int, x: int) -> np.ndarray:
        return maps[:, min(max(y, 0), rows - 1), min(max(x, 0), columns - 1)]

    steps = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    weights: dict[tuple[int, int], list[tuple[int, int, float]]] = {}
    for y in range(rows):
        for x in range(columns):
            around = np.stack([at(picture, y + d * dy, x + d * dx) for d in distances for dy, dx in steps])
            spread = around.std(axis=0, ddof=1)
            places, scores = [], []
            for d in distances:
                for dy, dx in steps:
                    if (dy, dx) != (0, 0):
                        places.append((y + d * dy, x + d * dx))
                        unlike = np.abs(at(picture, y, x) - at(picture, *places[-1])) / (1e-8 + 0.1 * spread)
                        scores.append(-unlike.mean())
            shares = np.exp(np.array(scores) - max(scores))
            weights[y, x] = [(*place, share) for place, share in zip(places, shares / shares.sum(), strict=True)]
    for _ in range(rounds):
        refined = np.zeros_like(masks)
        for (y, x), neighbours in weights.items():
            refined[:, y, x] = sum(share * at(masks, v, u) for v, u, share in neighbours)
        masks = refined
    return masks


def test_pamr_is_what_it_says() -> None:
    generator = np.random.default_rng(0)
    picture, masks = generator.normal(size=(3, 7, 9)), generator.random((2, 7, 9))
    found = refine(torch.from_numpy(picture)[None], torch.from_numpy(masks)[None], rounds=3, distances=(1, 2, 12))
    np.testing.assert_allclose(found[0].numpy(), refine_by_hand(picture, masks, 3, (1, 2, 12)), atol=1e-9)


def test_pamr_stops_at_edges_of_colour() -> None:
    picture = torch.zeros(1, 3, 16, 16)
    picture[..., 8:] = 1.0
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 10:] = 1.0  # two columns short of the edge
    found = refine(picture, mask, rounds=10, distances=(1, 2, 4))
    assert found[0, 0, 8, 8:].min() > 0.6
    assert found[0, 0, 8, :8].max() < 0.2


@pytest.mark.parametrize(("length", "window", "stride"), [(448, 448, 224), (449, 448, 224), (600, 448, 224), (5, 3, 2), (3, 4, 4), (10, 4, 3)])  # fmt: skip # noqa: E501
def test_windows_cover_everything_and_end_with_the_side(length: int, window: int, stride: int) -> None:
    found = list(spans(length, window, stride))
    assert found[0][0] == 0
    assert found[-1][1] == length
    assert {pixel for first, last in found for pixel in range(first, last)} == set(range(length))
    assert all(last - first == min(window, length) for first, last in found)
    # The published rule: the last one starts no further than it must.
    steps = max(length - window + stride - 1, 0) // stride + 1
    wanted = [
        (max(min(k * stride + window, length) - window, 0), min(k * stride + window, length)) for k in range(steps)
    ]
    assert found == wanted


def test_sliding_is_the_mean_over_the_windows_of_a_pixel() -> None:
    picture = torch.rand(1, 3, 11, 14, dtype=torch.float64)

    def scores(part: Tensor) -> Tensor:
        return torch.cat([part.sum(1, keepdim=True) * part.mean(), part[:, :1] - part.max()], dim=1)

    found = slide(picture, scores, window=6, stride=4)
    wanted, count = torch.zeros(1, 2, 11, 14, dtype=torch.float64), torch.zeros(11, 14)
    for top in (0, 4, 5):
        for left in (0, 4, 8):
            part = scores(picture[:, :, top : top + 6, left : left + 6])
            for y in range(6):
                for x in range(6):
                    wanted[:, :, top + y, left + x] += part[:, :, y, x]
                    count[top + y, left + x] += 1
    torch.testing.assert_close(found, wanted / count)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 31), (1, 33), (47, 16)])
def test_padding_is_centred_and_least(height: int, width: int) -> None:
    left, right, top, bottom = padding(height, width, 16)
    assert (width + left + right) % 16 == (height + top + bottom) % 16 == 0
    assert 0 <= right - left <= 1
    assert 0 <= bottom - top <= 1
    assert max(left + right, top + bottom) < 16


def test_the_shorter_side_is_scaled_unless_the_longer_one_is_too_long() -> None:
    assert scaled_size(300, 600, short=448, long=2048) == (448, 896)
    assert scaled_size(100, 1000, short=448, long=2048) == (205, 2048)


def masks_by_hand(model: object, picture: Tensor, texts: Tensor, *, pamr: bool, share: float) -> Tensor:
    """The published steps, on a canvas that is filled by hand."""
    height, width = picture.shape[-2:]
    stride = model.stride
    rows, columns = -(-height // stride), -(-width // stride)
    canvas = torch.zeros(1, 3, rows * stride, columns * stride)
    top, left = (rows * stride - height) // 2, (columns * stride - width) // 2
    canvas[:, :, top : top + height, left : left + width] = model.normalise(picture)
    features = model.clip_image_encoder.features(canvas)

    def cosine(maps: Tensor) -> Tensor:
        return torch.stack([F.cosine_similarity(maps, text[None, :, None, None], dim=1) for text in texts], dim=1)

    scores = torch.sigmoid(
        cosine(model.masker.image_encoder(features, rows, columns)) * model.masker.sim2mask.w + model.masker.sim2mask.b
    )
    if pamr:
        scores = refine(F.interpolate(canvas, scores.shape[-2:], mode="bilinear", align_corners=True), scores)
    known = 1 / (1 + torch.exp(-10 * (cosine(model.clip_image_encoder.dense(features, rows, columns)) - 0.25)))
    scores = share * F.interpolate(known, scores.shape[-2:], mode="bilinear") + (1 - share) * scores
    return F.interpolate(scores, canvas.shape[-2:], mode="bilinear")[:, :, top : top + height, left : left + width]


@pytest.mark.parametrize(("height", "width"), [(32, 32), (37, 50), (9, 41)])
@pytest.mark.parametrize("pamr", [False, True])
def test_masks_follow_the_published_steps(tiny_tcl: ModuleType, height: int, width: int, pamr: bool) -> None:
    model = tiny_tcl.shaken(tiny_tcl.vit_spec())
    picture, texts = torch.rand(1, 3, height, width) * 255, torch.randn(4, 24)
    found = masks_of(model, picture, texts, pamr=pamr, clip_share=0.3)
    with torch.no_grad():
        torch.testing.assert_close(found, masks_by_hand(model, picture, texts, pamr=pamr, share=0.3))
    assert found.shape == (1, 4, height, width)


def test_names_are_embedded_as_the_mean_of_their_sentences(tiny_tcl: ModuleType, tokenizer: Tokenizer) -> None:
    model = tiny_tcl.shaken(tiny_tcl.mobile_spec())
    found = embed_names(model, tokenizer, ("dog", "{odd}"), templates="custom")
    assert len(TEMPLATES["custom"]) == 9
    for row, name in zip(found, ("dog", "{odd}"), strict=True):
        vectors = []
        for sentence in sentences(name, "custom"):
            assert name in sentence
            with torch.no_grad():
                vectors.append(model.clip_text_encoder(torch.from_numpy(tokenizer.rows([sentence], context=16)))[0])
        mean = torch.stack(vectors).mean(dim=0)
        torch.testing.assert_close(row, mean / mean.norm(), atol=1e-5, rtol=1e-4)


def test_the_background_is_what_no_name_exceeds(tiny_tcl: ModuleType, tokenizer: Tokenizer) -> None:
    model = tiny_tcl.shaken(tiny_tcl.mobile_spec())
    image = np.random.default_rng(0).integers(0, 256, (40, 52, 3), dtype=np.uint8)
    options = SegmentOptions(pamr=False, clip_share=0.0, short_side=32, long_side=64, window=32, stride=16)
    plain = Segmenter(model, ("dog", "cat"), options, tokenizer).scores(image)
    with_background = Segmenter(model, ("background", "dog", "cat"), options, tokenizer)
    scores = with_background.scores(image)
    assert scores.shape == (3, 40, 52)
    torch.testing.assert_close(scores[0], torch.full((40, 52), 0.5))
    torch.testing.assert_close(scores[1:], plain)
    labels = with_background.segment(image)
    assert labels.shape == (40, 52)
    assert set(np.unique(labels)) <= {0, 1, 2}
    np.testing.assert_array_equal(labels == 0, (plain.max(dim=0).values < 0.5).numpy())


def test_the_published_thresholds() -> None:
    assert SegmentOptions().background_score == 0.4
    assert SegmentOptions(pamr=False).background_score == 0.5
    assert SegmentOptions(background=0.6).background_score == 0.6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clip_share": 1.5}, "the part of CLIP's own map is between 0 and 1, got 1.5"),
        ({"background": -1.0}, "the background's score is between 0 and 1, got -1"),
        ({"stride": 500}, "windows need 0 < stride <= window"),
        ({"short_side": 0}, "windows need 0 < stride <= window"),
    ],
)
def test_options_that_cannot_be(values: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SegmentOptions(**values)


def test_what_cannot_be_looked_for(tiny_tcl: ModuleType, tokenizer: Tokenizer) -> None:
    model = tiny_tcl.shaken(tiny_tcl.mobile_spec())
    with pytest.raises(UsageError, match="something to look for besides the background"):
        Segmenter(model, ("background",), SegmentOptions(), tokenizer)
    with pytest.raises(UsageError, match="a prompt must name something"):
        Segmenter(model, ("dog", " "), SegmentOptions(), tokenizer)
    with pytest.raises(UsageError, match="no set of templates is called 'many'; there are: custom, photo, none"):
        Segmenter(model, ("dog",), SegmentOptions(templates="many"), tokenizer)


def test_prompts_are_names_between_commas() -> None:
    assert parse_prompts("person, red car ,dog") == ("person", "red car", "dog")
    with pytest.raises(UsageError, match="prompts are names separated by commas"):
        parse_prompts("person,,car")
    with pytest.raises(UsageError, match="the prompt 'car' comes twice"):
        parse_prompts("car, person, car")


def test_classes_are_prompts_or_have_some() -> None:
    assert parse_classes("red person, car = car|delivery van ,background=road") == {
        "red person": ("red person",), "car": ("car", "delivery van"), "background": ("road",),
    }  # fmt: skip
    for text in ("person,,car", "car=", "=car", "car=car||van"):
        with pytest.raises(UsageError, match=r"prompts are classes such as 'person, car=car\|truck'"):
            parse_classes(text)
    for text, twice in (("a, a", "a"), ("a=b|b", "b"), ("a=b, b", "b"), ("a=b, a=c", "a")):
        with pytest.raises(UsageError, match=f"'{twice}' comes twice"):
            parse_classes(text)

"""The detector, its mask and its objectness network against the published facts and the mask's definition."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.masks.pyramid import mask_at
from edgekit.metrics.macs import count_macs
from edgekit.models.anchors import anchor_boxes, anchor_mask, decode
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.masking import ConvBNReLU6, MaskPyramid
from edgekit.models.registry import build

VOC = tuple(f"class {index}" for index in range(20))
SIZES = (320, 160, 80, 40, 20, 10, 5, 3, 2, 1)


@pytest.fixture(scope="module")
def model() -> MaskedDetector:
    """Twenty classes, batch norms away from their start so that they would refill a background."""
    torch.manual_seed(0)
    model = build("mobilenetv2-ssdlite-omg", VOC).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.bias, std=0.3)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


@pytest.fixture
def blob() -> Tensor:
    """A mask with an L-shaped active area."""
    mask = torch.zeros(1, 1, 20, 20)
    mask[..., 3:9, 4:7] = 1
    mask[..., 8, 4:14] = 1
    return mask


def test_macs_with_91_classes_are_the_published_ones() -> None:
    layers = count_macs(build("mobilenetv2-ssdlite-omg", tuple(map(str, range(91)))))
    detector = sum(layer.macs for layer in layers if layer.graph == "detector")
    assert detector == pytest.approx(0.80e9, rel=0.02)  # arXiv 1801.04381, table 6: 0.8 G multiply-adds


def test_omg_costs_at_most_60_mmac(model: MaskedDetector) -> None:
    assert 0 < sum(layer.macs for layer in count_macs(model) if layer.graph == "omg") <= 60_000_000


def test_backbone_has_mobilenetv2s_parameters(model: MaskedDetector) -> None:
    # torchvision's mobilenet_v2 has 3,504,872 parameters, 1,281,000 of them in the classifier.
    assert sum(parameter.numel() for parameter in model.detector.backbone.parameters()) == 3_504_872 - 1_281_000


def test_mask_of_ones_is_the_plain_detector_bit_for_bit(model: MaskedDetector) -> None:
    image = torch.rand(2, 3, 320, 320) * 2 - 1
    with torch.no_grad():
        plain, masked = model.detector(image, None), model.detector(image, torch.ones(2, 1, 20, 20))
    assert all(torch.equal(a, b) for a, b in zip(plain, masked, strict=True))


def test_every_convolution_reads_zeros_outside_the_mask(model: MaskedDetector, blob: Tensor) -> None:
    seen = []

    def check(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (features,) = inputs
        active = mask_at(blob[0, 0].numpy() > 0, rows=features.shape[2], columns=features.shape[3])
        seen.append(float(features[0, :, ~torch.from_numpy(active)].abs().max()) if not active.all() else 0.0)

    convolutions = [module for module in model.detector.modules() if isinstance(module, nn.Conv2d)]
    hooks = [module.register_forward_pre_hook(check) for module in convolutions]
    with torch.no_grad():
        model.detector(torch.rand(1, 3, 320, 320) * 2 - 1, blob)
    for hook in hooks:
        hook.remove()
    assert len(seen) == len(convolutions)
    assert max(seen) == 0


def test_fixed_statistics_are_folded_without_changing_anything() -> None:
    """Where gradients are wanted and statistics fixed, batch norm goes into the weight: same values, same gradients."""
    torch.manual_seed(0)
    layer = ConvBNReLU6(6, 8, 3, stride=2, groups=2).double().eval()
    for values in (layer.get_parameter("bn.weight"), layer.get_buffer("bn.running_var")):
        torch.nn.init.uniform_(values, 0.5, 2.0)
    torch.nn.init.normal_(layer.get_parameter("bn.bias"))
    torch.nn.init.normal_(layer.get_buffer("bn.running_mean"))
    image = torch.randn(2, 6, 8, 8, dtype=torch.double, requires_grad=True)
    learning = [image, *layer.parameters()]
    folded = layer(image, MaskPyramid(None))
    expected = layer.get_submodule("act")(layer.get_submodule("bn")(layer.get_submodule("conv")(image)))
    torch.testing.assert_close(folded, expected)
    with torch.no_grad():
        torch.testing.assert_close(layer(image, MaskPyramid(None)), expected)
    weights = torch.randn_like(folded)
    ours = torch.autograd.grad((folded * weights).sum(), learning)
    theirs = torch.autograd.grad((expected * weights).sum(), learning)
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_training_leaves_out_multiplications_without_changing_anything(
    model: MaskedDetector, blob: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With fixed statistics, what a cell outside the mask holds reaches no cell inside it, forwards or backwards."""
    trunk = copy.deepcopy(model.detector.backbone).double()
    image = torch.rand(2, 3, 64, 64, dtype=torch.double) * 2 - 1
    pyramid = MaskPyramid(blob[..., 4:8, 4:8].double())
    assert 0 < blob[..., 4:8, 4:8].mean() < 1
    results = []
    for folds in (True, False):
        with monkeypatch.context() as patch:
            if not folds:
                patch.setattr(ConvBNReLU6, "is_folded", lambda _: False)
            maps = trunk(pyramid.apply(image), pyramid)
            loss = sum((features * torch.linspace(-1, 2, features.numel()).reshape(features.shape)).sum()
                       for features in maps)  # fmt: skip
            results.append([*maps, *torch.autograd.grad(loss, list(trunk.parameters()))])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_inactive_anchors_are_zero_and_do_not_see_the_background(model: MaskedDetector, blob: Tensor) -> None:
    image = torch.rand(1, 3, 320, 320) * 2 - 1
    changed = torch.where(MaskPyramid(blob).at(320, 320).bool(), image, torch.rand_like(image))
    active = anchor_mask(model.spec, blob[0, 0].numpy() > 0)
    with torch.no_grad():
        logits, offsets = model.detector(image, blob)
        other, _ = model.detector(changed, blob)
    assert torch.equal(logits, other)
    assert not logits[0, ~torch.from_numpy(active)].any()
    assert not offsets[0, ~torch.from_numpy(active)].any()
    assert logits[0, torch.from_numpy(active)].any(dim=-1).all()


@pytest.mark.parametrize("size", SIZES)
def test_tensor_pyramid_equals_the_numpy_one(size: int) -> None:
    mask = np.random.default_rng(size).random((20, 20)) < 0.1
    tensor = MaskPyramid(torch.from_numpy(mask).float()[None, None]).at(size, size)
    np.testing.assert_array_equal(tensor[0, 0].numpy() > 0, mask_at(mask, rows=size, columns=size))


def test_a_map_off_the_pyramid_is_refused() -> None:
    with pytest.raises(ValueError, match="a mask of 20x20 cells has no level of 30x30"):
        MaskPyramid(torch.ones(1, 1, 20, 20)).apply(torch.zeros(1, 1, 30, 30))


def test_anchors_match_the_heads(model: MaskedDetector) -> None:
    with torch.no_grad():
        image = torch.zeros(1, 3, 320, 320)
        objectness = model.omg(image)
        logits, offsets = model.detector(image, model.binary_mask(objectness))
    assert logits.shape == (1, 2034, 20)
    assert offsets.shape == (1, 2034, 4)
    assert objectness.shape == (1, 1, 20, 20)
    assert anchor_boxes(model.spec).shape == (2034, 4)


def test_offsets_of_zero_decode_to_the_anchors(model: MaskedDetector) -> None:
    anchors = anchor_boxes(model.spec)
    boxes = decode(model.spec, anchors, np.zeros_like(anchors))
    np.testing.assert_allclose((boxes[:, :2] + boxes[:, 2:]) / 2, anchors[:, :2], atol=1e-4)
    np.testing.assert_allclose(boxes[:, 2:] - boxes[:, :2], anchors[:, 2:], rtol=1e-5)


def test_huge_offsets_stay_finite(model: MaskedDetector) -> None:
    anchors = anchor_boxes(model.spec)[:1]
    assert np.isfinite(decode(model.spec, anchors, np.full_like(anchors, 1e6))).all()


def test_dilation_grows_the_mask(model: MaskedDetector) -> None:
    from dataclasses import replace

    grown = MaskedDetector(replace(model.spec, mask_dilation=1, mask_threshold=0.5))
    objectness = torch.full((1, 1, 20, 20), -5.0)
    objectness[..., 10, 10] = 5
    assert int(grown.binary_mask(objectness).sum()) == 9

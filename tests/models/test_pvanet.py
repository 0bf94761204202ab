"""PVANet's published sizes and costs, its mask, folding, and detecting from end to end."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import UsageError
from edgekit.masks.pyramid import mask_at
from edgekit.models.masking import MaskPyramid
from edgekit.models.pvanet import VARIANTS, PVANet, PVANetClassifier
from edgekit.models.pvanet_layers import Scale, fold, scaled
from edgekit.models.pvanet_lite import LiteTrunk
from edgekit.models.pvanet_trunk import Trunk

HEIGHT, WIDTH = 640, 1056
ROIS = 200

# Weights without biases, and MMAC at 1056x640 with 200 RoIs, of 9.0 and 9.1 alike.
STAGES = {
    "conv1_1": (2_352, 397.39),
    "conv2_1": (11_072, 467.68),
    "conv2_2": (9_792, 413.61),
    "conv2_3": (9_792, 413.61),
    "conv3_1": (44_288, 467.68),
    "conv3_2": (39_168, 413.61),
    "conv3_3": (39_168, 413.61),
    "conv3_4": (39_168, 413.61),
    "conv4_1": (247_168, 652.52),
    "conv4_2": (205_184, 541.69),
    "conv4_3": (205_184, 541.69),
    "conv4_4": (205_184, 541.69),
    "conv5_1": (573_440, 378.47),
    "conv5_2": (417_792, 275.74),
    "conv5_3": (417_792, 275.74),
    "conv5_4": (417_792, 275.74),
    "hyper": (6_144 + 393_216, 4.06 + 1038.09),
}
SHARED = (3_283_696, 7926.25)
RPN = {"9.0": (499_968, 1319.9), "9.1": (539_136, 1423.3), "lite": (103_936, 274.4)}
HEAD = {False: (92_704_768, 18_540.95), True: (16_158_720, 3_231.74)}
TOTAL = {
    ("9.0", False): (96_488_432, 27_787),
    ("9.0", True): (19_942_384, 12_478),
    ("9.1", False): (96_527_600, 27_891),
    ("9.1", True): (19_981_552, 12_581),
    ("lite", True): (9_245_696, 4547.4),
}

SHAPES = {
    "conv1_1": (32, 320, 528),
    **dict.fromkeys(("conv2_1", "conv2_2", "conv2_3"), (64, 160, 264)),
    **dict.fromkeys(("conv3_1", "conv3_2", "conv3_3", "conv3_4"), (128, 80, 132)),
    **dict.fromkeys(("conv4_1", "conv4_2", "conv4_3", "conv4_4"), (256, 40, 66)),
    **dict.fromkeys(("conv5_1", "conv5_2", "conv5_3", "conv5_4"), (384, 20, 33)),
}
FORMS = list(TOTAL)


class Costs:
    """Weights and MMAC of everything that multiplies, by module path."""

    def __init__(self, net: nn.Module) -> None:
        self.layers: dict[str, tuple[int, float]] = {}
        for path, part in net.named_modules():
            if isinstance(part, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                part.register_forward_hook(
                    lambda part, inputs, output, path=path: self.add(path, part, inputs, output)  # type: ignore[misc]
                )

    def add(self, path: str, part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        weights = part.get_parameter("weight").numel()
        # A deconvolution is counted by the positions that it reads.
        places = inputs[0] if isinstance(part, nn.ConvTranspose2d) else output
        count = len(places) if places.dim() == 2 else places[:, 0].numel()
        self.layers[path] = weights, weights * count / 1e6

    def of(self, prefix: str = "") -> tuple[int, float]:
        chosen = [cost for path, cost in self.layers.items() if f"{path}.".startswith(f"{prefix}." if prefix else "")]
        return sum(weights for weights, _ in chosen), sum(mmac for _, mmac in chosen)


def on_paper(variant: str, *, compressed: bool) -> tuple[PVANet, Costs]:
    """The network of full width without memory, and its costs."""
    with torch.device("meta"):
        net = PVANet(variant, compressed=compressed).eval()
        costs = Costs(net)
        net(torch.empty(1, 3, HEIGHT, WIDTH))
        net.head(torch.empty(ROIS, net.head.channels, 6, 6))
    return net, costs


@pytest.mark.parametrize("variant", ["9.0", "9.1"])
def test_stages_cost_what_was_published(variant: str) -> None:
    _, costs = on_paper(variant, compressed=False)
    for name, expected in STAGES.items():
        weights, mmac = costs.of(name if name == "hyper" else f"trunk.{name}")
        assert (weights, round(mmac, 2)) == (expected[0], pytest.approx(expected[1], abs=0.011)), name
    shared = [sum(pair) for pair in zip(costs.of("trunk"), costs.of("hyper"), strict=True)]
    assert shared == [SHARED[0], pytest.approx(SHARED[1], abs=0.01)]


@pytest.mark.parametrize(("variant", "compressed"), FORMS)
def test_networks_cost_what_was_published(variant: str, compressed: bool) -> None:
    _, costs = on_paper(variant, compressed=compressed)
    assert costs.of("rpn") == (RPN[variant][0], pytest.approx(RPN[variant][1], abs=0.06))
    weights, mmac = TOTAL[variant, compressed]
    assert costs.of() == (weights, pytest.approx(mmac, abs=0.6))
    if variant == "lite":
        assert costs.of("trunk") == (704_000, pytest.approx(2243.8, abs=0.06))
        assert costs.of("hyper") == (143_360, pytest.approx(370.4, abs=0.06))
        assert costs.of("head") == (8_294_400, pytest.approx(1658.9, abs=0.06))
    else:
        assert costs.of("head") == (HEAD[compressed][0], pytest.approx(HEAD[compressed][1], abs=0.01))


@pytest.mark.parametrize(
    ("variant", "compressed", "learnable", "statistics"),
    [
        ("9.0", False, 96_532_415, 33_334),
        ("9.1", False, 96_574_197, 32_435),
        ("9.1", True, 20_020_981, 32_435),
        ("lite", True, 9_264_703, 6_335),
    ],
)
def test_parameters_are_the_published_ones(variant: str, compressed: bool, learnable: int, statistics: int) -> None:
    net, _ = on_paper(variant, compressed=compressed)
    assert sum(parameter.numel() for parameter in net.parameters()) == learnable
    # Mean, variance, and one number more a layer: Caffe's factor, PyTorch's count of batches.
    assert sum(buffer.numel() for buffer in net.buffers()) == statistics


@pytest.mark.parametrize(("variant", "parameters", "scales"), [("9.0", 96_507_327, 8), ("lite", 9_258_431, 0)])
def test_folded_networks_have_the_published_parameters(variant: str, parameters: int, scales: int) -> None:
    with torch.device("meta"):
        net = fold(PVANet(variant))
    assert sum(parameter.numel() for parameter in net.parameters()) == parameters
    assert sum(isinstance(part, Scale) for part in net.modules()) == scales
    assert not list(net.buffers())


@pytest.mark.parametrize(
    ("side", "weights", "mmac"), [(192, 80_400_000, 375.5), (224, 100_800_000, 511.1)], ids=["192", "224"]
)
@pytest.mark.parametrize("variant", ["9.0", "9.1"])
def test_classifiers_cost_what_was_published(variant: str, side: int, weights: int, mmac: float) -> None:
    with torch.device("meta"):
        net = PVANetClassifier(variant, side=side).eval()
        costs = Costs(net)
        assert net(torch.empty(1, 3, side, side)).shape == (1, 1000)
    assert costs.of()[0] == pytest.approx(weights, rel=1e-3)
    assert costs.of("trunk")[1] == pytest.approx(mmac, abs=0.06)
    assert costs.of("fc6")[0] == (side // 32) ** 2 * 384 * 4096


@pytest.mark.parametrize("variant", ["9.0", "9.1"])
def test_stages_have_the_published_shapes(variant: str) -> None:
    seen: dict[str, tuple[int, ...]] = {}
    with torch.device("meta"):
        net = PVANet(variant).eval()
        for name, part in net.trunk.named_children():
            part.register_forward_hook(
                lambda _, __, output, name=name: seen.__setitem__(name, tuple(output.shape[1:]))  # type: ignore[misc]
            )
        maps = net(torch.empty(1, 3, HEIGHT, WIDTH))
    assert seen == SHAPES
    anchors = len(VARIANTS[variant].anchors)
    assert maps.features.shape == (1, 512, 40, 66)
    assert maps.scores.shape == (1, 2 * anchors, 40, 66)
    assert maps.deltas.shape == (1, 4 * anchors, 40, 66)


def test_lite_has_the_published_shapes() -> None:
    with torch.device("meta"):
        trunk = LiteTrunk()
        maps = trunk(torch.empty(1, 3, HEIGHT, WIDTH), MaskPyramid(None))
    assert [tuple(features.shape[1:]) for features in maps] == [(96, 80, 132), (192, 40, 66), (256, 20, 33)]


NAMES = {
    "9.0": "conv1_1/conv conv1_1/bn conv1_1/scale conv2_1/1/bn_scale conv2_1/2/scale conv2_1/3/bn conv2_1/proj "
    "conv2_1/proj_bn conv2_1/proj_bn_scale conv4_1/incep/poolproj/conv conv4_1/out/bn_scale conv5_4/out/bn upsample "
    "convf_rpn convf_2 rpn_conv1 rpn_cls_score rpn_bbox_pred fc6 fc6/bn fc6/scale fc7 cls_score bbox_pred",
    "9.1": "conv1_1/conv conv1_1/bn conv1_1/scale conv2_1/1/conv conv2_1/2/bn conv2_1/2/bn_scale conv2_1/3/bn "
    "conv2_1/3/scale conv2_1/3/conv conv2_1/proj conv2_2/1/bn conv2_2/1/bn_scale conv4_1/incep/bn "
    "conv4_1/incep/bn_scale conv4_1/incep/1_reduce/bn conv4_1/out/conv conv5_4/out/bn conv5_4/out/bn_scale "
    "conv5_4/last_bn conv5_4/last_bn_scale upsample convf_rpn convf_2 fc7/bn fc7/scale",
    "lite": "conv1 conv1/bn conv1/scale inc3a/conv5_3 inc3a/conv5_3/bn inc4e/conv3_2/scale upsample convf rpn_conv1 "
    "fc6_L fc6_U fc7_L fc7_U cls_score bbox_pred",
}


@pytest.mark.parametrize("variant", list(NAMES))
def test_layers_are_called_as_in_the_published_files(variant: str) -> None:
    with torch.device("meta"):
        net = PVANet(variant, width=0.25)
    ours = {path.partition(".")[2].replace(".", "/") for path, _ in net.named_modules()}
    assert set(NAMES[variant].split()) <= ours
    absent = {"9.0": {"conv5_4/last_bn"}, "9.1": {"conv2_1/1/bn", "conv2_1/proj_bn", "conv4_1/out/bn"}, "lite": set()}
    assert not absent[variant] & ours


def unsettled(net: nn.Module) -> nn.Module:
    """``net`` with norms and biases away from their start, so that they would refill a background."""
    torch.manual_seed(1)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(part.get_buffer("running_mean"), std=0.3)
            nn.init.uniform_(part.get_buffer("running_var"), 0.5, 1.5)
        elif isinstance(part, Scale):
            nn.init.normal_(part.bias, std=0.3)
            nn.init.uniform_(part.weight, 0.5, 1.5)
    for name, parameter in net.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.3)
    return net


@pytest.fixture(scope="module", params=["9.0", "9.1", "lite"])
def net(request: pytest.FixtureRequest) -> PVANet:
    torch.manual_seed(0)
    made = unsettled(PVANet(request.param, classes=3, width=0.25))
    assert isinstance(made, PVANet)
    return made.eval()


@pytest.fixture
def image() -> Tensor:
    return torch.randn(2, 3, 128, 192, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def mask() -> Tensor:
    """[2, 1, 8, 12] with a third of the cells active."""
    return (torch.rand(2, 1, 8, 12, generator=torch.Generator().manual_seed(3)) < 0.35).float()


def test_a_mask_of_ones_changes_no_bit(net: PVANet, image: Tensor) -> None:
    with torch.no_grad():
        plain, masked = net(image), net(image, torch.ones(2, 1, 8, 12))
    for name in ("scores", "deltas", "features"):
        assert torch.equal(getattr(plain, name), getattr(masked, name))


@pytest.mark.parametrize("folded", [False, True])
def test_every_map_is_zero_outside_the_mask(net: PVANet, image: Tensor, mask: Tensor, folded: bool) -> None:
    """What each convolution reads, and what each block, pool and prediction returns."""
    net = fold(net) if folded else copy.deepcopy(net)
    checked = []

    def outside(path: str, features: Tensor) -> None:
        for number, picture in enumerate(features):
            active = torch.from_numpy(mask_at(mask[number, 0].numpy() > 0, rows=picture.shape[-2],
                                              columns=picture.shape[-1]))  # fmt: skip
            assert not picture[:, ~active].any(), path
        checked.append(path)

    for path, part in net.named_modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            part.register_forward_pre_hook(
                lambda _, inputs, path=path: outside(path, inputs[0])  # type: ignore[misc]
            )
        if path.startswith("trunk.") and path.count(".") == 1:
            part.register_forward_hook(
                lambda _, __, output, path=path: outside(path, output)  # type: ignore[misc]
            )
    with torch.no_grad():
        maps = net(image, mask)
    for name in ("scores", "deltas", "features"):
        outside(name, getattr(maps, name))
        assert getattr(maps, name).any()
    assert len(checked) > 60


def test_the_background_is_not_seen(net: PVANet, image: Tensor, mask: Tensor) -> None:
    inside = MaskPyramid(mask).at(128, 192).bool()
    with torch.no_grad():
        maps, other = net(image, mask), net(torch.where(inside, image, torch.randn_like(image)), mask)
    assert torch.equal(maps.scores, other.scores)
    assert torch.equal(maps.features, other.features)


def test_folding_changes_nothing(net: PVANet, image: Tensor, mask: Tensor) -> None:
    folded = fold(net)
    pooled = torch.randn(4, net.head.channels, 6, 6)
    assert not [part for part in folded.modules() if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d)]
    with torch.no_grad():
        for given in (None, mask):
            ours, theirs = folded(image, given), net(image, given)
            for name in ("scores", "deltas", "features"):
                expected = getattr(theirs, name)
                error = (getattr(ours, name) - expected).abs().max() / expected.abs().max()
                assert float(error) <= 1e-5, name
        for one, two in zip(folded.head(pooled), net.head(pooled), strict=True):
            torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5 * float(two.abs().max()))
    assert [part for part in net.modules() if isinstance(part, nn.BatchNorm2d)], "the original stays"


def test_a_batch_is_its_pictures(net: PVANet, image: Tensor) -> None:
    with torch.no_grad():
        together, alone = net(image), net(image[1:])
    torch.testing.assert_close(together.scores[1:], alone.scores, rtol=1e-4, atol=1e-5)


def test_detecting_stays_inside_the_picture_and_the_mask(net: PVANet, image: Tensor, mask: Tensor) -> None:
    found = net.detect(image, mask, proposals=20)
    assert len(found) == 2
    for one in found:
        count = len(one.rois)
        assert 0 < count <= 20
        assert one.probabilities.shape == (count, 4)
        assert one.boxes.shape == (count, 4, 4)
        torch.testing.assert_close(one.probabilities.sum(dim=1), torch.ones(count))
        for boxes in (one.rois, one.boxes):
            assert (boxes >= 0).all()
            assert (boxes[..., 2:] <= torch.tensor([192, 128])).all()
    assert [len(one.rois) for one in net.detect(image, torch.zeros_like(mask))] == [0, 0]


def test_everything_learns_but_the_upsampling(net: PVANet, image: Tensor) -> None:
    net = copy.deepcopy(net).train()
    maps = net(image)
    logits, deltas = net.head(maps.features[:, :, :6, :6])
    loss = sum(value.square().sum() for value in (maps.scores, maps.deltas, logits, deltas))
    loss.backward()
    still = {name for name, parameter in net.named_parameters() if parameter.grad is None}
    assert still == {"hyper.upsample.weight"}


def test_classifiers_classify() -> None:
    for variant in ("9.0", "9.1"):
        net = PVANetClassifier(variant, side=64, classes=5, width=0.25).eval()
        picture = torch.randn(2, 3, 64, 64)
        with torch.no_grad():
            logits = net(picture)
            assert logits.shape == (2, 5)
            torch.testing.assert_close(fold(net)(picture), logits, rtol=1e-4, atol=1e-4)
            assert torch.equal(net(picture, torch.ones(2, 1, 4, 4)), logits)
        detector = PVANet(variant, width=0.25)
        detector.trunk.load_state_dict(net.trunk.state_dict())  # how a detector starts


def test_channels_of_thin_networks_are_multiples_of_eight() -> None:
    assert [scaled(channels, 1.0) for channels in (16, 24, 48, 384)] == [16, 24, 48, 384]
    assert [scaled(channels, 0.5) for channels in (16, 24, 48, 384)] == [8, 16, 24, 192]
    assert [scaled(channels, 0.01) for channels in (16, 384)] == [8, 8]
    for width in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="width of a PVANet is a positive number"):
            scaled(16, width)
    assert Trunk(preactivation=True, width=0.5).channels == (64, 128, 192)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match=r"no PVANet is called '9\.2'\. There are: 9\.0, 9\.1, lite"):
        PVANet("9.2")
    with pytest.raises(UsageError, match=r"no PVANet classifier is called 'lite'"):
        PVANetClassifier("lite")
    with pytest.raises(UsageError, match="a side that is a multiple of 32, got 200"):
        PVANetClassifier("9.0", side=200)
    with torch.device("meta"):
        net, classifier = PVANet("lite"), PVANetClassifier("9.1", width=0.25)
        with pytest.raises(ValueError, match="multiples of 32, got 100x64"):
            net(torch.empty(1, 3, 100, 64))
        with pytest.raises(ValueError, match="should be 192x192, got 224x224"):
            classifier(torch.empty(1, 3, 224, 224))

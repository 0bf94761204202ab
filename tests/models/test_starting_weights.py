"""ImageNet weights: batch norm comes back without changing the function."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from edgekit.errors import CheckpointError
from edgekit.models.masking import ConvBNReLU6, MaskPyramid
from edgekit.models.mobilenetv2 import MobileNetV2
from edgekit.models.mobilenetv2_pyramid import MobileNetV2Pyramid
from edgekit.models.omg import OMG
from edgekit.models.starting_weights import (
    FoldedLayer,
    read_tflite_convolutions,
    start_from_mobilenetv2,
    start_pyramid_from_mobilenetv2,
)


def folded_copy(trunk: MobileNetV2) -> list[FoldedLayer]:
    """The trunk's layers with batch norm folded into weight and bias, as a converter does."""
    layers = []
    for module in trunk.modules():
        if isinstance(module, ConvBNReLU6):
            convolution, norm = module.get_submodule("conv"), module.get_submodule("bn")
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            weight = convolution.weight * scale[:, None, None, None]
            layers.append(
                (weight.detach().numpy(), (norm.bias - norm.running_mean * scale).detach().numpy())  # type: ignore[operator]
            )
    return layers


def shaken_trunk() -> MobileNetV2:
    torch.manual_seed(3)
    trunk = MobileNetV2().eval()
    for module in trunk.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.8, 1.6)
            nn.init.normal_(module.bias, std=0.2)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return trunk


def test_the_function_is_kept_and_the_statistics_are_real() -> None:
    source, trunk, omg = shaken_trunk(), MobileNetV2(), OMG()
    images = torch.rand(4, 3, 128, 128) * 2 - 1
    start_from_mobilenetv2(trunk, omg, folded_copy(source), [images])
    everything = MaskPyramid(None)
    with torch.no_grad():
        expected = source(images, everything)
        evaluated = trunk.eval()(images, everything)
        trained = trunk.train()(images, everything)
    for want, got, batch in zip(expected, evaluated, trained, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-3, atol=1e-4)
        # The measured statistics are this batch's, so training mode starts from the same function too.
        torch.testing.assert_close(batch, want, rtol=2e-2, atol=2e-2)


def test_omg_starts_from_the_same_layers() -> None:
    source, trunk, omg = shaken_trunk(), MobileNetV2(), OMG()
    start_from_mobilenetv2(trunk, omg, folded_copy(source), [torch.rand(2, 3, 128, 128) * 2 - 1])
    weight = omg.stride_8[1].depthwise.conv.weight  # type: ignore[union-attr]
    assert torch.equal(weight, trunk.blocks[1].depthwise.conv.weight)  # type: ignore[union-attr]


@pytest.mark.parametrize("frozen", [True, False])
def test_a_transformers_backbone_starts_from_all_layers_but_the_last(frozen: bool) -> None:
    source, pyramid = shaken_trunk(), MobileNetV2Pyramid(frozen_norms=frozen)
    pictures = torch.rand(4, 3, 128, 128) * 2 - 1
    start_pyramid_from_mobilenetv2(pyramid, folded_copy(source), [pictures])
    assert pyramid.training
    assert pyramid.stem.get_submodule("bn").training is not frozen
    want = source(pictures, MaskPyramid(None))[1]
    # With measured statistics training mode computes the same, but for rounding.
    got = source.last(pyramid(pictures)[2], MaskPyramid(None))
    torch.testing.assert_close(got, want, rtol=2e-2, atol=2e-2)


def test_layers_of_another_network_are_refused() -> None:
    layers = folded_copy(MobileNetV2())
    with pytest.raises(CheckpointError, match=r"hold 51 convolutions, MobileNetV2 1\.0 has 52"):
        start_pyramid_from_mobilenetv2(MobileNetV2Pyramid(), layers[:51], [])
    with pytest.raises(CheckpointError, match=r"hold 10 convolutions, MobileNetV2 1\.0 has 52"):
        start_from_mobilenetv2(MobileNetV2(), OMG(), layers[:10], [])
    with pytest.raises(CheckpointError, match=r"has shape .* is expected; is the file an ImageNet MobileNetV2"):
        start_from_mobilenetv2(MobileNetV2(), OMG(), layers[::-1], [])


def test_a_file_that_is_no_tflite_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    (tmp_path / "x.tflite").write_bytes(b"not a model at all")
    with pytest.raises(CheckpointError, match="not a readable TFLite file"):
        read_tflite_convolutions(tmp_path / "x.tflite")
    with pytest.raises(CheckpointError, match="does not exist"):
        read_tflite_convolutions(tmp_path / "y.tflite")


def test_the_published_weights_have_mobilenetv2s_layers(shared: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    file = shared / "weights" / "mobilenet_v2" / "tf2_mobilenet_v2_1.0_224_ptq.tflite"
    shapes = [weight.shape for weight, _ in read_tflite_convolutions(file)]
    ours = [tuple(m.conv.weight.shape) for m in MobileNetV2().modules() if isinstance(m, ConvBNReLU6)]
    assert shapes[:52] == ours


def test_a_transformers_backbone_starts_from_the_published_weights(shared: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    file = shared / "weights" / "mobilenet_v2" / "tf2_mobilenet_v2_1.0_224_ptq.tflite"
    folded = read_tflite_convolutions(file)
    trunk, pyramid = MobileNetV2(), MobileNetV2Pyramid()
    pictures = torch.rand(1, 3, 128, 128) * 2 - 1
    start_from_mobilenetv2(trunk, OMG(), folded, [pictures])
    start_pyramid_from_mobilenetv2(pyramid, folded, [pictures])
    with torch.no_grad():
        want = trunk.eval()(pictures, MaskPyramid(None))[1]
        got = trunk.last(pyramid(pictures)[2], MaskPyramid(None))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)

"""Start a MobileNetV2 trunk from a TFLite file whose batch norms were folded into the convolutions.

The file is int8 with a scale per output channel. Its weights are dequantised; then batch norm is put back *around*
them: with the statistics (mean m, variance v) that each convolution shows on real pictures, a batch norm with weight
sqrt(v + eps) and bias m + b computes conv(x) + b, exactly what the folded layer did. So the function is kept, and
training gets normalised activations and sensible running statistics.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekit.errors import CheckpointError, MissingDependencyError
from edgekit.models.masking import ConvBNReLU6, MaskPyramid
from edgekit.models.mobilenetv2 import MobileNetV2
from edgekit.models.mobilenetv2_pyramid import MobileNetV2Pyramid
from edgekit.models.omg import OMG, STRIDE_8, STRIDE_16, STRIDE_32

FoldedLayer = tuple[NDArray[np.float32], NDArray[np.float32]]
"""Weight [out, in/groups, kh, kw] and bias [out] of one convolution."""

CONVOLUTIONS = 52
"""Of MobileNetV2 1.0 without its classifier."""


def read_tflite_convolutions(path: Path) -> list[FoldedLayer]:
    """Every convolution of a TFLite file in execution order, dequantised.

    Raises:
        CheckpointError: not a TFLite file, or it holds NaN.
        MissingDependencyError: ai-edge-litert is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError as error:
        raise MissingDependencyError("ai-edge-litert", "train", "read TFLite starting weights") from error
    if not path.is_file():
        raise CheckpointError(f"the file of starting weights {path} does not exist")
    try:
        # Without delegates every operator and constant of the file stays visible.
        interpreter = Interpreter(
            str(path), experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        )
    except ValueError as error:
        raise CheckpointError(f"starting weights {path} are not a readable TFLite file: {error}") from error
    details = {tensor["index"]: tensor for tensor in interpreter.get_tensor_details()}

    def dequantise(index: int) -> NDArray[np.float32]:
        values = interpreter.get_tensor(index).astype(np.float32)
        quantisation = details[index]["quantization_parameters"]
        scales = quantisation["scales"]
        if len(scales) == 0:
            return np.asarray(values, np.float32)
        shape = [1] * values.ndim
        if len(scales) > 1:
            shape[quantisation["quantized_dimension"]] = len(scales)
        zero = np.asarray(quantisation["zero_points"], np.float32).reshape(shape)
        return np.asarray((values - zero) * scales.reshape(shape), np.float32)

    layers: list[FoldedLayer] = []
    for operator in interpreter._get_ops_details():
        if operator["op_name"] not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            continue
        weight, bias = dequantise(operator["inputs"][1]), dequantise(operator["inputs"][2])
        # CONV_2D is [out, h, w, in], DEPTHWISE_CONV_2D [1, h, w, out]; PyTorch wants [out, in/groups, h, w].
        weight = weight.transpose(0, 3, 1, 2) if operator["op_name"] == "CONV_2D" else weight.transpose(3, 0, 1, 2)
        if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
            raise CheckpointError(f"starting weights {path} hold NaN or infinite values; the file is damaged")
        layers.append((np.ascontiguousarray(weight), bias))
    return layers


def start_from_mobilenetv2(trunk: MobileNetV2, omg: OMG, folded: list[FoldedLayer], images: Iterable[Tensor]) -> None:
    """Load ``folded`` (all convolutions of an ImageNet MobileNetV2 1.0) into the trunk and the OMG network.

    Args:
        trunk: receives every layer.
        omg: receives the blocks that it shares shapes with.
        folded: from :func:`read_tflite_convolutions`.
        images: batches [B, 3, H, W] in [-1, 1) to measure statistics on; a hundred pictures are plenty.

    Raises:
        CheckpointError: the layers are not those of MobileNetV2 1.0.
    """
    trunk_layers = _load_in_order(trunk, folded)
    sources = {id(module): layer for module, layer in zip(trunk_layers, folded, strict=False)}
    pairs: list[tuple[nn.Module, nn.Module]] = [(omg.stem, trunk.stem)]
    for stage, indices in ((omg.stride_8, STRIDE_8), (omg.stride_16, STRIDE_16), (omg.stride_32, STRIDE_32)):
        pairs += [(block, trunk.blocks[index]) for block, index in zip(stage, indices, strict=True)]
    omg_layers: list[ConvBNReLU6] = []
    for ours, theirs in pairs:
        ours_layers = [module for module in ours.modules() if isinstance(module, ConvBNReLU6)]
        theirs_layers = [module for module in theirs.modules() if isinstance(module, ConvBNReLU6)]
        for mine, other in zip(ours_layers, theirs_layers, strict=True):
            _load_folded(mine, sources[id(other)])
        omg_layers += ours_layers
    batches = list(images)
    everything = MaskPyramid(None)
    _measure_batch_norms(trunk_layers, [lambda batch=batch: trunk(batch, everything) for batch in batches])
    _measure_batch_norms(omg_layers, [lambda batch=batch: omg(batch) for batch in batches])


def start_trunk_from_mobilenetv2(trunk: MobileNetV2, folded: list[FoldedLayer], images: Iterable[Tensor]) -> None:
    """Load ``folded`` into a trunk that stands alone; arguments and errors as of :func:`start_from_mobilenetv2`."""
    layers = _load_in_order(trunk, folded)
    everything = MaskPyramid(None)
    _measure_batch_norms(layers, [lambda batch=batch: trunk(batch, everything) for batch in images])


def start_pyramid_from_mobilenetv2(
    pyramid: MobileNetV2Pyramid, folded: list[FoldedLayer], images: Iterable[Tensor]
) -> None:
    """Load ``folded`` into a transformer's backbone, all but the convolution that it lacks, the last.

    Args:
        pyramid: receives every layer.
        folded: as for :func:`start_from_mobilenetv2`.
        images: likewise.

    Raises:
        CheckpointError: the layers are not those of MobileNetV2 1.0.
    """
    layers = _load_in_order(pyramid, folded)
    _measure_batch_norms(layers, [lambda batch=batch: pyramid(batch) for batch in images])
    pyramid.train(pyramid.training)  # measuring left its frozen batch norms in training


def _load_in_order(network: MobileNetV2 | MobileNetV2Pyramid, folded: list[FoldedLayer]) -> list[ConvBNReLU6]:
    """Load the network's layers, which stand in the order of the data, and return them."""
    if len(folded) < CONVOLUTIONS:
        raise CheckpointError(
            f"starting weights hold {len(folded)} convolutions, MobileNetV2 1.0 has {CONVOLUTIONS}; "
            "is the file an ImageNet MobileNetV2 1.0?"
        )
    layers = [module for module in network.modules() if isinstance(module, ConvBNReLU6)]
    for module, layer in zip(layers, folded, strict=False):
        _load_folded(module, layer)
    return layers


def _load_folded(module: ConvBNReLU6, layer: FoldedLayer) -> None:
    """Weight into the convolution, bias into an identity batch norm."""
    weight, bias = torch.from_numpy(layer[0]), torch.from_numpy(layer[1])
    convolution, norm = module.get_submodule("conv"), module.get_submodule("bn")
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    if convolution.weight.shape != weight.shape:
        raise CheckpointError(
            f"a starting weight has shape {list(weight.shape)} where {list(convolution.weight.shape)} is expected; "
            "is the file an ImageNet MobileNetV2 1.0?"
        )
    with torch.no_grad():
        convolution.weight.copy_(weight)
        norm.running_mean.zero_()  # type: ignore[union-attr]
        norm.running_var.fill_(1.0)  # type: ignore[union-attr]
        norm.weight.fill_((1.0 + norm.eps) ** 0.5)
        norm.bias.copy_(bias)


def _measure_batch_norms(modules: list[ConvBNReLU6], passes: list[object]) -> None:
    """Replace identity batch norms by ones that carry the measured statistics and compute the same."""
    sums: dict[int, tuple[Tensor, Tensor, int]] = {}
    hooks = []
    for index, module in enumerate(modules):

        def record(_: nn.Module, __: object, output: Tensor, index: int = index) -> None:
            total, squares, count = sums.get(index, (torch.zeros(()), torch.zeros(()), 0))
            values = output.double()
            sums[index] = (
                total + values.sum(dim=(0, 2, 3)),
                squares + values.square().sum(dim=(0, 2, 3)),
                count + values.numel() // values.shape[1],
            )

        hooks.append(module.get_submodule("conv").register_forward_hook(record))
    states = [(module, module.training) for module in modules]
    with torch.no_grad():
        for module in modules:
            module.eval()
        for run in passes:
            run()  # type: ignore[operator]
    for hook in hooks:
        hook.remove()
    with torch.no_grad():
        for index, (module, training) in enumerate(states):
            module.train(training)
            total, squares, count = sums[index]
            norm = module.get_submodule("bn")
            assert isinstance(norm, nn.BatchNorm2d)
            bias = norm.bias.double().clone()
            mean = total / count
            variance = (squares / count - mean.square()).clamp_min(1e-6)
            norm.running_mean.copy_(mean)  # type: ignore[union-attr]
            norm.running_var.copy_(variance)  # type: ignore[union-attr]
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.copy_(bias + mean)

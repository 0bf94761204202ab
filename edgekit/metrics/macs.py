"""Multiply-accumulate operations (MACs) of a detector: dense, and executed under a mask.

One MAC is one multiplication with its addition. Convolutions, deconvolutions and linear layers are counted; biases,
activations, additions and resizing are not. Batch norm costs nothing: exported graphs have it folded into the
convolution. :func:`layer_calls` holds the rule.

The layer table is plain data: it is counted once with PyTorch (:func:`count_macs`), travels in ``bundle.json`` and
gives executed MACs on a board without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgekit.errors import BundleError, MissingDependencyError
from edgekit.masks.pyramid import Mask, mask_at

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekit.models.masked_detector import MaskedDetector

GRAPHS = ("omg", "detector")
KINDS = ("conv", "depthwise", "linear")


@dataclass(frozen=True, kw_only=True)
class LayerMacs:
    """One convolution or linear layer for one image."""

    name: str
    """Its place in the PyTorch model, e.g. ``detector.backbone.stem.conv``."""

    kind: str
    """``conv`` (any but depthwise), ``depthwise`` or ``linear``."""

    graph: str
    """``omg`` or ``detector``."""

    parameters: int
    """Weights and one bias an output channel, as in an exported graph, where batch norm is folded into them."""

    macs: int
    """Multiply-adds without a mask; taps on padding count."""

    rows: int
    columns: int
    """Size of the output; 1x1 for a linear layer."""


def total_macs(layers: Iterable[LayerMacs], graph: str) -> int:
    """Dense MACs of one graph, ``omg`` or ``detector``."""
    return sum(layer.macs for layer in layers if layer.graph == graph)


def executed_layer_macs(layers: Sequence[LayerMacs], mask: Mask, *, omg: bool) -> list[int]:
    """The MACs of each layer that a site-skipping engine executes under ``mask`` [G, G].

    A detector layer computes only its output sites that are active at its resolution, all channels and taps of them.
    The OMG network has no mask: it counts fully, or not at all where the mask comes without it (``omg`` False).
    """
    sizes = {(layer.rows, layer.columns) for layer in layers if layer.graph == "detector"}
    active = {size: int(mask_at(mask, rows=size[0], columns=size[1]).sum()) for size in sizes}
    return [
        layer.macs // (layer.rows * layer.columns) * active[layer.rows, layer.columns]
        if layer.graph == "detector"
        else layer.macs * omg
        for layer in layers
    ]


def executed_macs(layers: Sequence[LayerMacs], mask: Mask, *, omg: bool) -> int:
    """The sum of :func:`executed_layer_macs`."""
    return sum(executed_layer_macs(layers, mask, omg=omg))


def layers_to_json(layers: Iterable[LayerMacs]) -> list[dict[str, Any]]:
    """The table as ``bundle.json`` holds it under ``layers``."""
    return [asdict(layer) for layer in layers]


def layers_from_json(document: object) -> tuple[LayerMacs, ...]:
    """The inverse of :func:`layers_to_json`.

    Raises:
        BundleError: the table is malformed; the message names the entry.
    """
    if not isinstance(document, list):
        raise BundleError(f"the layer table should be a list, got {type(document).__name__}")
    return tuple(_layer_from_json(index, entry) for index, entry in enumerate(document))


def _layer_from_json(index: int, entry: object) -> LayerMacs:
    where = f"layers[{index}]"
    if not isinstance(entry, Mapping) or set(entry) != set(LayerMacs.__dataclass_fields__):
        expected = ", ".join(LayerMacs.__dataclass_fields__)
        raise BundleError(f"{where} should have exactly {expected}, got {entry!r:.200}")
    for key in ("parameters", "macs", "rows", "columns"):
        if isinstance(entry[key], bool) or not isinstance(entry[key], int) or entry[key] < 1:
            raise BundleError(f"{where}: {key} should be a positive whole number, got {entry[key]!r}")
    if not isinstance(entry["name"], str) or entry["graph"] not in GRAPHS or entry["kind"] not in KINDS:
        raise BundleError(f"{where}: expected a name, graph in {GRAPHS} and kind in {KINDS}, got {entry!r:.200}")
    if entry["macs"] % (entry["rows"] * entry["columns"]):
        raise BundleError(f"{where}: {entry['macs']} MACs do not divide by {entry['rows']}x{entry['columns']} sites")
    return LayerMacs(**entry)


def count_macs(model: MaskedDetector) -> tuple[LayerMacs, ...]:
    """The layers of ``model`` in the order in which they run, OMG first.

    Raises:
        MissingDependencyError: PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingDependencyError("torch", "train", "count the MACs of a model") from error

    parameter = next(model.parameters())
    image = torch.zeros(1, 3, model.spec.height, model.spec.width, dtype=parameter.dtype, device=parameter.device)
    return tuple(
        _layer_macs(graph, call)
        for graph, module in (("omg", model.omg), ("detector", model.detector))
        for call in layer_calls(module, image)
    )


def _layer_macs(graph: str, call: LayerCall) -> LayerMacs:
    from torch import nn

    layer, kind = call.layer, "linear"
    channels = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
    if not isinstance(layer, nn.Linear):
        kind = "depthwise" if layer.groups == layer.in_channels > 1 else "conv"
    return LayerMacs(
        name=f"{graph}.{call.name}",
        kind=kind,
        graph=graph,
        parameters=layer.weight.numel() + channels,
        macs=call.macs,
        rows=call.rows,
        columns=call.columns,
    )


@dataclass(frozen=True, kw_only=True)
class LayerCall:
    """A layer that multiplied while :func:`layer_calls` watched."""

    name: str
    """Its path below the watched module."""

    layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear
    macs: int
    rows: int
    columns: int
    """Size of the output; 1x1 for a linear layer."""


def layer_calls(module: nn.Module, inputs: Tensor) -> list[LayerCall]:
    """Run ``module`` on ``inputs``, once and as in evaluation, and list what multiplies, in the order in which it runs.

    Every weight multiplies once at every place: at those that a convolution writes, at those that a deconvolution
    reads, at every row of a linear layer. Taps on padding count, and so do those of a deconvolution beyond its output.
    """
    import torch
    from torch import nn

    calls: list[LayerCall] = []

    def record(name: str, layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, read: Tensor, written: Tensor) -> None:
        rows, columns = (1, 1) if isinstance(layer, nn.Linear) else written.shape[-2:]
        if isinstance(layer, nn.Linear):
            places = written.numel() // layer.out_features
        elif isinstance(layer, nn.ConvTranspose2d):
            places = read.numel() // layer.in_channels
        else:
            places = written.numel() // layer.out_channels
        macs = layer.weight.numel() * places
        calls.append(LayerCall(name=name, layer=layer, macs=macs, rows=rows, columns=columns))

    handles = [
        layer.register_forward_hook(lambda layer, read, written, name=name: record(name, layer, read[0], written))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear)
    ]
    was_training = module.training
    module.eval()  # so that batch norm statistics stay as they are
    try:
        with torch.inference_mode():
            module(inputs)
    finally:
        module.train(was_training)
        for handle in handles:
            handle.remove()
    return calls

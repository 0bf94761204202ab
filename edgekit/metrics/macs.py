"""Multiply-accumulate operations (MACs) of a detector: dense, and executed under a mask.

One MAC is one multiplication with its addition. Convolutions, deconvolutions, linear layers and attention of all to all
are counted; biases, activations, additions, resizing and the sums of deformable attention are not. Batch norm costs
nothing: exported graphs have it folded into the convolution. :func:`layer_calls` holds the rule.

The layer table is plain data: it is counted once with PyTorch (:func:`count_macs`), travels in ``bundle.json`` and
gives executed MACs on a board without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from edgekit.errors import BundleError, MissingDependencyError
from edgekit.masks.pyramid import Mask, mask_at

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgekit.models.masked_detector import MaskedDetector

    Layer = nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.MultiheadAttention

GRAPHS = ("omg", "detector", "shared", "head", "encoder")
KINDS = ("conv", "depthwise", "linear")

DETR_PREFIX = "net."
"""Of the names of a DETR's layers inside ``edgekit.models.masked_detr.DetrGraph``."""

TOKEN_MAPS = "detector.input_proj."
"""Start of the names of the layers that make a DETR's tokens, one an output site."""


@dataclass(frozen=True, kw_only=True)
class LayerMacs:
    """One convolution or linear layer for one image."""

    name: str
    """Its place in the PyTorch model, e.g. ``detector.backbone.stem.conv``."""

    kind: str
    """``conv`` (any but depthwise), ``depthwise`` or ``linear``."""

    graph: str
    """``omg``; ``detector``, or of a two-stage one ``shared`` or ``head``; of a DETR ``encoder`` for what runs once for
    each token that is refined, and ``detector`` for the rest."""

    parameters: int
    """Weights and one bias an output channel, as in an exported graph, where batch norm is folded into them."""

    macs: int
    """Multiply-adds without a mask; taps on padding count."""

    rows: int
    columns: int
    """Size of the output; of a layer of the graph ``head`` the number of regions, and 1; of ``encoder`` the most tokens
    that it refines, and 1. Of another linear layer 1 and 1, whatever it is applied to: a DETR makes values of all its
    tokens, and decodes all its queries, under any mask."""


def total_macs(layers: Iterable[LayerMacs], graph: str) -> int:
    """Dense MACs of one graph: ``omg``, or ``detector``, which means all others together."""
    return sum(layer.macs for layer in layers if (layer.graph == "omg") == (graph == "omg"))


def executed_layer_macs(layers: Sequence[LayerMacs], mask: Mask, *, omg: bool, regions: int | None = None) -> list[int]:
    """The MACs of each layer that a site-skipping engine executes under ``mask`` [G, G].

    A detector layer computes only its output sites that are active at its resolution, all channels and taps of them.
    One that classifies regions does so for each of ``regions``; where their number is not known, for that share of the
    most possible that is active. An encoder refines the tokens that the mask leaves, up to its most; the graph that
    does may have room for more. The OMG network has no mask: it counts fully, or not at all where the mask comes
    without it (``omg`` False).
    """
    sizes = {(layer.rows, layer.columns) for layer in layers if layer.graph in ("detector", "shared")}
    active = {size: int(mask_at(mask, rows=size[0], columns=size[1]).sum()) for size in sizes}

    maps = [layer for layer in layers if layer.name.startswith(TOKEN_MAPS)]
    tokens = sum(active[layer.rows, layer.columns] for layer in maps)

    def executed(layer: LayerMacs) -> int:
        if layer.graph == "encoder":
            return layer.macs // layer.rows * min(layer.rows, tokens)
        if layer.graph == "omg":
            return layer.macs * omg
        if layer.graph == "head":
            return layer.macs // layer.rows * (round(layer.rows * float(mask.mean())) if regions is None else regions)
        return layer.macs // (layer.rows * layer.columns) * active[layer.rows, layer.columns]

    return [executed(layer) for layer in layers]


def executed_macs(layers: Sequence[LayerMacs], mask: Mask, *, omg: bool, regions: int | None = None) -> int:
    """The sum of :func:`executed_layer_macs`."""
    return sum(executed_layer_macs(layers, mask, omg=omg, regions=regions))


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
    from edgekit.models.masked_detr import DetrGraph
    from edgekit.models.pvanet_rois import POOLED

    parameter, spec = next(model.parameters()), model.spec
    image = torch.zeros(1, 3, spec.height, spec.width, dtype=parameter.dtype, device=parameter.device)
    layers = [_layer_macs("omg", call) for call in layer_calls(model.omg, image)]
    if spec.two_stage is None:
        calls = layer_calls(model.detector if spec.detr is None else DetrGraph(model.detr, spec), image)
        most = max(spec.encoders.values(), default=1)
        return (*layers, *(_token_macs(call, most) or _layer_macs("detector", call) for call in calls))
    head, regions = model.two_stage.head, spec.two_stage.proposals
    region = torch.zeros(1, head.channels, POOLED, POOLED, dtype=parameter.dtype, device=parameter.device)
    layers += [_layer_macs("shared", call) for call in layer_calls(model.two_stage, image)]
    layers += [_layer_macs("head", call, regions=regions) for call in layer_calls(head, region)]
    return tuple(layers)


def _token_macs(call: LayerCall, most: int) -> LayerMacs | None:
    """Of a layer that runs for each of the ``most`` tokens that an encoder refines; ``None`` for any other."""
    name = call.name.removeprefix(DETR_PREFIX)
    if not name.startswith("transformer.encoder.layers.") or name.endswith(".value_proj"):
        return None
    return replace(_layer_macs("encoder", call), name=f"detector.{name}", rows=most)


def _layer_macs(graph: str, call: LayerCall, *, regions: int = 1) -> LayerMacs:
    from torch import nn

    layer, kind = call.layer, "linear"
    if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
        kind = "depthwise" if layer.groups == layer.in_channels > 1 else "conv"
    return LayerMacs(
        name=f"{graph}.{call.name.removeprefix(DETR_PREFIX)}",
        kind=kind,
        graph=graph,
        parameters=weights_of(layer) + _biases_of(layer),
        macs=call.macs * regions,
        rows=call.rows * regions,
        columns=call.columns,
    )


def weights_of(layer: Layer) -> int:
    """How many weights a layer has, without biases; of an attention those of its four linear layers."""
    from torch import nn

    if isinstance(layer, nn.MultiheadAttention):
        return int(layer.in_proj_weight.numel() + layer.out_proj.weight.numel())
    return int(layer.weight.numel())


def _biases_of(layer: Layer) -> int:
    """One an output channel, as in an exported graph, where batch norm is folded into a layer."""
    from torch import nn

    if isinstance(layer, nn.MultiheadAttention):
        return int(4 * layer.embed_dim)
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


@dataclass(frozen=True, kw_only=True)
class LayerCall:
    """A layer that multiplied while :func:`layer_calls` watched."""

    name: str
    """Its path below the watched module."""

    layer: Layer
    macs: int
    rows: int
    columns: int
    """Size of the output; 1x1 for a linear layer and an attention."""


def layer_calls(module: nn.Module, inputs: Tensor) -> list[LayerCall]:
    """Run ``module`` on ``inputs``, once and as in evaluation, and list what multiplies, in the order in which it runs.

    Every weight multiplies once at every place: at those that a convolution writes, at those that a deconvolution
    reads, at every row of a linear layer. Taps on padding count, and so do those of a deconvolution beyond its output.
    An attention of N queries has their linear layers, and twice N x N x width besides.
    """
    import torch
    from torch import nn

    calls: list[LayerCall] = []

    def record(name: str, layer: Layer, read: Tensor, written: Any) -> None:
        if isinstance(layer, nn.MultiheadAttention):
            count = read.shape[1]
            macs = count * (weights_of(layer) + 2 * count * layer.embed_dim)
            calls.append(LayerCall(name=name, layer=layer, macs=macs, rows=1, columns=1))
            return
        rows, columns = (1, 1) if isinstance(layer, nn.Linear) else written.shape[-2:]
        if isinstance(layer, nn.Linear):
            places = written.numel() // layer.out_features
        elif isinstance(layer, nn.ConvTranspose2d):
            places = read.numel() // layer.in_channels
        else:
            places = written.numel() // layer.out_channels
        macs = weights_of(layer) * places
        calls.append(LayerCall(name=name, layer=layer, macs=macs, rows=rows, columns=columns))

    handles = [
        layer.register_forward_hook(lambda layer, read, written, name=name: record(name, layer, read[0], written))
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear | nn.MultiheadAttention)
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

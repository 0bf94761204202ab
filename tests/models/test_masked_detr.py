"""A DETR behind a mask: what it cannot see changes nothing, and its spec says how it is built."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekit.bundle.manifest import read_spec
from edgekit.errors import BundleError, UsageError
from edgekit.masks.statistics import refined_tokens
from edgekit.metrics.macs import count_macs, executed_macs, layers_from_json, layers_to_json, total_macs
from edgekit.models.backbone import IMAGENET_MEAN, IMAGENET_STD
from edgekit.models.masked_detector import MaskedDetector
from edgekit.models.masked_detr import DetrGraph, detect_under_mask, for_backbone
from edgekit.models.masking import MaskPyramid
from edgekit.models.registry import build, find_model, spec_at
from edgekit.models.resnet import ResNet
from edgekit.models.sparse_detr import DetrSize, SparseDetr
from edgekit.models.swin import SwinTransformer
from edgekit.models.token_maps import active_tokens
from edgekit.spec import DetectorSpec, Detr

NAME, SIDE = "sparse-detr-mobilenetv2-omg", 128


def model(share: float | None = None) -> MaskedDetector:
    torch.manual_seed(0)
    built = build(NAME, ("box", "disc"), size=SIDE, token_share=share).eval()
    with torch.no_grad():
        for parameter in built.detr.parameters():
            parameter += torch.randn_like(parameter) * 0.02  # offsets and boxes start constant
    return built


def corner_mask() -> Tensor:
    """Of 8x8 cells the upper left 3x4 and one more."""
    mask = torch.zeros(1, 1, SIDE // 16, SIDE // 16)
    mask[:, :, :3, :4] = 1
    mask[:, :, 6, 5] = 1
    return mask


def test_a_coarse_token_is_active_if_any_cell_in_it_is() -> None:
    active = active_tokens(MaskPyramid(corner_mask()), spec().token_maps)
    assert active is not None
    fine, middle, coarse, coarsest = (
        level.reshape(shape) for level, shape in zip(active[0].split([256, 64, 16, 4]), spec().token_maps, strict=True)
    )
    assert torch.equal(middle, corner_mask()[0, 0] > 0)
    assert torch.equal(fine, middle.repeat_interleave(2, 0).repeat_interleave(2, 1))
    assert coarse.int().tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    assert coarsest.int().tolist() == [[1, 0], [0, 1]]
    assert active_tokens(MaskPyramid(None), spec().token_maps) is None


def spec() -> DetectorSpec:
    return find_model(NAME).spec(("box", "disc"), SIDE, SIDE)


@pytest.mark.parametrize("share", [None, 1.0], ids=["sparse", "dense"])
def test_what_the_mask_hides_changes_nothing(share: float | None) -> None:
    built, mask = model(share), corner_mask()
    image = torch.rand(1, 3, SIDE, SIDE) * 2 - 1
    hidden = ~MaskPyramid(mask).at(SIDE, SIDE).bool()
    graph = DetrGraph(built.detr, built.spec)
    with torch.inference_mode():
        logits, boxes = graph(image, mask)
        others = graph(torch.where(hidden, torch.rand_like(image), image), mask)
        assert torch.equal(logits, others[0])
        assert torch.equal(boxes, others[1])
        assert not torch.equal(logits, graph(image)[0])


@pytest.mark.parametrize("share", [None, 1.0], ids=["sparse", "dense"])
def test_tokens_outside_the_mask_are_neither_refined_nor_start_queries(
    share: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    built, mask = model(share), corner_mask()
    active = active_tokens(MaskPyramid(mask), built.spec.token_maps)
    assert active is not None
    seen = {}
    encoder = built.detr.transformer.encoder
    forward = encoder.forward

    def watch(tokens: Tensor, *rest: object, **options: object) -> object:
        seen["before"] = tokens
        result = forward(tokens, *rest, **options)  # type: ignore[arg-type]
        seen["after"] = result[0]
        return result

    monkeypatch.setattr(encoder, "forward", watch)
    with torch.inference_mode():
        output = detect_under_mask(built.detr, torch.rand(1, 3, SIDE, SIDE), mask, built.spec)
    assert torch.equal(seen["before"][~active], seen["after"][~active])
    changed = (seen["before"] != seen["after"]).any(-1)
    usable = int(active.sum())
    assert int(changed.sum()) == (usable if share else min(usable, int(active.numel() * 0.3) + 1))
    assert output.proposals is not None
    assert (output.proposals.logits[~active] == -16).all()
    last = output.decoder[-1]
    # 70 tokens are active, so 30 of the 100 queries start nowhere.
    assert ((last.logits == -16).all(-1).sum(1) == built.detr.size.queries - usable).all()


def test_an_empty_mask_finds_nothing() -> None:
    built = model()
    mask = torch.zeros(1, 1, SIDE // 16, SIDE // 16)
    with torch.inference_mode():
        logits, boxes = DetrGraph(built.detr, built.spec)(torch.rand(1, 3, SIDE, SIDE), mask)
    assert (logits == -16).all()
    assert torch.isfinite(boxes).all()


@pytest.mark.parametrize("body", [ResNet((1, 1, 1, 1), 8), SwinTransformer(24, (1, 1, 1, 1), (1, 1, 2, 2))])
def test_pictures_reach_a_published_backbone_as_imagenet_has_them(body: ResNet | SwinTransformer) -> None:
    size = DetrSize(width=64, heads=4, points=2, encoder_layers=1, decoder_layers=1, feed_forward=32, queries=5)
    net = SparseDetr(body, classes=2, size=size).eval()
    pixels = torch.randint(0, 256, (1, 3, 64, 64)).float()
    wanted = (pixels - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    images = (pixels - 128) / 128
    torch.testing.assert_close(for_backbone(net, images, spec()), wanted, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        ours, published = detect_under_mask(net, images, None, spec()).decoder[-1], net(wanted).decoder[-1]
        torch.testing.assert_close(ours.boxes, published.boxes, rtol=1e-4, atol=1e-4)
        mask = torch.zeros(1, 1, 4, 4)
        mask[..., :2, :2] = 1
        for level in body(wanted, MaskPyramid(mask)):
            assert not (level * (1 - MaskPyramid(mask).at(*level.shape[-2:]))).any()


def test_the_small_one_takes_pictures_as_they_are() -> None:
    images = torch.rand(1, 3, 64, 64)
    assert for_backbone(model().detr, images, spec()) is images


def test_a_spec_survives_json_and_old_ones_load() -> None:
    for share in (0.3, None):
        built = replace(spec(), detr=Detr(queries=7, token_share=share))
        document = json.loads(json.dumps(built.to_json()))
        assert DetectorSpec.from_json(document) == built == read_spec(document)
    assert built.kind == "detr"
    assert built.graphs == ("omg", "backbone", "encoder_85", "encoder_170", "encoder_255", "encoder_340", "decoder")
    assert built.sparse_graphs == ("omg", "backbone")
    assert list(spec_at(spec(), height=128, width=128).encoders.values()) == [26, 52, 78, 103]
    assert built.token_maps == ((16, 16), (8, 8), (4, 4), (2, 2))
    assert spec_at(built, height=320, width=192).token_maps[-1] == (5, 3)
    assert spec_at(built, height=320, width=192).detr == built.detr
    other = find_model("mobilenetv2-ssdlite-omg").spec(("a",), 64, 64)
    document = other.to_json()
    del document["detr"]
    assert DetectorSpec.from_json(document) == other


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"detr": {"queries": 0, "token_share": 0.3}}, r"spec\.detr\.queries"),
        ({"detr": {"queries": 5, "token_share": 2}}, r"spec\.detr\.token_share"),
        ({"anchors": [{"rows": 1, "columns": 1, "sizes": [[1, 1]]}]}, "a DETR has neither anchors nor two_stage"),
        ({"mask_grid": [7, 7]}, "do not fit mask_grid"),
    ],
)
def test_damaged_specs_are_refused(change: dict[str, object], message: str) -> None:
    document = json.loads(json.dumps(spec().to_json()))
    with pytest.raises(BundleError, match=message):
        read_spec({**document, **change})


def test_a_share_of_one_is_dense_and_only_detrs_have_shares() -> None:
    dense, sparse = build(NAME, ("a",), size=64, token_share=1.0), build(NAME, ("a",), size=64, token_share=0.2)
    assert (dense.spec.detr, dense.detr.share) == (Detr(queries=100, token_share=None), None)
    assert (sparse.spec.detr, sparse.detr.share) == (Detr(queries=100, token_share=0.2), 0.2)
    with pytest.raises(UsageError, match="mobilenetv2-ssdlite-omg has no tokens to take a share of"):
        build("mobilenetv2-ssdlite-omg", ("a",), token_share=0.3)
    with pytest.raises(UsageError, match=r"a share of tokens is above 0 and at most 1, got 1\.5"):
        build(NAME, ("a",), token_share=1.5)
    with pytest.raises(ValueError, match="no DETR is called 'x'"):
        MaskedDetector(replace(spec(), model="x"))


def test_masks_spare_the_backbone_and_shares_of_tokens_the_encoder() -> None:
    sparse, dense = count_macs(model()), count_macs(model(1.0))
    assert layers_from_json(layers_to_json(sparse)) == sparse
    mask = corner_mask()[0, 0].numpy() > 0
    layers = {layer.name: layer for layer in sparse}
    for name, places in {"value_proj": 340, "output_proj": 103, "sampling_offsets": 103}.items():
        layer = layers[f"detector.transformer.encoder.layers.0.self_attn.{name}"]
        assert layer.macs == places * 128 * (256 if name == "sampling_offsets" else 128)
        assert (layer.rows, layer.columns) == ((1, 1) if name == "value_proj" else (103, 1))
    attention = layers["detector.transformer.decoder.layers.0.self_attn"]
    assert attention.macs == 100 * (4 * 128 * 128 + 2 * 100 * 128)
    backbone = [layer for layer in sparse if ".backbone." in layer.name]
    assert executed_macs(backbone, mask, omg=False) < 0.4 * sum(layer.macs for layer in backbone)
    rest = [layer for layer in sparse if ".transformer." in layer.name and layer.graph == "detector"]
    assert executed_macs(rest, mask, omg=False) == sum(layer.macs for layer in rest)
    encoder = sum(layer.macs for layer in sparse if layer.graph == "encoder")
    seen = executed_macs(sparse, mask, omg=False) - executed_macs([*backbone, *rest], mask, omg=False)
    projections = [layer for layer in sparse if layer.name.startswith("detector.input_proj.")]
    left = refined_tokens(spec(), mask)
    assert 0 < left < 103
    assert seen == encoder // 103 * left + executed_macs(projections, mask, omg=False)
    assert executed_macs(sparse, np.zeros_like(mask), omg=False) == 0
    assert total_macs(sparse, "detector") < total_macs(dense, "detector")

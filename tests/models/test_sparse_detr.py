"""Deformable and Sparse DETR against a slow reference, their published counts and their published names."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")

from edgekit.metrics.flops import count_flops  # noqa: E402
from edgekit.models.registry import NETWORKS  # noqa: E402
from edgekit.models.resnet import ResNet  # noqa: E402
from edgekit.models.sparse_detr import DetrSize, SparseDetr  # noqa: E402

SMALL = DetrSize(width=32, heads=4, points=2, encoder_layers=3, decoder_layers=2, feed_forward=24, queries=7)
CLASSES = 5
CANVAS = (64, 96)


def small(*, two_stage: bool = True, share: float | None = 0.3) -> SparseDetr:
    """Every number off its start, where offsets, weights and boxes are constant."""
    torch.manual_seed(3)
    model = SparseDetr(
        ResNet(layers=(1, 1, 1, 1), width=8), classes=CLASSES, size=SMALL, two_stage=two_stage, share=share
    ).eval()
    with torch.no_grad():
        for item in model.parameters():
            item += 0.05 * torch.randn_like(item)
        for name, item in model.named_parameters():
            if "sampling_offsets.bias" in name:
                item *= 0.5  # so that more points lie on the small maps
    return model


def reference_of(model: SparseDetr):
    path = Path(__file__).with_name("detr_reference.py")
    specification = importlib.util.spec_from_file_location("detr_reference", path)
    module = importlib.util.module_from_spec(specification)
    sys.modules["detr_reference"] = module
    try:
        specification.loader.exec_module(module)
    finally:
        del sys.modules["detr_reference"]
    size = model.size
    return module.Reference(
        model.state_dict(),
        size.heads,
        size.points,
        size.encoder_layers,
        size.decoder_layers,
        size.queries,
        model.share,
        model.two_stage,
    )


@pytest.mark.parametrize(
    ("two_stage", "share"), [(False, None), (True, None), (True, 0.3)], ids=["deformable", "efficient", "sparse"]
)
def test_two_pictures_of_different_sizes(two_stage: bool, share: float | None) -> None:
    model = small(two_stage=two_stage, share=share)
    insides = (CANVAS, (44, 71))
    pictures = torch.randn(2, 3, *CANVAS)
    padding = torch.ones(2, *CANVAS, dtype=torch.bool)
    for index, (rows, columns) in enumerate(insides):
        padding[index, :rows, :columns] = False
    with torch.no_grad():
        got = model(pictures, padding, all_heads=True)
        features = model.backbone[0](pictures)
    for index, inside in enumerate(insides):
        wanted = reference_of(model).run([level[index] for level in features], *CANVAS, inside)
        assert got.shapes == wanted["shapes"]
        assert torch.equal(got.padding[index], wanted["padding"])
        if share is not None:
            valid = ~wanted["padding"]
            torch.testing.assert_close(got.scores[index][valid], wanted["scores"][valid], rtol=1e-4, atol=1e-5)
            assert got.kept[index] == len(wanted["chosen"]) == int(int(valid.sum()) * share) + 1
            assert len(got.encoder) == len(wanted["encoder"]) == SMALL.encoder_layers - 1
            for ours, (logits, boxes) in zip(got.encoder, wanted["encoder"], strict=True):
                count = len(wanted["chosen"])
                torch.testing.assert_close(ours.logits[index, :count], logits, rtol=1e-4, atol=1e-4)
                torch.testing.assert_close(ours.boxes[index, :count], boxes, rtol=1e-4, atol=1e-5)
        if two_stage:
            logits, boxes = wanted["proposals"]
            torch.testing.assert_close(got.proposals.logits[index], logits, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(got.proposals.boxes[index], boxes, rtol=1e-4, atol=1e-5)
        assert len(got.decoder) == SMALL.decoder_layers
        for ours, (logits, boxes) in zip(got.decoder, wanted["decoder"], strict=True):
            torch.testing.assert_close(ours.logits[index], logits, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(ours.boxes[index], boxes, rtol=1e-4, atol=1e-5)


def test_a_batch_is_its_pictures() -> None:
    model = small()
    pictures = torch.randn(3, 3, *CANVAS)
    with torch.no_grad():
        together = model(pictures).decoder[-1]
        for index in range(3):
            alone = model(pictures[index : index + 1]).decoder[-1]
            torch.testing.assert_close(together.logits[index], alone.logits[0], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(together.boxes[index], alone.boxes[0], rtol=1e-4, atol=1e-5)


def test_only_the_last_head_is_asked_outside_training() -> None:
    model = small()
    with torch.no_grad():
        result = model(torch.randn(1, 3, *CANVAS))
    assert len(result.decoder) == 1
    assert result.encoder == ()
    assert result.attention is None


def test_a_mask_takes_tokens_away() -> None:
    model = small(share=0.5)
    pictures = torch.randn(2, 3, *CANVAS)
    with torch.no_grad():
        free = model(pictures)
        tokens = free.padding.shape[1]
        everywhere = model(pictures, allowed=torch.ones(2, tokens, dtype=torch.bool))
        torch.testing.assert_close(everywhere.decoder[-1].boxes, free.decoder[-1].boxes)
        allowed = torch.zeros(2, tokens, dtype=torch.bool)
        allowed[0, :10] = True
        masked = model(pictures, allowed=allowed)
    assert masked.kept.tolist() == [10, 0]
    assert torch.isfinite(masked.decoder[-1].boxes).all()
    assert not torch.allclose(masked.decoder[-1].boxes[0], free.decoder[-1].boxes[0])


def test_what_the_decoder_looked_at_is_for_the_losses() -> None:
    model = small().train()
    pictures = torch.randn(2, 3, *CANVAS)
    result = model(pictures)
    sizes = (2, SMALL.decoder_layers, SMALL.queries, SMALL.heads, SMALL.levels, SMALL.points)
    assert result.attention.locations.shape == (*sizes, 2)
    assert result.attention.weights.shape == sizes
    torch.testing.assert_close(result.attention.weights.sum((-1, -2)), torch.ones(sizes[:4]))
    assert not result.attention.locations.requires_grad
    sum(head.boxes.sum() + head.logits.sum() for head in result.decoder).backward()
    assert model.transformer.enc_mask_predictor.layer1[1].weight.grad is None, "scores only learn from their labels"
    assert model.transformer.encoder.layers[0].self_attn.sampling_offsets.weight.grad.abs().sum() > 0


COUNTS = {
    "deformable-detr-r50": (40_069_665, 39_847_265, 172.932),
    "deformable-detr-plus-r50": (41_049_689, 40_827_289, 177.331),
    "sparse-detr-r50": (41_937_205, 41_714_805, 111.189),
    "deformable-detr-swin-t": (40_612_699, 40_308_613, None),
    "deformable-detr-plus-swin-t": (None, 41_288_637, 184.797),
}
"""All parameters, those that train, and GFLOPs at 850x1040."""

ASKED_TWICE = 6 * 300 * (2 * 256 * 256 + 256 * 4)
"""What the published code computes twice and this one once: the decoder's box heads, where boxes are refined."""


def build(name: str) -> SparseDetr:
    with torch.device("meta"):
        return NETWORKS[name].build().eval()


def gflops(model: SparseDetr) -> float:
    pictures = torch.empty(1, 3, 850, 1040, device="meta")
    counts = count_flops(model, lambda: model(pictures, all_heads=True))
    return (sum(counts.values()) + ASKED_TWICE * model.two_stage) / 1e9


@pytest.mark.parametrize("name", COUNTS)
def test_published_counts(name: str) -> None:
    every, trainable, flops = COUNTS[name]
    model = build(name)
    count = sum(item.numel() for item in model.parameters())
    assert every is None or count == every
    assert sum(item.numel() for item in model.parameters() if item.requires_grad) == trainable
    assert flops is None or gflops(model) == pytest.approx(flops, abs=0.002)


@pytest.mark.parametrize(("heads", "low", "high"), [(False, 109.748, 141.227), (True, 111.189, 148.433)])
def test_flops_grow_with_the_share_as_published(heads: bool, low: float, high: float) -> None:
    for share, wanted in ((0.1, low), (0.5, high)):
        with torch.device("meta"):
            model = SparseDetr(ResNet(), share=share, encoder_heads=heads).eval()
        assert gflops(model) == pytest.approx(wanted, abs=0.002)


def test_published_names() -> None:
    names = []
    names += [f"backbone.0.body.bn1.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    names.append("backbone.0.body.conv1.weight")
    for layer, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            inside = f"backbone.0.body.layer{layer}.{block}"
            norms = [f"{inside}.bn{index}" for index in (1, 2, 3)] + [f"{inside}.downsample.1"] * (block == 0)
            convolutions = [f"{inside}.conv{index}" for index in (1, 2, 3)] + [f"{inside}.downsample.0"] * (block == 0)
            names += [f"{norm}.{part}" for norm in norms for part in ("weight", "bias", "running_mean", "running_var")]
            names += [f"{convolution}.weight" for convolution in convolutions]

    def with_bias(*modules: str) -> list[str]:
        return [f"{module}.{part}" for module in modules for part in ("weight", "bias")]

    names += with_bias(*(f"input_proj.{level}.{part}" for level in range(4) for part in (0, 1)))
    names.append("transformer.level_embed")
    names += with_bias(*(f"transformer.enc_mask_predictor.{part}" for part in ("layer1.0", "layer1.1")))
    names += with_bias(*(f"transformer.enc_mask_predictor.layer2.{part}" for part in (0, 2, 4)))
    first_stage = ("enc_output", "enc_output_norm", "pos_trans", "pos_trans_norm")
    names += with_bias(*(f"transformer.{part}" for part in first_stage))
    attention = ("sampling_offsets", "attention_weights", "value_proj", "output_proj")
    for layer in range(6):
        encoder, decoder = f"transformer.encoder.layers.{layer}", f"transformer.decoder.layers.{layer}"
        names += with_bias(*(f"{encoder}.self_attn.{part}" for part in attention))
        names += with_bias(*(f"{encoder}.{part}" for part in ("norm1", "linear1", "linear2", "norm2")))
        names += with_bias(*(f"{decoder}.cross_attn.{part}" for part in attention))
        names += [f"{decoder}.self_attn.in_proj_{part}" for part in ("weight", "bias")]
        names += with_bias(f"{decoder}.self_attn.out_proj")
        names += with_bias(*(f"{decoder}.{part}" for part in ("norm1", "norm2", "norm3", "linear1", "linear2")))
    for prefix, count in (("", 12), ("transformer.decoder.", 12), ("transformer.encoder.", 5)):
        names += with_bias(*(f"{prefix}class_embed.{index}" for index in range(count)))
        names += with_bias(
            *(f"{prefix}bbox_embed.{index}.layers.{layer}" for index in range(count) for layer in range(3))
        )
    state = build("sparse-detr-r50").state_dict()
    assert len(names) == 760
    assert sorted(names) == sorted(state)


def test_aliases_are_the_same_tensors() -> None:
    model = small()
    state = model.state_dict()
    first = SMALL.decoder_layers + 1
    for index in range(SMALL.encoder_layers - 1):
        ours, alias = f"class_embed.{first + index}.weight", f"transformer.encoder.class_embed.{index}.weight"
        assert state[ours].data_ptr() == state[alias].data_ptr()
    other = small()
    with torch.no_grad():
        for item in other.parameters():
            item.zero_()
    other.load_state_dict(state, strict=True)
    pictures = torch.randn(1, 3, *CANVAS)
    with torch.no_grad():
        assert torch.equal(model(pictures).decoder[-1].boxes, other(pictures).decoder[-1].boxes)


@pytest.mark.parametrize("share", [0.0, 1.5, -0.1])
def test_a_share_that_is_none(share: float) -> None:
    with pytest.raises(ValueError, match="expected a share above 0 to 1"):
        SparseDetr(ResNet(layers=(1, 1, 1, 1), width=8), size=SMALL, share=share)

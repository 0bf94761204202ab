"""TCL's networks: published counts and names, and each part against its formula."""

from __future__ import annotations

from types import ModuleType

import pytest

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")

from torch import nn  # noqa: E402

from edgekit.errors import UsageError  # noqa: E402
from edgekit.models.tcl.clip import resize_positions, to_map  # noqa: E402
from edgekit.models.tcl.model import TCL, Temperature  # noqa: E402
from edgekit.models.tcl.spec import VARIANTS, TclSpec, find_variant  # noqa: E402


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_published_counts() -> None:
    with torch.device("meta"):
        model = TCL(VARIANTS["tcl-vit-b16"])
    assert count(model.clip_text_encoder) == 63_428_096
    assert count(model.clip_image_encoder) == 86_192_640
    assert count(model.masker) == 28_725_510
    encoder = model.masker.image_encoder
    assert count(encoder.backbone) == 7_087_872
    assert count(encoder.decoder.get_submodule("decoder")) == 21_242_884
    assert count(encoder.decoder.get_submodule("image_proj")) == 394_752
    model.phase("decoder")
    assert sum(value.numel() for _, value in model.learning()) == 21_637_640
    model.phase("masker")
    assert sum(value.numel() for _, value in model.learning()) == 28_725_512


def test_the_published_names() -> None:
    with torch.device("meta"):
        names = set(TCL(VARIANTS["tcl-vit-b16"]).state_dict())
    assert {
        "clip_text_encoder.token_embedding.weight",
        "clip_image_encoder.clip_proj.ln.weight",
        "clip_image_encoder.clip_proj.proj",
        "clip_image_encoder.clip_visual.transformer.resblocks.11.attn.in_proj_weight",
        "masker.image_encoder.backbone.transformer.resblocks.11.mlp.c_fc.weight",
        "masker.image_encoder.decoder.decoder.net.0.conv.norm.weight",
        "masker.image_encoder.decoder.decoder.net.1.conv2.conv.bias",
        "masker.image_encoder.decoder.decoder.net.1.conv2.gate.gate",
        "masker.image_encoder.decoder.image_proj.proj",
        "masker.sim2mask.w",
        "masker.sim2mask.b",
        "tcli_loss.logit_scale",
        "tclf_loss.logit_scale",
    } <= names


def test_what_starts_where() -> None:
    with torch.device("meta"):
        model = TCL(VARIANTS["tcl-vit-b16"])
    small = TCL(VARIANTS["tcl-mobilenetv2"])
    assert (small.masker.sim2mask.w.item(), small.masker.sim2mask.b.item()) == (10.0, -2.5)
    gates = [value for name, value in small.named_parameters() if name.endswith("gate.gate")]
    assert [gate.item() for gate in gates] == [0.0] * 4
    assert len([name for name, _ in model.named_parameters() if name.endswith("gate.gate")]) == 4


def test_local_attention_is_attention_under_a_diagonal_mask(tiny_tcl: ModuleType) -> None:
    model = tiny_tcl.shaken(tiny_tcl.vit_spec())
    block = model.clip_image_encoder.clip_visual.transformer.resblocks[-1]
    attention = nn.MultiheadAttention(48, 3, batch_first=True)
    attention.load_state_dict(block.attn.state_dict())
    tokens = torch.randn(2, 17, 48)
    mask = torch.full((17, 17), float("-inf")).fill_diagonal_(0.0)
    torch.testing.assert_close(block.attn.local(tokens), attention(tokens, tokens, tokens, attn_mask=mask)[0])
    torch.testing.assert_close(block.attn(tokens, causal=False), attention(tokens, tokens, tokens)[0])


def cubic(distance: float, a: float = -0.75) -> float:
    x = abs(distance)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


@pytest.mark.parametrize(("rows", "columns"), [(4, 4), (3, 7), (6, 5), (1, 8)])
def test_position_embeddings_for_any_grid(rows: int, columns: int) -> None:
    grid, channels = 4, 3
    embedding = torch.randn(1 + grid * grid, channels)
    found = resize_positions(embedding, rows, columns)
    assert found.shape == (1 + rows * columns, channels)
    assert torch.equal(found[0], embedding[0])
    plane = embedding[1:].reshape(grid, grid, channels)
    for y in range(rows):
        for x in range(columns):
            at_y, at_x = (y + 0.5) * grid / rows - 0.5, (x + 0.5) * grid / columns - 0.5
            wanted = torch.zeros(channels)
            for v in range(int(at_y // 1) - 1, int(at_y // 1) + 3):
                for u in range(int(at_x // 1) - 1, int(at_x // 1) + 3):
                    weight = cubic(at_y - v) * cubic(at_x - u)
                    wanted += weight * plane[min(max(v, 0), grid - 1), min(max(u, 0), grid - 1)]
            torch.testing.assert_close(found[1 + y * columns + x], wanted, atol=1e-5, rtol=1e-5)


def test_a_map_has_the_patches_in_their_places() -> None:
    tokens = torch.arange(7).reshape(1, 7, 1).float()
    assert to_map(tokens, 2, 3).tolist() == [[[[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]]]


def test_pictures_of_a_batch_do_not_mix(tiny_tcl: ModuleType) -> None:
    for spec, context in ((tiny_tcl.vit_spec(), 12), (tiny_tcl.mobile_spec(), 16)):
        model = tiny_tcl.shaken(spec)
        pictures = model.normalise(torch.rand(2, 3, 32, 48) * 255)
        cells, texts = model.cells(pictures), torch.randn(3, spec.embedding)
        together = model.clip_image_encoder.features(pictures)
        alone = model.clip_image_encoder.features(pictures[1:])
        torch.testing.assert_close(
            model.masker(together, *cells, texts).soft[1:],
            model.masker(alone, *cells, texts).soft,
            atol=1e-5,
            rtol=1e-4,
        )
        torch.testing.assert_close(
            model.clip_image_encoder.pooled(together)[1:], model.clip_image_encoder.pooled(alone), atol=1e-5, rtol=1e-4
        )
        assert context == spec.text.context


def test_masks_are_a_quarter_of_the_picture(tiny_tcl: ModuleType) -> None:
    model = tiny_tcl.shaken(tiny_tcl.mobile_spec())
    pictures = torch.rand(1, 3, 64, 96) * 255
    masks = model.masker(model.clip_image_encoder.features(pictures), *model.cells(pictures), torch.randn(2, 16))
    assert masks.soft.shape == masks.hard.shape == (1, 2, 16, 24)
    assert set(masks.hard.detach().round(decimals=4).unique().tolist()) <= {0.0, 1.0}


def test_at_first_the_masker_says_what_the_encoder_says(tiny_tcl: ModuleType) -> None:
    for spec in (tiny_tcl.vit_spec(), tiny_tcl.mobile_spec()):
        torch.manual_seed(0)
        model = TCL(spec).eval()
        pictures = model.normalise(torch.rand(1, 3, 32, 32) * 255)
        features, cells = model.clip_image_encoder.features(pictures), model.cells(pictures)
        enlarged = model.clip_image_encoder.dense(features, *cells).repeat_interleave(4, 2).repeat_interleave(4, 3)
        torch.testing.assert_close(model.masker.image_encoder(features, *cells), enlarged)


def test_a_masker_takes_over_what_its_encoder_has_learnt(tiny_tcl: ModuleType) -> None:
    for spec in (tiny_tcl.vit_spec(), tiny_tcl.mobile_spec()):
        model = TCL(spec)
        with torch.no_grad():
            for parameter in model.clip_image_encoder.parameters():
                parameter.add_(0.1)
        model.masker.start_from(model.clip_image_encoder)
        pictures = torch.rand(1, 3, 32, 32)
        features, cells = model.clip_image_encoder.features(pictures), model.cells(pictures)
        enlarged = model.clip_image_encoder.dense(features, *cells).repeat_interleave(4, 2).repeat_interleave(4, 3)
        torch.testing.assert_close(model.masker.image_encoder(features, *cells), enlarged)


def test_similarities_are_scaled_by_a_hundred_at_most() -> None:
    temperature = Temperature()
    assert temperature(torch.tensor(0.07)).item() == pytest.approx(1.0)
    with torch.no_grad():
        temperature.logit_scale.fill_(10.0)
    assert temperature(torch.tensor(1.0)).item() == 100.0


def test_specs_survive_json() -> None:
    for spec in VARIANTS.values():
        assert TclSpec.from_json(spec.to_json()) == spec
    with pytest.raises(ValueError, match="image encoder is of an unknown kind, 'resnet'"):
        TclSpec.from_json({**VARIANTS["tcl-vit-b16"].to_json(), "image": {"kind": "resnet"}})


def test_a_misspelt_variant_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'tcl-vit-b16'"):
        find_variant("tcl-vitb16")

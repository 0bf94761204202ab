"""CLIP checkpoints, written here with OpenAI's names: every weight arrives, and nothing passes unnoticed."""

from __future__ import annotations

import warnings
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")

from torch import Tensor, nn  # noqa: E402

from edgekit.errors import CheckpointError  # noqa: E402
from edgekit.models.tcl.clip_weights import load_clip, read_clip  # noqa: E402
from edgekit.models.tcl.model import TCL  # noqa: E402


def openai_clip(*, dtype: torch.dtype = torch.float16) -> dict[str, Tensor]:
    """The state_dict of a CLIP of the miniature's sizes, spelt out as OpenAI's ViT checkpoints have it."""
    generator = torch.Generator().manual_seed(5)

    def some(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    def blocks(prefix: str, width: int, layers: int) -> dict[str, Tensor]:
        return {
            f"{prefix}transformer.resblocks.{layer}.{name}": value
            for layer in range(layers)
            for name, value in {
                "attn.in_proj_weight": some(3 * width, width),
                "attn.in_proj_bias": some(3 * width),
                "attn.out_proj.weight": some(width, width),
                "attn.out_proj.bias": some(width),
                "ln_1.weight": some(width),
                "ln_1.bias": some(width),
                "mlp.c_fc.weight": some(4 * width, width),
                "mlp.c_fc.bias": some(4 * width),
                "mlp.c_proj.weight": some(width, 4 * width),
                "mlp.c_proj.bias": some(width),
                "ln_2.weight": some(width),
                "ln_2.bias": some(width),
            }.items()
        }

    return {
        "positional_embedding": some(12, 32),
        "text_projection": some(32, 24),
        "logit_scale": some(),
        "visual.class_embedding": some(48),
        "visual.positional_embedding": some(17, 48),
        "visual.proj": some(48, 24),
        "visual.conv1.weight": some(48, 3, 8, 8),
        "visual.ln_pre.weight": some(48),
        "visual.ln_pre.bias": some(48),
        **blocks("visual.", 48, 3),
        "visual.ln_post.weight": some(48),
        "visual.ln_post.bias": some(48),
        **blocks("", 32, 2),
        "token_embedding.weight": some(64, 32),
        "ln_final.weight": some(32),
        "ln_final.bias": some(32),
        "input_resolution": torch.tensor(32),
        "context_length": torch.tensor(12),
        "vocab_size": torch.tensor(64),
    }


def save(path: Path, document: object) -> Path:
    torch.save(document, path)
    return path


@pytest.fixture
def model(tiny_tcl: ModuleType) -> TCL:
    return TCL(tiny_tcl.vit_spec())


def test_every_weight_arrives(model: TCL, tmp_path: Path) -> None:
    weights = openai_clip()
    load_clip(model, save(tmp_path / "clip.pt", weights))
    state = model.state_dict()
    pairs = {
        "clip_text_encoder.text_projection": "text_projection",
        "clip_text_encoder.transformer.resblocks.1.mlp.c_proj.bias": "transformer.resblocks.1.mlp.c_proj.bias",
        "clip_image_encoder.clip_proj.proj": "visual.proj",
        "clip_image_encoder.clip_proj.ln.weight": "visual.ln_post.weight",
        "clip_image_encoder.clip_visual.conv1.weight": "visual.conv1.weight",
        "masker.image_encoder.backbone.transformer.resblocks.2.ln_2.bias": "visual.transformer.resblocks.2.ln_2.bias",
        "masker.image_encoder.decoder.image_proj.proj": "visual.proj",
    }
    for ours, theirs in pairs.items():
        assert torch.equal(state[ours], weights[theirs].float()), ours
    used = len(state) - sum(not name.startswith("clip_") for name in state)
    assert used == len(weights) - 4  # the temperature and three sizes


def test_open_clip_wraps_the_same(model: TCL, tmp_path: Path, tiny_tcl: ModuleType) -> None:
    weights = openai_clip(dtype=torch.float32)
    wrapped = {
        f"module.{name if name.startswith('visual.') or name == 'logit_scale' else 'text.' + name}": value
        for name, value in weights.items()
        if name not in ("input_resolution", "context_length", "vocab_size")
    }
    load_clip(
        model,
        save(tmp_path / "open.pt", {"epoch": 3, "state_dict": wrapped | {"module.text.attn_mask": torch.ones(2)}}),
    )
    other = TCL(tiny_tcl.vit_spec())
    load_clip(other, save(tmp_path / "plain.pt", weights))
    mine, theirs = model.state_dict(), other.state_dict()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine if name.startswith("clip_"))


def test_torchscript_archives_are_read(tmp_path: Path) -> None:
    class Holder(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            return values

    holder = Holder()
    holder.visual = nn.Module()
    holder.visual.class_embedding = nn.Parameter(torch.ones(3).half())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(holder, torch.zeros(1)).save(str(tmp_path / "jit.pt"))
    weights = read_clip(tmp_path / "jit.pt")
    assert list(weights) == ["visual.class_embedding"]
    assert weights["visual.class_embedding"].dtype == torch.float32


def test_a_broken_archive_is_refused(tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "jit.pt", "w") as archive:
        archive.writestr("clip/constants.pkl", b"nothing")
    with pytest.raises(CheckpointError, match=r"jit.pt cannot be read as a TorchScript archive"):
        read_clip(tmp_path / "jit.pt")


def test_what_is_missing_is_named(model: TCL, tmp_path: Path) -> None:
    weights = openai_clip()
    del weights["ln_final.bias"]
    weights["visual.extra"] = torch.ones(1)
    path = save(tmp_path / "clip.pt", weights)
    with pytest.raises(
        CheckpointError, match=r"does not fit the text encoder: of its weights, 1 missing \(ln_final.bias\)"
    ):
        load_clip(model, path)
    weights["ln_final.bias"] = torch.ones(32)
    with pytest.raises(CheckpointError, match=r"image encoder: of its weights, 1 unknown \(clip_visual.extra\)"):
        load_clip(model, save(path, weights))


def test_another_size_is_named(model: TCL, tmp_path: Path) -> None:
    path = save(tmp_path / "clip.pt", openai_clip() | {"text_projection": torch.ones(32, 25)})
    with pytest.raises(
        CheckpointError, match=r"text_projection of the text encoder should be \[32, 24\], got \[32, 25\]"
    ):
        load_clip(model, path)


def test_nan_is_refused(model: TCL, tmp_path: Path) -> None:
    path = save(tmp_path / "clip.pt", openai_clip() | {"visual.proj": torch.full((48, 24), float("nan"))})
    with pytest.raises(CheckpointError, match=r"clip_proj.proj of the image encoder holds NaN"):
        load_clip(model, path)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"visual.layer1.0.conv1.weight": torch.ones(1)}, "no CLIP checkpoint with a vision transformer"),
        ({"state_dict": {"a": 1}}, "holds no CLIP: expected names and tensors"),
        ([1, 2], "holds no CLIP: expected names and tensors"),
    ],
)
def test_other_files_are_refused(document: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_clip(save(tmp_path / "other.pt", document))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none.pt does not exist"):
        read_clip(tmp_path / "none.pt")


def test_the_small_model_cannot_take_clip(tiny_tcl: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no vision transformer that .* could fill"):
        load_clip(TCL(tiny_tcl.mobile_spec()), tmp_path / "clip.pt")

"""TCL's losses once more, in float64, from the paper's formulas: pair by pair, with PyTorch's own attention.

Nothing of ``edgekit`` is used but the weights by their names.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

Weights = Mapping[str, Tensor]


def under(weights: Weights, prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}


def norm(values: Tensor, weights: Weights) -> Tensor:
    mean = values.mean(-1, keepdim=True)
    variance = ((values - mean) ** 2).mean(-1, keepdim=True)
    return (values - mean) / torch.sqrt(variance + 1e-5) * weights["weight"] + weights["bias"]


def block(tokens: Tensor, weights: Weights, *, heads: int, mask: Tensor | None) -> Tensor:
    """[L, C] of one picture or text."""
    attention = nn.MultiheadAttention(tokens.shape[-1], heads).double()
    attention.load_state_dict(under(weights, "attn."))
    inner = norm(tokens, under(weights, "ln_1."))[:, None]
    tokens = tokens + attention(inner, inner, inner, attn_mask=mask, need_weights=False)[0][:, 0]
    hidden = norm(tokens, under(weights, "ln_2.")) @ weights["mlp.c_fc.weight"].T + weights["mlp.c_fc.bias"]
    hidden = hidden * torch.sigmoid(1.702 * hidden)
    return tokens + hidden @ weights["mlp.c_proj.weight"].T + weights["mlp.c_proj.bias"]


def diagonal(count: int) -> Tensor:
    return torch.full((count, count), float("-inf"), dtype=torch.float64).fill_diagonal_(0.0)


def text_embedding(tokens: Tensor, weights: Weights, *, heads: int, layers: int) -> Tensor:
    end = int(tokens.argmax())
    mask = torch.full((len(tokens), len(tokens)), float("-inf"), dtype=torch.float64).triu(1)
    values = weights["token_embedding.weight"][tokens] + weights["positional_embedding"]
    for layer in range(layers):
        values = block(values, under(weights, f"transformer.resblocks.{layer}."), heads=heads, mask=mask)
    return norm(values, under(weights, "ln_final."))[end] @ weights["text_projection"]


def before_last(picture: Tensor, weights: Weights, *, heads: int, layers: int) -> Tensor:
    """[3, H, W] normalised -> [1 + h * w, C]."""
    kernel = weights["conv1.weight"]
    patch = kernel.shape[-1]
    rows = [
        torch.einsum("cyx,ocyx->o", picture[:, y : y + patch, x : x + patch], kernel)
        for y in range(0, picture.shape[1], patch)
        for x in range(0, picture.shape[2], patch)
    ]
    tokens = torch.stack([weights["class_embedding"], *rows]) + weights["positional_embedding"]
    tokens = norm(tokens, under(weights, "ln_pre."))
    for layer in range(layers - 1):
        tokens = block(tokens, under(weights, f"transformer.resblocks.{layer}."), heads=heads, mask=None)
    return tokens


def project(values: Tensor, weights: Weights) -> Tensor:
    return norm(values, under(weights, "ln.")) @ weights["proj"]


def conv3x3(features: Tensor, weights: Weights) -> Tensor:
    """[C, h, w], zeros around."""
    padded = np.pad(features.numpy(), ((0, 0), (1, 1), (1, 1)))
    height, width = features.shape[1:]
    output = weights["bias"].numpy()[:, None, None].repeat(height, 1).repeat(width, 2)
    for dy in range(3):
        for dx in range(3):
            part = padded[:, dy : dy + height, dx : dx + width]
            output = output + np.einsum("oc,chw->ohw", weights["weight"].numpy()[:, :, dy, dx], part)
    return torch.from_numpy(output)


def gated(features: Tensor, weights: Weights) -> Tensor:
    inner = norm(features.permute(1, 2, 0), under(weights, "norm.")).permute(2, 0, 1)
    inner = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
    return torch.tanh(weights["gate.gate"]) * conv3x3(inner, under(weights, "conv."))


def unit(values: Tensor) -> Tensor:
    return values / max(float(values.norm()), 1e-6)


@torch.no_grad()
def reference_losses(
    weights: Weights, pictures: Tensor, tokens: Tensor, noise: Tensor, *, heads: int, text_heads: int, layers: int,
    text_layers: int,
) -> dict[str, float]:  # fmt: skip
    """Unweighted losses of normalised ``pictures`` [B, 3, H, W]; ``noise`` [B, B, h, w]."""
    weights = {name: value.detach().double() for name, value in weights.items()}
    pictures, noise, count = pictures.double(), noise.double(), len(pictures)
    visual = under(weights, "clip_image_encoder.clip_visual.")
    decoder = under(weights, "masker.image_encoder.decoder.decoder.net.")
    kernel = visual["conv1.weight"].shape[-1]
    rows, columns = pictures.shape[2] // kernel, pictures.shape[3] // kernel
    texts = [
        text_embedding(row, under(weights, "clip_text_encoder."), heads=text_heads, layers=text_layers)
        for row in tokens
    ]
    maps = []
    for picture in pictures:
        inner = before_last(picture, visual, heads=heads, layers=layers)
        own = under(weights, f"masker.image_encoder.backbone.transformer.resblocks.{layers - 1}.")
        features = block(inner, own, heads=heads, mask=diagonal(len(inner)))[1:].T.reshape(-1, rows, columns)
        for step in range(2):
            features = features.repeat_interleave(2, 1).repeat_interleave(2, 2)
            features = features + gated(features, under(decoder, f"{step}.conv."))
            features = features + gated(features, under(decoder, f"{step}.conv2."))
        projected = project(features.permute(1, 2, 0), under(weights, "masker.image_encoder.decoder.image_proj."))
        maps.append(projected.permute(2, 0, 1))
    w, b = weights["masker.sim2mask.w"], weights["masker.sim2mask.b"]
    height, width = maps[0].shape[1:]
    soft = torch.zeros(count, count, height, width, dtype=torch.float64)
    hard = torch.zeros_like(soft)
    pooled: dict[tuple[int, int], Tensor] = {}
    for i in range(count):
        for j in range(count):
            for y in range(height):
                for x in range(width):
                    logit = w * (unit(maps[i][:, y, x]) @ unit(texts[j])) + b
                    soft[i, j, y, x] = 1 / (1 + torch.exp(-logit))
                    hard[i, j, y, x] = float(logit + noise[i, j, y, x] > 0)
            pooled[i, j] = (maps[i] * soft[i, j]).sum((1, 2)) / (soft[i, j].sum() + 1e-6)
    masked = []
    for i in range(count):
        scale = pictures.shape[2] // height
        enlarged = hard[i, i].repeat_interleave(scale, 0).repeat_interleave(scale, 1)
        inner = before_last(pictures[i] * enlarged, visual, heads=heads, layers=layers)
        last = under(visual, f"transformer.resblocks.{layers - 1}.")
        masked.append(
            project(block(inner, last, heads=heads, mask=None)[0], under(weights, "clip_image_encoder.clip_proj."))
        )

    def contrast(similarity: Tensor, scale: Tensor) -> float:
        values = similarity * min(float(scale.exp()), 100.0)
        rows_ = [torch.logsumexp(values[i], 0) - values[i, i] for i in range(count)]
        columns_ = [torch.logsumexp(values[:, i], 0) - values[i, i] for i in range(count)]
        return float((sum(rows_) + sum(columns_)) / (2 * count))

    by_picture = torch.stack(
        [torch.stack([unit(masked[i]) @ unit(texts[j]) for j in range(count)]) for i in range(count)]
    )
    by_mask = torch.stack(
        [torch.stack([unit(pooled[i, j]) @ unit(texts[j]) for j in range(count)]) for i in range(count)]
    )

    def variation(values: Tensor) -> float:
        across = [abs(float(d)) for d in (values[..., 1:] - values[..., :-1]).flatten()]
        down = [abs(float(d)) for d in (values[..., 1:, :] - values[..., :-1, :]).flatten()]
        return sum(across) / len(across) + sum(down) / len(down)

    wrong = [float(soft[i, j].mean()) for i in range(count) for j in range(count) if i != j]
    return {
        "tcl_v": contrast(by_picture, weights["tcli_loss.logit_scale"]),
        "tcl_f": contrast(by_mask, weights["tclf_loss.logit_scale"]),
        "area": abs(float(torch.stack([soft[i, i].mean() for i in range(count)]).mean()) - 0.4),
        "negative_area": sum(wrong) / len(wrong),
        "smooth_map": variation(torch.stack(maps)),
        "smooth_masks": variation(soft),
    }

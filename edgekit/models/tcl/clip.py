"""CLIP's two transformers (arXiv 2103.00020, section 2.4), with the names of OpenAI's weights.

The image transformer gives what TCL needs apart: the tokens before its last block, and that block over them in two
ways. As trained, the class token looks at everything and becomes the picture's embedding. *Local*, every token looks at
itself alone (the attention matrix is the identity, arXiv 2112.01071), which leaves what each patch is about.

B pictures, N texts, L tokens, C channels, D embedding, H x W a picture's size, h x w that of the grid of patches.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.backbone import IMAGENET_MEAN, IMAGENET_STD
from edgekit.models.tcl.spec import TextSpec, VitSpec


class Activation(nn.Module):
    """GELU, or the sigmoid that OpenAI trained with in its place."""

    def __init__(self, *, quick: bool) -> None:
        super().__init__()
        self.quick = quick

    def forward(self, values: Tensor) -> Tensor:
        """Any shape -> the same."""
        return values * torch.sigmoid(1.702 * values) if self.quick else F.gelu(values)


class Attention(nn.Module):
    """Multi-head self-attention with the names of ``nn.MultiheadAttention``."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.normal_(self.in_proj_weight, std=width**-0.5)

    def forward(self, tokens: Tensor, *, causal: bool) -> Tensor:
        """[B, L, C] -> the same shape; ``causal``: no token looks at a later one."""
        batch, count, width = tokens.shape
        joint = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        query, key, value = joint.reshape(batch, count, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=causal)  # [B, heads, L, C / heads]
        output: Tensor = self.out_proj(mixed.transpose(1, 2).reshape(batch, count, width))
        return output

    def local(self, tokens: Tensor) -> Tensor:
        """[B, L, C] -> the same shape, each token attending to itself alone: its value, projected."""
        width = tokens.shape[-1]
        value = F.linear(tokens, self.in_proj_weight[2 * width :], self.in_proj_bias[2 * width :])
        output: Tensor = self.out_proj(value)
        return output


class Block(nn.Module):
    """Attention and an MLP, each after a LayerNorm and added to its input."""

    def __init__(self, width: int, heads: int, *, quick_gelu: bool) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", Activation(quick=quick_gelu))
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, tokens: Tensor, *, causal: bool = False) -> Tensor:
        """[B, L, C] -> the same shape."""
        return self._mlp(tokens + self.attn(self.ln_1(tokens), causal=causal))

    def local(self, tokens: Tensor) -> Tensor:
        """[B, L, C] -> the same shape; nothing passes between tokens."""
        return self._mlp(tokens + self.attn.local(self.ln_1(tokens)))

    def _mlp(self, tokens: Tensor) -> Tensor:
        output: Tensor = tokens + self.mlp(self.ln_2(tokens))
        return output


class Transformer(nn.Module):
    """Blocks in a row, under the name of OpenAI's weights."""

    def __init__(self, width: int, layers: int, heads: int, *, quick_gelu: bool) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width, heads, quick_gelu=quick_gelu) for _ in range(layers))
        for name, parameter in self.named_parameters():
            # As CLIP starts, and no biases: they are the same for every text, and louder than its few tokens.
            if name.endswith((".attn.out_proj.weight", ".mlp.c_proj.weight")):
                nn.init.normal_(parameter, std=(2 * layers * width) ** -0.5)
            elif name.endswith(".mlp.c_fc.weight"):
                nn.init.normal_(parameter, std=(2 * width) ** -0.5)
            elif name.endswith(".bias") and ".ln_" not in name:
                nn.init.zeros_(parameter)


class TextEncoder(nn.Module):
    """Rows of tokens to embeddings: 63,428,096 parameters in CLIP ViT-B/16."""

    def __init__(self, spec: TextSpec, embedding: int, *, quick_gelu: bool) -> None:
        super().__init__()
        self.spec = spec
        self.token_embedding = nn.Embedding(spec.vocabulary, spec.width)
        self.positional_embedding = nn.Parameter(torch.empty(spec.context, spec.width))
        self.transformer = Transformer(spec.width, spec.layers, spec.heads, quick_gelu=quick_gelu)
        self.ln_final = nn.LayerNorm(spec.width)
        self.text_projection = nn.Parameter(torch.empty(spec.width, embedding))
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        nn.init.normal_(self.positional_embedding, std=0.01)
        nn.init.normal_(self.text_projection, std=spec.width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """[N, context] from ``Tokenizer.rows`` -> [N, D], not normalised: what stands at the end token."""
        values = self.token_embedding(tokens) + self.positional_embedding
        for block in self.transformer.resblocks:
            values = block(values, causal=True)
        ends = tokens.argmax(dim=-1)  # the end token has the highest number
        output: Tensor = self.ln_final(values[torch.arange(len(tokens)), ends]) @ self.text_projection
        return output


class Projection(nn.Module):
    """LayerNorm, then C -> D without a bias, of vectors or maps."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(channels)
        self.proj = nn.Parameter(torch.empty(channels, embedding))
        nn.init.normal_(self.proj, std=channels**-0.5)

    def forward(self, features: Tensor) -> Tensor:
        """[B, C] -> [B, D]; [B, C, h, w] -> [B, D, h, w]."""
        if features.ndim == 2:
            output: Tensor = self.ln(features) @ self.proj
            return output
        cells: Tensor = self.ln(features.permute(0, 2, 3, 1)) @ self.proj
        return cells.permute(0, 3, 1, 2)


class VisionTransformer(nn.Module):
    """Patches to tokens, without the final norm and projection, which TCL needs apart."""

    def __init__(self, spec: VitSpec, *, quick_gelu: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, spec.width, spec.patch, spec.patch, bias=False)
        scale = spec.width**-0.5
        self.class_embedding = nn.Parameter(scale * torch.randn(spec.width))
        self.positional_embedding = nn.Parameter(scale * torch.randn(spec.grid**2 + 1, spec.width))
        self.ln_pre = nn.LayerNorm(spec.width)
        self.transformer = Transformer(spec.width, spec.layers, spec.heads, quick_gelu=quick_gelu)

    def forward(self, pictures: Tensor) -> Tensor:
        """[B, 3, H, W] -> the tokens before the last block [B, 1 + h * w, C], the class token first."""
        patches = self.conv1(pictures)
        rows, columns = patches.shape[-2:]
        tokens = patches.flatten(2).transpose(1, 2)  # [B, h * w, C]
        first = self.class_embedding.expand(len(tokens), 1, -1)
        values = torch.cat([first, tokens], dim=1) + resize_positions(self.positional_embedding, rows, columns)
        values = self.ln_pre(values)
        for block in self.transformer.resblocks[:-1]:
            values = block(values)
        output: Tensor = values
        return output


def resize_positions(embedding: Tensor, rows: int, columns: int) -> Tensor:
    """Position embeddings [1 + G * G, C] for a grid of G x G patches -> [1 + rows * columns, C], bicubic."""
    grid = round((len(embedding) - 1) ** 0.5)
    if (rows, columns) == (grid, grid):
        return embedding
    plane = embedding[1:].T.reshape(1, -1, grid, grid)
    resized = F.interpolate(plane, size=(rows, columns), mode="bicubic", align_corners=False)
    return torch.cat([embedding[:1], resized[0].flatten(1).T])


class ClipImageEncoder(nn.Module):
    """CLIP's image side: 86,192,640 parameters in ViT-B/16. TCL normalises by ImageNet's mean, not by CLIP's."""

    pixel_mean, pixel_std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, spec: VitSpec, embedding: int, *, quick_gelu: bool) -> None:
        super().__init__()
        self.stride, self.channels = spec.patch, spec.width
        self.clip_proj = Projection(spec.width, embedding)
        self.clip_visual = VisionTransformer(spec, quick_gelu=quick_gelu)

    def features(self, pictures: Tensor) -> Tensor:
        """[B, 3, H, W] normalised, sides multiples of the patch -> the tokens before the last block."""
        output: Tensor = self.clip_visual(pictures)
        return output

    def pooled(self, features: Tensor) -> Tensor:
        """``features`` -> [B, D], the picture's embedding."""
        # Only the class token's row of the last block is used; the others are a small part of the whole.
        output: Tensor = self.clip_proj(self.clip_visual.transformer.resblocks[-1](features)[:, 0])
        return output

    def dense(self, features: Tensor, rows: int, columns: int) -> Tensor:
        """``features`` of a picture of ``rows`` x ``columns`` patches -> what each is about, [B, D, h, w]."""
        block = self.clip_visual.transformer.resblocks[-1]
        assert isinstance(block, Block)
        output: Tensor = self.clip_proj(to_map(block.local(features), rows, columns))
        return output


def to_map(tokens: Tensor, rows: int, columns: int) -> Tensor:
    """[B, 1 + h * w, C] -> [B, C, h, w]: the class token is dropped."""
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, rows, columns)

"""Swin-T (arXiv 2103.14030, sections 3.1 and 3.2) without its classifier: Sparse DETR's second backbone.

As published for detection: maps of any size are padded by zeros at the bottom and at the right, the padding takes part
in attention, and a LayerNorm of its own follows each map that is put out. Names of layers are the published weights'.
B batch, H x W a map's size, C channels, N windows of M x M tokens, T = M * M.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.backbone import EVERYWHERE, IMAGENET_MEAN, IMAGENET_STD
from edgekit.models.masking import MaskPyramid

MASKED = -100.0
"""Added to the score of a pair that must not attend. Finite, as published: it survives half precision and int8."""


class WindowAttention(nn.Module):
    """Multi-head self-attention inside each window, with a learned bias a relative position (equation 4)."""

    relative_position_index: Tensor

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.register_buffer("relative_position_index", relative_positions(window))

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """[B, N, T, C] -> the same shape.

        Args:
            tokens: row by row of each window.
            mask: [N, T, T], added to the scores of a query (second axis) for a key (third); ``None`` is all zeros.
        """
        batch, windows, count, channels = tokens.shape
        parts = self.qkv(tokens).reshape(batch, windows, count, 3, self.heads, channels // self.heads)
        query, key, value = parts.permute(3, 0, 1, 4, 2, 5)  # each [B, N, heads, T, C / heads]
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)  # [heads, T, T]
        scores = (query * (channels // self.heads) ** -0.5) @ key.transpose(-2, -1) + bias
        if mask is not None:
            scores = scores + mask[:, None]
        mixed = scores.softmax(dim=-1) @ value
        output: Tensor = self.proj(mixed.transpose(2, 3).reshape(batch, windows, count, channels))
        return output


def relative_positions(window: int) -> Tensor:
    """[T, T] rows of the bias table: (dy + M - 1) * (2M - 1) + dx + M - 1, a query's position less its key's."""
    place = torch.arange(window)
    y, x = place.repeat_interleave(window), place.repeat(window)
    dy, dx = y[:, None] - y, x[:, None] - x
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1


class DropPath(nn.Module):
    """In training, a picture's residual is left out with probability ``rate`` (stochastic depth, 1603.09382)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, residual: Tensor) -> Tensor:
        """[B, ...] -> the same shape; what is kept is scaled so that the mean stays."""
        if not self.training or self.rate == 0:
            return residual
        kept = torch.rand(len(residual), device=residual.device) >= self.rate
        scale = kept.to(residual.dtype) / (1 - self.rate)
        return residual * scale.reshape(-1, *[1] * (residual.ndim - 1))


class MLP(nn.Module):
    """Two layers around a GELU, the inner one four times as wide."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, tokens: Tensor) -> Tensor:
        """[..., C] -> the same shape."""
        output: Tensor = self.fc2(F.gelu(self.fc1(tokens)))
        return output


class Block(nn.Module):
    """Attention in windows, displaced by ``shift`` tokens down and to the right, then the MLP (equation 3)."""

    def __init__(self, channels: int, heads: int, window: int, shift: int, drop_path: float) -> None:
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(channels)
        self.attn = WindowAttention(channels, heads, window)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP(channels)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """[B, H, W, C] -> the same shape; ``mask`` is ``wrap_mask``'s, which only displaced windows need."""
        features = features + self.drop_path(self._attend(self.norm1(features), mask))
        output: Tensor = features + self.drop_path(self.mlp(self.norm2(features)))
        return output

    def _attend(self, features: Tensor, mask: Tensor) -> Tensor:
        rows, columns = features.shape[1:3]
        padded = pad_to_multiple(features, self.window)
        # Displacing the windows is moving the map under them; what leaves at the top left enters at the bottom right.
        moved = padded.roll((-self.shift, -self.shift), dims=(1, 2)) if self.shift else padded
        attended = self.attn(to_windows(moved, self.window), mask if self.shift else None)
        moved = from_windows(attended, self.window, rows=padded.shape[1], columns=padded.shape[2])
        padded = moved.roll((self.shift, self.shift), dims=(1, 2)) if self.shift else moved
        return padded[:, :rows, :columns]


def pad_to_multiple(features: Tensor, side: int) -> Tensor:
    """[B, H, W, C] with zeros at the bottom and at the right, up to multiples of ``side``."""
    rows, columns = features.shape[1:3]
    return F.pad(features, (0, 0, 0, -columns % side, 0, -rows % side))


def to_windows(features: Tensor, side: int) -> Tensor:
    """[B, H, W, C], multiples of ``side``, -> windows row by row [B, N, side * side, C]."""
    batch, rows, columns, channels = features.shape
    cut = features.reshape(batch, rows // side, side, columns // side, side, channels)
    return cut.transpose(2, 3).reshape(batch, -1, side * side, channels)


def from_windows(windows: Tensor, side: int, *, rows: int, columns: int) -> Tensor:
    """The map [B, rows, columns, C] that ``to_windows`` cut."""
    batch, channels = windows.shape[0], windows.shape[-1]
    cut = windows.reshape(batch, rows // side, columns // side, side, side, channels)
    return cut.transpose(2, 3).reshape(batch, rows, columns, channels)


def wrap_mask(features: Tensor, side: int, shift: int) -> Tensor:
    """Keep what a displaced window wrapped around the map's edge apart (figure 4), for a map [B, H, W, C].

    Returns:
        [N, side * side, side * side] of zero and ``MASKED``, for the map padded to multiples of ``side`` and moved.
    """
    rows, columns = (size + -size % side for size in features.shape[1:3])
    wrapped_row = torch.arange(rows, device=features.device) >= rows - shift
    wrapped_column = torch.arange(columns, device=features.device) >= columns - shift
    region = 2 * wrapped_row[:, None].long() + wrapped_column.long()
    region = to_windows(region[None, :, :, None], side).squeeze(0).squeeze(-1)  # [N, T]
    apart = region[:, :, None] != region[:, None, :]
    return apart.to(features.dtype) * MASKED


class PatchMerging(nn.Module):
    """Four neighbours side by side, normalised and reduced from 4C to 2C channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * channels)
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, ceil(H/2), ceil(W/2), 2C]."""
        even = pad_to_multiple(features, 2)
        # The published weights expect the neighbours column by column: top left, bottom left, top right, bottom right.
        four = [even[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        output: Tensor = self.reduction(self.norm(torch.cat(four, dim=-1)))
        return output


class Stage(nn.Module):
    """Blocks at one resolution, every other one displaced by half a window, and the way to the next resolution."""

    def __init__(self, channels: int, heads: int, window: int, drop_paths: list[float], *, last: bool) -> None:
        super().__init__()
        self.window, self.shift = window, window // 2
        self.blocks = nn.ModuleList(
            Block(channels, heads, window, self.shift * (index % 2), rate) for index, rate in enumerate(drop_paths)
        )
        self.downsample = None if last else PatchMerging(channels)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """[B, H, W, C] -> the same shape, and what the next stage reads; the last stage gives its map twice."""
        mask = wrap_mask(features, self.window, self.shift)
        for block in self.blocks:
            features = block(features, mask)
        return features, features if self.downsample is None else self.downsample(features)


class PatchEmbed(nn.Module):
    """A token for each 4x4 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 4, stride=4)
        self.norm = nn.LayerNorm(channels)

    def forward(self, pictures: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, ceil(H/4), ceil(W/4), C]."""
        rows, columns = pictures.shape[-2:]
        padded = F.pad(pictures, (0, -columns % 4, 0, -rows % 4))
        tokens: Tensor = self.norm(self.proj(padded).permute(0, 2, 3, 1))
        return tokens


class SwinTransformer(nn.Module):
    """Swin-T's trunk, 27,520,506 parameters; as the backbone of a detector it has no classifier and no last norm.

    Args:
        channels: of the finest map, of stride 4, which is not put out; each stage doubles them.
        depths: blocks at each of the strides 4, 8, 16 and 32.
        heads: of each stage's attention.
        window: side of a window in tokens.
        drop_path: rate of the last block's residuals; those of the blocks before rise to it from zero (Sparse DETR).
    """

    pixel_mean, pixel_std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(
        self,
        channels: int = 96,
        depths: tuple[int, int, int, int] = (2, 2, 6, 2),
        heads: tuple[int, int, int, int] = (3, 6, 12, 24),
        window: int = 7,
        drop_path: float = 0.2,
    ) -> None:
        super().__init__()
        widths = [channels * 2**index for index in range(4)]
        self.channels: tuple[int, ...] = tuple(widths[1:])
        self.patch_embed = PatchEmbed(channels)
        blocks = sum(depths)
        rates = iter([drop_path * index / max(blocks - 1, 1) for index in range(blocks)])
        self.layers = nn.ModuleList(
            Stage(width, count, window, [next(rates) for _ in range(depth)], last=index == 3)
            for index, (width, count, depth) in enumerate(zip(widths, heads, depths, strict=True))
        )
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(width) for width in self.channels)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, pictures: Tensor, pyramid: MaskPyramid = EVERYWHERE) -> list[Tensor]:
        """[B, 3, H, W], normalised by ImageNet's mean and deviation -> maps of the strides 8, 16 and 32.

        Map k is [B, channels[k], ceil(H/s), ceil(W/s)] for its stride s. Only what is put out is masked: windows span
        cells of the mask, so inside none of them could be left out.
        """
        features = self.patch_embed(pictures)
        maps = []
        for stage, norm in zip(self.layers, (None, self.norm1, self.norm2, self.norm3), strict=True):
            output, features = stage(features)
            if norm is not None:
                maps.append(pyramid.apply(norm(output).permute(0, 3, 1, 2).contiguous()))
        return maps

    def stages(self) -> list[nn.Module]:
        """The tokens of patches and the four stages."""
        return [self.patch_embed, *self.layers]

    def freeze_stem(self) -> None:
        """No gradients for the tokens and the first stage, merging included, and no dropping there: as Sparse DETR."""
        for part in (self.patch_embed, self.layers[0]):
            part.requires_grad_(False)
            for module in part.modules():
                if isinstance(module, DropPath):
                    module.rate = 0.0

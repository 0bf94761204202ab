"""The image side of a TCL model as a graph of one fixed size, in operations that every engine has.

It computes what the model does, up to the order of sums, with three things rewritten:

* What happens in each cell alone (norm, GELU) happens before a cell becomes four alike: the same, for a quarter of it.
* The gates' factors are in the weights of the convolutions that they follow, and projections are 1x1 convolutions.
* A vision transformer's tokens are rows [L, C] without a batch, and its position embeddings a constant of that size.

C channels, D embedding, H x W the input, h x w the map, L tokens.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.tcl.clip import Block, ClipImageEncoder, Projection, VisionTransformer, resize_positions
from edgekit.models.tcl.decoder import GatedConvolution, GroundingDecoder, UpBlock
from edgekit.models.tcl.masker import LastBlock, LastLayer
from edgekit.models.tcl.mobile import MobileImageEncoder
from edgekit.models.tcl.model import TCL


class ImageGraph(nn.Module):
    """A picture to what each of its cells is about."""

    def __init__(self, model: TCL, *, height: int, width: int, known: bool) -> None:
        """Copy what is needed of ``model``, which is not changed.

        Args:
            model: the whole.
            height: of the input in pixels, a multiple of the stride.
            width: likewise.
            known: also give the frozen encoder's own map.
        """
        super().__init__()
        encoder, masker = model.clip_image_encoder, model.masker.image_encoder
        decoder, projection = masker.decoder.get_submodule("decoder"), masker.decoder.get_submodule("image_proj")
        assert isinstance(decoder, GroundingDecoder)
        assert isinstance(projection, Projection)
        self.encoder: StaticVit | StaticMobile
        if isinstance(encoder, MobileImageEncoder):
            assert isinstance(masker.backbone, LastLayer)
            self.encoder = StaticMobile(encoder, masker.backbone, known=known)
        else:
            assert isinstance(masker.backbone, LastBlock)
            rows, columns = height // model.stride, width // model.stride
            self.encoder = StaticVit(encoder, masker.backbone, rows=rows, columns=columns, known=known)
        self.ups = nn.ModuleList(StaticUp(block) for block in decoder.net if isinstance(block, UpBlock))
        self.projection = CellProjection(projection)
        self.known = CellProjection(encoder.clip_proj) if known else None
        self.eval()

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """[1, 3, H, W] normalised -> [1, D, h, w], and where asked for the encoder's map [1, D, H/s, W/s]."""
        features, seen = self.encoder(image)
        for up in self.ups:
            features = up(features)
        embedding: Tensor = self.projection(features)
        if self.known is None:
            return embedding
        return embedding, self.known(seen)


class CellNorm(nn.Module):
    """LayerNorm over the channels of each cell."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(norm.normalized_shape, eps=norm.eps)
        self.norm.load_state_dict(norm.state_dict())

    def forward(self, features: Tensor) -> Tensor:
        """[1, C, h, w] -> the same shape."""
        output: Tensor = self.norm(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return output


class CellProjection(nn.Module):
    """LayerNorm, then C -> D, of each cell."""

    def __init__(self, projection: Projection) -> None:
        super().__init__()
        self.norm = CellNorm(projection.ln)
        channels, embedding = projection.proj.shape
        self.conv = nn.Conv2d(channels, embedding, 1, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(projection.proj.T[:, :, None, None])

    def forward(self, features: Tensor) -> Tensor:
        """[1, C, h, w] -> [1, D, h, w]."""
        output: Tensor = self.conv(self.norm(features))
        return output


class StaticUp(nn.Module):
    """An ``UpBlock``."""

    def __init__(self, block: UpBlock) -> None:
        super().__init__()
        self.norm1, self.conv1 = CellNorm(block.conv.norm), gated(block.conv)
        self.norm2, self.conv2 = CellNorm(block.conv2.norm), gated(block.conv2)

    def forward(self, features: Tensor) -> Tensor:
        """[1, C, h, w] -> [1, C, 2h, 2w]."""
        large = enlarge(features) + self.conv1(enlarge(F.gelu(self.norm1(features))))
        output: Tensor = large + self.conv2(F.gelu(self.norm2(large)))
        return output


def enlarge(features: Tensor) -> Tensor:
    """Each cell becomes four alike."""
    return F.interpolate(features, scale_factor=2.0, mode="nearest")


def gated(part: GatedConvolution) -> nn.Module:
    """A copy of the convolution of ``part``, with its gate's factor in the last weights."""
    conv = copy.deepcopy(part.conv)
    last = conv[-1] if isinstance(conv, nn.Sequential) else conv
    assert isinstance(last, nn.Conv2d)
    with torch.no_grad():
        factor = torch.tanh(part.gate.gate)
        last.weight.mul_(factor)
        if last.bias is not None:
            last.bias.mul_(factor)
    return conv


class StaticMobile(nn.Module):
    """MobileNetV2 and the masker's last layer; the encoder's own where its map is asked for."""

    def __init__(self, encoder: MobileImageEncoder, last: LastLayer, *, known: bool) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        self.neck = copy.deepcopy(last.neck)
        self.known = known

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """[1, 3, H, W] -> two maps [1, C, h, w]: the masker's and the encoder's."""
        features = self.encoder.features(image)
        refined: Tensor = self.neck(features)
        return refined, self.encoder.neck(features) if self.known else refined


class StaticVit(nn.Module):
    """CLIP's vision transformer for ``rows`` x ``columns`` patches; the masker's last block, and its own."""

    positions: Tensor
    first: Tensor

    def __init__(self, encoder: ClipImageEncoder, last: LastBlock, *, rows: int, columns: int, known: bool) -> None:
        super().__init__()
        visual = encoder.clip_visual
        assert isinstance(visual, VisionTransformer)
        self.rows, self.columns, self.known = rows, columns, known
        self.patches = copy.deepcopy(visual.conv1)
        with torch.no_grad():
            positions = resize_positions(visual.positional_embedding, rows, columns)
            self.register_buffer("positions", positions[1:].clone())
            self.register_buffer("first", (visual.class_embedding + positions[0])[None].clone())
        self.norm = copy.deepcopy(visual.ln_pre)
        blocks = [block for block in visual.transformer.resblocks if isinstance(block, Block)]
        self.blocks = nn.ModuleList(StaticBlock(block) for block in blocks[:-1])
        (refining,) = (module for module in last.modules() if isinstance(module, Block))
        self.refining = copy.deepcopy(refining)
        self.last = copy.deepcopy(blocks[-1])

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """[1, 3, H, W] -> two maps [1, C, h, w]: the masker's and the encoder's."""
        cells = self.patches(image).permute(0, 2, 3, 1).reshape(self.rows * self.columns, -1)  # [h * w, C]
        tokens = self.norm(torch.cat([self.first, cells + self.positions]))  # [L, C]
        for block in self.blocks:
            tokens = block(tokens)
        cells = tokens[1:]  # nothing passes between tokens any more
        refined = self._map(self.refining.local(cells))
        return refined, self._map(self.last.local(cells)) if self.known else refined

    def _map(self, cells: Tensor) -> Tensor:
        return cells.reshape(1, self.rows, self.columns, cells.shape[-1]).permute(0, 3, 1, 2)


class StaticBlock(nn.Module):
    """A block of the transformer, on rows of tokens."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        attention = block.attn
        self.block = copy.deepcopy(block)
        self.heads = attention.heads
        width = attention.in_proj_weight.shape[1]
        parts = (nn.Linear(width, width) for _ in range(3))
        self.query, self.key, self.value = parts
        scale = (width // attention.heads) ** -0.5
        with torch.no_grad():
            for index, part in enumerate((self.query, self.key, self.value)):
                factor = scale if index == 0 else 1.0
                rows = slice(index * width, (index + 1) * width)
                part.weight.copy_(attention.in_proj_weight[rows] * factor)
                part.bias.copy_(attention.in_proj_bias[rows] * factor)

    def forward(self, tokens: Tensor) -> Tensor:
        """[L, C] -> the same shape."""
        known = self.block.ln_1(tokens)
        query, key, value = (
            part(known).reshape(len(tokens), self.heads, -1) for part in (self.query, self.key, self.value)
        )  # [L, heads, C / heads]
        weights = (query.permute(1, 0, 2) @ key.permute(1, 2, 0)).softmax(dim=-1)  # [heads, L, L]
        mixed = (weights @ value.permute(1, 0, 2)).permute(1, 0, 2).reshape(tokens.shape)
        tokens = tokens + self.block.attn.out_proj(mixed)
        output: Tensor = tokens + self.block.mlp(self.block.ln_2(tokens))
        return output

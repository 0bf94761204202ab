"""The attention of a DETR over maps of fixed sizes, in operations that every inference engine has.

``grid_sample`` becomes four gathers of rows, one for each corner, and a product of matrices each: TFLite has no
``grid_sample``, and the others are slower with theirs. One thread of an AVX2 core, 1783 tokens that look at maps of
800x1066, onnxruntime 49 ms instead of 72, OpenVINO 48 instead of 86; all 17,821 tokens, 585 and 811, 565 and 580.

Q queries, S tokens, everything without a batch. A "place" is one of heads x levels x points, in this order.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.models.deformable_attention import DeformableAttention, Shapes


class StaticAttention(nn.Module):
    """What ``DeformableAttention`` computes, over maps of known sizes and without padding."""

    columns: Tensor
    rows: Tensor
    first_row: Tensor
    row_step: Tensor
    step_right: Tensor
    step_down: Tensor

    def __init__(self, attention: DeformableAttention, shapes: Shapes) -> None:
        """``shapes``: rows and columns of each level; their products sum to S."""
        super().__init__()
        self.heads, self.points = attention.heads, attention.points
        self.across = _every_second_row(attention.sampling_offsets, first=0)
        self.down = _every_second_row(attention.sampling_offsets, first=1)
        self.attention_weights = attention.attention_weights
        self.value_proj, self.output_proj = attention.value_proj, attention.output_proj
        rows = torch.tensor([float(height) for height, _ in shapes])
        columns = torch.tensor([float(width) for _, width in shapes])
        starts = torch.cumsum(rows * columns, 0) - rows * columns
        self.smallest = int(torch.minimum(rows, columns).min())
        heads = torch.arange(self.heads, dtype=torch.float32).repeat_interleave(len(shapes) * self.points)
        # In the table of values, a row is one head of a token.
        self.register_buffer("columns", self._places(columns))
        self.register_buffer("rows", self._places(rows))
        # Integers, since float16 counts to 2048 only.
        self.register_buffer("first_row", (self._places(starts) * self.heads + heads).int())
        self.register_buffer("row_step", (self._places(columns) * self.heads).int())
        # A map of one column has no next one; what stands in for it counts nothing.
        self.register_buffer("step_right", (self._places((columns > 1).float()) * self.heads).int())
        self.register_buffer("step_down", (self._places(columns * (rows > 1)) * self.heads).int())

    def _places(self, levels: Tensor) -> Tensor:
        """A number for each level -> one for each place."""
        return levels.repeat_interleave(self.points).repeat(self.heads)

    def forward(self, queries: Tensor, references: Tensor, tokens: Tensor) -> Tensor:
        """Attend.

        Args:
            queries: [Q, width].
            references: [Q, 2] x, y, or [Q, 4] with width and height, 0..1 of the picture.
            tokens: [S, width], the levels one after the other, rows first.

        Returns:
            [Q, width].
        """
        count = queries.shape[0]
        looks = count * self.heads
        weights = self.attention_weights(queries).reshape(looks, -1).softmax(-1)
        table = self.value_proj(tokens).reshape(tokens.shape[0] * self.heads, -1)
        column, lefts = self._corners(self._cells(self.across(queries), references, 0, self.columns), self.columns)
        row, tops = self._corners(self._cells(self.down(queries), references, 1, self.rows), self.rows)
        near = row.int() * self.row_step + column.int() * self.heads + self.first_row
        attended = None
        for down, vertical in zip((None, self.step_down), tops, strict=True):
            for right, horizontal in zip((None, self.step_right), lefts, strict=True):
                corner = near
                for step in (down, right):
                    corner = corner if step is None else corner + step
                # [looks, 1, places of a head] x [looks, places of a head, channels of a head]
                shares = (vertical * horizontal).reshape(looks, -1) * weights
                seen = torch.matmul(shares[:, None], table[corner.reshape(looks, -1)])
                attended = seen if attended is None else attended + seen
        assert attended is not None
        result: Tensor = self.output_proj(attended.reshape(count, -1))
        return result

    def _cells(self, offsets: Tensor, references: Tensor, axis: int, size: Tensor) -> Tensor:
        """Where each place lies on its map [Q, places], in cells; the centre of the first cell is 0."""
        middle = references[:, axis : axis + 1] * size - 0.5
        if references.shape[1] == 2:
            return middle + offsets
        return middle + offsets * (references[:, axis + 2 : axis + 3] * (size * (0.5 / self.points)))

    def _corners(self, cells: Tensor, size: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The first of two neighbours on the map, and what each of the two counts, [Q, places] all.

        A cell counts one minus its distance, nothing beyond one. With neighbours moved onto the map that gives zeros
        outside without asking where outside is.
        """
        first = torch.minimum(cells.floor().relu(), (size - 2).relu())
        beyond = cells - first
        second_share = (1 - (beyond - 1).abs()).relu()
        if self.smallest < 2:
            second_share = second_share * (size > 1).float()
        return first, ((1 - beyond.abs()).relu(), second_share)


class StaticSelfAttention(nn.Module):
    """What ``nn.MultiheadAttention`` computes, for one picture and in evaluation."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        width, self.heads = attention.embed_dim, attention.num_heads
        self.queries, self.keys, self.values = (nn.Linear(width, width) for _ in range(3))
        for index, layer in enumerate((self.queries, self.keys, self.values)):
            part = slice(index * width, (index + 1) * width)
            scale = (width // self.heads) ** -0.5 if index == 0 else 1.0
            layer.weight = nn.Parameter(attention.in_proj_weight.detach()[part] * scale)
            layer.bias = nn.Parameter(attention.in_proj_bias.detach()[part] * scale)
        self.out_proj = attention.out_proj

    def forward(self, placed: Tensor, queries: Tensor) -> Tensor:
        """Queries with their positions [Q, width], and without -> [Q, width]."""
        asked, keys, values = self.queries(placed), self.keys(placed), self.values(queries)
        count = placed.shape[0]
        asked = asked.reshape(count, self.heads, -1).permute(1, 0, 2)
        keys = keys.reshape(count, self.heads, -1).permute(1, 2, 0)
        values = values.reshape(count, self.heads, -1).permute(1, 0, 2)
        seen = torch.matmul(torch.matmul(asked, keys).softmax(-1), values)
        result: Tensor = self.out_proj(seen.permute(1, 0, 2).reshape(count, -1))
        return result


def feed_forward(layer: nn.Module, tokens: Tensor) -> Tensor:
    """The network of two layers of an encoder's or decoder's ``layer``, without its residual: [Q, width] both."""
    hidden = F.relu(layer.get_submodule("linear1")(tokens))
    result: Tensor = layer.get_submodule("linear2")(hidden)
    return result


def _every_second_row(layer: nn.Linear, *, first: int) -> nn.Linear:
    """Offsets along one axis, of a layer that gives x and y in turns."""
    half = nn.Linear(layer.in_features, layer.out_features // 2)
    half.weight = nn.Parameter(layer.weight.detach()[first::2].clone())
    half.bias = nn.Parameter(layer.bias.detach()[first::2].clone())
    return half

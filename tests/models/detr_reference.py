"""Deformable and Sparse DETR once more, slowly: one picture, and loops over queries, heads, levels and points.

Written from the papers' definitions (arXiv 2010.04159, 2111.14330) and a state dict; shares nothing with edgekit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Reference:
    """The numbers of one network."""

    state: Mapping[str, Tensor]
    heads: int
    points: int
    encoder_layers: int
    decoder_layers: int
    queries: int
    share: float | None
    two_stage: bool

    def linear(self, name: str, x: Tensor) -> Tensor:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        variance = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / (variance + 1e-5).sqrt() * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def box_head(self, index: int, x: Tensor) -> Tensor:
        for layer in range(3):
            x = self.linear(f"bbox_embed.{index}.layers.{layer}", x)
            x = x.relu() if layer < 2 else x
        return x

    def attention(
        self, name: str, queries: Tensor, references: Tensor, tokens: Tensor, shapes: Any, padding: Tensor
    ) -> Tensor:
        values = self.linear(f"{name}.value_proj", tokens)
        values[padding] = 0
        depth = values.shape[1] // self.heads
        offsets = self.linear(f"{name}.sampling_offsets", queries)
        scores = self.linear(f"{name}.attention_weights", queries)
        result = torch.zeros(len(queries), values.shape[1])
        for q in range(len(queries)):
            for h in range(self.heads):
                per_head = len(shapes) * self.points
                weights = scores[q, h * per_head : (h + 1) * per_head].softmax(0)
                start = 0
                for level, (rows, columns) in enumerate(shapes):
                    for p in range(self.points):
                        at = ((h * len(shapes) + level) * self.points + p) * 2
                        dx, dy = offsets[q, at : at + 2].tolist()
                        x, y, *box = references[q, level].tolist()
                        if box:
                            x, y = x + dx / self.points * box[0] / 2, y + dy / self.points * box[1] / 2
                        else:
                            x, y = x + dx / columns, y + dy / rows
                        x, y = x * columns - 0.5, y * rows - 0.5
                        left, top = math.floor(x), math.floor(y)
                        for row in (top, top + 1):
                            for column in (left, left + 1):
                                if 0 <= row < rows and 0 <= column < columns:
                                    share = (1 - abs(x - column)) * (1 - abs(y - row))
                                    value = values[start + row * columns + column, h * depth : (h + 1) * depth]
                                    result[q, h * depth : (h + 1) * depth] += (
                                        weights[level * self.points + p] * share * value
                                    )
                    start += rows * columns
        return self.linear(f"{name}.output_proj", result)

    def among(self, name: str, queries: Tensor, values: Tensor) -> Tensor:
        """Self-attention of the decoder: queries and keys alike."""
        width = queries.shape[1]
        weight, bias = self.state[f"{name}.in_proj_weight"], self.state[f"{name}.in_proj_bias"]
        q, k = (queries @ weight[i * width : (i + 1) * width].T + bias[i * width : (i + 1) * width] for i in (0, 1))
        v = values @ weight[2 * width :].T + bias[2 * width :]
        depth = width // self.heads
        parts = []
        for h in range(self.heads):
            part = slice(h * depth, (h + 1) * depth)
            parts.append((q[:, part] @ k[:, part].T / math.sqrt(depth)).softmax(-1) @ v[:, part])
        return self.linear(f"{name}.out_proj", torch.cat(parts, dim=1))

    def feed_forward(self, name: str, last_norm: str, x: Tensor) -> Tensor:
        hidden = self.linear(f"{name}.linear1", x).relu()
        return self.norm(f"{name}.{last_norm}", x + self.linear(f"{name}.linear2", hidden))

    def maps(self, features: list[Tensor]) -> list[Tensor]:
        """[C, H, W] of each level."""
        result = []
        for index in range(4):
            weight, bias = self.state[f"input_proj.{index}.0.weight"], self.state[f"input_proj.{index}.0.bias"]
            source = features[min(index, 2)][None]
            x = F.conv2d(source, weight, bias) if index < 3 else F.conv2d(source, weight, bias, stride=2, padding=1)
            groups = x[0].reshape(32, -1)
            deviation = (groups.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt()
            groups = (groups - groups.mean(1, keepdim=True)) / deviation
            gain, shift = self.state[f"input_proj.{index}.1.weight"], self.state[f"input_proj.{index}.1.bias"]
            result.append(groups.reshape(x[0].shape) * gain[:, None, None] + shift[:, None, None])
        return result

    def run(self, features: list[Tensor], height: int, width: int, inside: tuple[int, int]) -> dict[str, Any]:
        """A picture of ``inside`` (rows, columns) pixels in the corner of a canvas."""
        maps = self.maps(features)
        shapes = [tuple(level.shape[1:]) for level in maps]
        channels = maps[0].shape[0]
        tokens, positions, paddings, centres, ratios, proposals, proposes = [], [], [], [], [], [], []
        for level, (rows, columns) in enumerate(shapes):
            # Which cells hold the picture: the nearest pixel decides, as in torch's nearest interpolation.
            cell_rows = sum(1 for r in range(rows) if math.floor(r * height / rows) < inside[0])
            cell_columns = sum(1 for c in range(columns) if math.floor(c * width / columns) < inside[1])
            ratios.append((cell_columns / columns, cell_rows / rows))
            for r in range(rows):
                for c in range(columns):
                    tokens.append(maps[level][:, r, c])
                    padded = r >= cell_rows or c >= cell_columns
                    paddings.append(padded)
                    code = []
                    for ordinal, count in ((r + 1, cell_rows), (c + 1, cell_columns)):  # in padding of no account
                        angle = (ordinal - 0.5) / (count + 1e-6) * 2 * math.pi
                        for i in range(channels // 2):
                            turned = angle / 10000 ** (2 * (i // 2) / (channels // 2))
                            code.append(math.cos(turned) if i % 2 else math.sin(turned))
                    positions.append(torch.tensor(code) + self.state["transformer.level_embed"][level])
                    x, y = (c + 0.5) / cell_columns, (r + 0.5) / cell_rows
                    centres.append((x, y))
                    box = (x, y, 0.05 * 2**level, 0.05 * 2**level)
                    good = not padded and all(0.01 < value < 0.99 for value in box)
                    proposes.append(good)
                    proposals.append([math.log(v / (1 - v)) if good else math.inf for v in box])
        token, position = torch.stack(tokens), torch.stack(positions)
        padding, ok = torch.tensor(paddings), torch.tensor(proposes)
        base = torch.tensor(proposals, dtype=torch.float32)
        references = torch.tensor([[(x * rx, y * ry) for rx, ry in ratios] for x, y in centres])
        result: dict[str, Any] = {"padding": padding, "shapes": tuple(shapes)}

        chosen = torch.arange(len(token))
        kept = len(token)
        if self.share is not None:
            seen = self.describe((token + position) * ok[:, None])
            result["scores"] = scores = self.score(seen)
            kept = int(int((~padding).sum()) * self.share) + 1
            order = sorted((i for i in range(len(token)) if not padding[i]), key=lambda i: -float(scores[i]))
            chosen = torch.tensor(order[:kept])
        result["chosen"] = chosen
        memory, refined, helpers = token.clone(), token[chosen], []
        for layer in range(self.encoder_layers):
            name = f"transformer.encoder.layers.{layer}"
            attended = self.attention(
                f"{name}.self_attn", refined + position[chosen], references[chosen], memory, shapes, padding
            )
            refined = self.norm(f"{name}.norm1", refined + attended)
            refined = self.feed_forward(name, "norm2", refined)
            memory = memory.clone()
            memory[chosen] = refined
            if self.share is not None and layer < self.encoder_layers - 1:
                head = self.decoder_layers + 1 + layer
                boxes = (self.box_head(head, refined) + base[chosen]).sigmoid()
                helpers.append((self.linear(f"class_embed.{head}", refined), boxes))
        result["encoder"] = helpers

        if self.two_stage:
            seen = self.describe(memory * ok[:, None])
            logits = self.linear(f"class_embed.{self.decoder_layers}", seen)
            moved = self.box_head(self.decoder_layers, seen) + base
            result["proposals"] = (logits, moved.sigmoid())
            best = sorted(range(len(token)), key=lambda i: -float(logits[i].max()))[: self.queries]
            boxes = moved[best].sigmoid()
            codes = []
            for box in boxes.tolist():
                code = []
                for value in box:
                    for i in range(channels // 2):
                        turned = value * 2 * math.pi / 10000 ** (2 * (i // 2) / (channels // 2))
                        code.append(math.cos(turned) if i % 2 else math.sin(turned))
                codes.append(code)
            placed = self.norm("transformer.pos_trans_norm", self.linear("transformer.pos_trans", torch.tensor(codes)))
            query = memory[best]
        else:
            placed, query = self.state["query_embed.weight"].split(channels, dim=1)
            boxes = self.linear("transformer.reference_points", placed).sigmoid()
        outputs = []
        for layer in range(self.decoder_layers):
            name = f"transformer.decoder.layers.{layer}"
            query = self.norm(f"{name}.norm2", query + self.among(f"{name}.self_attn", query + placed, query))
            scale = torch.tensor([[rx, ry] * (boxes.shape[1] // 2) for rx, ry in ratios])
            references = boxes[:, None] * scale
            looked = self.attention(f"{name}.cross_attn", query + placed, references, memory, shapes, padding)
            query = self.norm(f"{name}.norm1", query + looked)
            query = self.feed_forward(name, "norm3", query)
            moved = self.box_head(layer, query)
            inside_01 = boxes.clamp(1e-5, 1 - 1e-5)
            moved[:, : boxes.shape[1]] += (inside_01 / (1 - inside_01)).log()
            outputs.append((self.linear(f"class_embed.{layer}", query), moved.sigmoid()))
            if self.two_stage:
                boxes = moved.sigmoid()
        result["decoder"] = outputs
        return result

    def describe(self, x: Tensor) -> Tensor:
        return self.norm("transformer.enc_output_norm", self.linear("transformer.enc_output", x))

    def score(self, seen: Tensor) -> Tensor:
        name = "transformer.enc_mask_predictor"
        x = F.gelu(self.linear(f"{name}.layer1.1", self.norm(f"{name}.layer1.0", seen)))
        half = x.shape[1] // 2
        x = torch.cat([x[:, :half], x[:, half:].mean(0, keepdim=True).expand(len(x), -1)], dim=1)
        x = F.gelu(self.linear(f"{name}.layer2.0", x))
        x = F.gelu(self.linear(f"{name}.layer2.2", x))
        return self.linear(f"{name}.layer2.4", x)[:, 0]

"""Reading one ONNX node on its way into a sparse program: attributes, windows, factors, constants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import ExportError
from edgekit.exporters.onnx_graph import Graph, Node
from edgekit.sparse.limits import MAX_KERNEL, MAX_STRIDE

ANY = (object(),)
"""Every value of an attribute is handled, or it cannot matter."""

WINDOW = {"kernel_shape": ANY, "pads": ANY, "strides": ANY}

NEAREST = {
    "coordinate_transformation_mode": (b"asymmetric",),
    "cubic_coeff_a": ANY,
    "mode": (b"nearest",),
    "nearest_mode": (b"floor",),
}
"""Attributes of a Resize that repeats rows and columns."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """What a convolution or pool sees; how far it looks past the end follows from the size of its result."""

    kernel_rows: int
    kernel_columns: int
    stride: int
    pad_top: int
    pad_left: int

    @property
    def is_point(self) -> bool:
        """Whether each result depends on the same site of the input alone."""
        return (self.kernel_rows, self.kernel_columns, self.stride, self.pad_top, self.pad_left) == (1, 1, 1, 0, 0)


def refusal(node: Node, expected: str, got: object) -> ExportError:
    """The error of a node that a sparse program cannot express."""
    return ExportError(f"node {node.name!r} ({node.op}): expected {expected}, got {got}")


def check_attributes(node: Node, known: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse attributes that are not in ``known``, and values other than those that it lists."""
    for name, value in node.attributes.items():
        allowed = known.get(name, ())
        if allowed is not ANY and value not in allowed:
            raise refusal(node, f"{name} {' or '.join(map(str, allowed))}" if allowed else f"no {name}", value)


def read_window(node: Node, kernel: tuple[int, ...] | None = None) -> Window:
    """The window of a convolution (whose weights tell the ``kernel``) or pool."""
    rows, columns = node.attributes["kernel_shape"] if kernel is None else kernel
    down, right = node.attributes.get("strides", (1, 1))
    top, left, bottom, end = node.attributes.get("pads", (0, 0, 0, 0))
    if node.op == "AveragePool" and rows == columns == down == right and not top + left + bottom + end:
        return Window(kernel_rows=rows, kernel_columns=columns, stride=down, pad_top=0, pad_left=0)  # of any size
    if not (1 <= rows <= MAX_KERNEL and 1 <= columns <= MAX_KERNEL):
        raise refusal(node, f"a kernel of 1..{MAX_KERNEL} a side", f"{rows}x{columns}")
    if not (down == right and 1 <= down <= MAX_STRIDE):
        raise refusal(node, f"one stride of 1..{MAX_STRIDE}", f"{down} and {right}")
    if max(top, bottom) >= rows or max(left, end) >= columns:
        raise refusal(node, f"pads smaller than the kernel of {rows}x{columns}", [top, left, bottom, end])
    return Window(kernel_rows=rows, kernel_columns=columns, stride=down, pad_top=top, pad_left=left)


def sites(graph: Graph, tensor: str, node: Node) -> tuple[int, int]:
    """Rows and columns of a feature map that ``node`` reads or writes."""
    shape = graph.shapes.get(tensor, ())
    if len(shape) != 4:
        raise refusal(node, f"{tensor!r} to be a feature map [1, C, H, W]", list(shape))
    return shape[2], shape[3]


def read_factor(graph: Graph, node: Node) -> int:
    """How often a Resize repeats rows and columns."""
    check_attributes(node, NEAREST)
    (rows, columns), (more_rows, more_columns) = (sites(graph, name, node) for name in (node.inputs[0], node.output))
    channels = [graph.shapes[name][1] for name in (node.inputs[0], node.output)]
    factor = more_rows // rows
    if channels[0] != channels[1] or (more_rows, more_columns) != (rows * factor, columns * factor):
        raise refusal(
            node, "rows and columns to grow by one whole factor", f"{rows}x{columns} to {more_rows}x{more_columns}"
        )
    return factor


def constant_weights(graph: Graph, node: Node) -> NDArray[Any]:
    """The weights of a convolution, 4-D."""
    weights = graph.constants.get(node.inputs[1])
    if weights is None or weights.ndim != 4:
        shape = f"the tensor {node.inputs[1]!r}" if weights is None else list(weights.shape)
        raise refusal(node, "constant weights of 4 dimensions", shape)
    return weights


def constant_bias(graph: Graph, node: Node, channels: int) -> NDArray[np.float32]:
    """The bias [channels] of a convolution, zeros where it has none."""
    if len(node.inputs) < 3 or node.inputs[2] == "":
        return np.zeros(channels, np.float32)
    bias = graph.constants.get(node.inputs[2])
    if bias is None or bias.shape != (channels,):
        raise refusal(node, f"a constant bias [{channels}]", node.inputs[2] if bias is None else list(bias.shape))
    return bias.astype(np.float32)

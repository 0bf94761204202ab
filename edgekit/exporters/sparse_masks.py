"""Whether a graph computes the same when inactive sites are left out and read as zeros.

The dense graph computes them, and then its Mul nodes throw them away. What is computed before such a Mul may differ
outside the mask, so nothing that looks at other sites than its own may read it: a kernel larger than 1x1, a stride, a
pool. The same holds for what leaves the graph.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.errors import ExportError
from edgekit.exporters.onnx_graph import MASK_INPUT, Graph, Node
from edgekit.exporters.sparse_nodes import (
    ANY,
    WINDOW,
    check_attributes,
    constant_weights,
    read_factor,
    read_window,
    refusal,
    sites,
)
from edgekit.sparse.levels import Path, path_to_level

POINTWISE = frozenset({"Clip", "Relu", "Neg", "Transpose", "Reshape"})
"""0 stays 0, at each site."""

SUMS = frozenset({"Add", "Concat"})
"""0 where all inputs are."""

WINDOWED = frozenset({"Conv", "ConvTranspose", "MaxPool", "AveragePool", "Resize"})
"""What can lead to another resolution."""


def check_masks(graph: Graph) -> None:
    """Refuse a graph with a mask input whose result depends on what is computed outside the mask.

    Raises:
        ExportError: naming the node that would see it, or a mask that is not the pyramid's at its resolution.
    """
    if MASK_INPUT in graph.inputs:
        _Analysis(graph).check()


class _Analysis:
    """Goes through a graph and remembers which tensors are exactly zero at inactive sites."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._masks = _check_pyramid(graph)
        self._multiplied = graph.mask_multiplications()
        self._zero: set[str] = set()

    def check(self) -> None:
        for node in self._graph.nodes:
            if node.output in self._masks:
                continue
            if node.op in WINDOWED:
                self._path(node.output, node)  # refuses a resolution at which there is no mask
            if self._is_zero_outside(node):
                self._zero.add(node.output)
        for output in self._graph.outputs:
            if output not in self._zero:
                raise ExportError(
                    f"the output {output!r} is not multiplied by the mask, but a sparse program gives 0 at inactive"
                    " sites; multiply it by the mask at its resolution"
                )

    def _is_zero_outside(self, node: Node) -> bool:
        """Whether a node's result is zero at inactive sites; refuses one that needs its input to be, and it is not."""
        source = node.inputs[0] if node.inputs else ""
        if node.op == "Mul":
            return self._multiply(node)
        if node.op in SUMS:
            return all(tensor in self._zero for tensor in node.inputs)
        if node.op in POINTWISE:
            return source in self._zero
        if node.op == "Conv":
            if not read_window(node, constant_weights(self._graph, node).shape[2:]).is_point:
                self._need_zero(node)
        elif node.op == "ConvTranspose":
            self._need_zero(node)
        elif node.op in ("MaxPool", "AveragePool"):
            return self._pool(node)
        elif node.op == "Resize":
            return self._resize(node)
        return False

    def _multiply(self, node: Node) -> bool:
        feature = self._multiplied.get(node.name)
        if feature is None:
            return any(tensor in self._zero for tensor in node.inputs)
        mask = node.inputs[1] if node.inputs[0] == feature else node.inputs[0]
        expected = (1, 1, *sites(self._graph, feature, node))
        if self._graph.shapes[mask] != expected:
            raise refusal(node, f"a mask {list(expected)}", list(self._graph.shapes[mask]))
        return True

    def _pool(self, node: Node) -> bool:
        self._need_zero(node)
        window = read_window(node)
        within = window.kernel_rows == window.kernel_columns == window.stride and not window.pad_top + window.pad_left
        return within and self._path(node.inputs[0], node).same_cells(self._path(node.output, node), window.stride)

    def _resize(self, node: Node) -> bool:
        coarse, fine = (self._path(tensor, node) for tensor in (node.inputs[0], node.output))
        inside = fine.same_cells(coarse, read_factor(self._graph, node))
        if not inside:
            self._need_zero(node)
        return inside and fine.halvings == coarse.halvings and node.inputs[0] in self._zero

    def _need_zero(self, node: Node) -> None:
        if node.inputs[0] not in self._zero:
            raise ExportError(
                f"node {node.name!r} ({node.op}) reads {node.inputs[0]!r} at other sites than its own, but that is not"
                " multiplied by the mask: it would see what a sparse program does not compute.\n"
                "Multiply it by the mask at its resolution, as edgekit.models.masking does behind every convolution"
            )

    def _path(self, tensor: str, node: Node) -> Path:
        return _path(self._graph, *sites(self._graph, tensor, node), node)


def _check_pyramid(graph: Graph) -> frozenset[str]:
    """The mask and what is made of it, after a look whether that is ``edgekit.masks.pyramid`` at every resolution."""
    paths = {MASK_INPUT: Path(halvings=0, row_factor=1, column_factor=1)}
    if graph.shapes[MASK_INPUT][:2] != (1, 1) or len(graph.shapes[MASK_INPUT]) != 4:
        raise ExportError(
            f"the input {MASK_INPUT!r}: expected a mask [1, 1, rows, columns], got {list(graph.shapes[MASK_INPUT])}"
        )
    masks = graph.mask_tensors()
    for node in graph.nodes:
        if node.output in masks:
            paths[node.output] = _after(graph, node, paths)
            expected = _path(graph, *sites(graph, node.output, node), node)
            if paths[node.output] != expected:
                raise refusal(node, f"the mask of its resolution, {expected}", paths[node.output])
    return masks


def _after(graph: Graph, node: Node, paths: Mapping[str, Path]) -> Path:
    """Where the mask is after one more node."""
    before = paths[node.inputs[0]]
    if node.op == "Resize":
        factor = read_factor(graph, node)
        return Path(
            halvings=before.halvings,
            row_factor=before.row_factor * factor,
            column_factor=before.column_factor * factor,
        )
    check_attributes(
        node,
        {"auto_pad": (b"NOTSET",), "ceil_mode": ANY, "dilations": ([1, 1],), "storage_order": ANY} | WINDOW,
    )
    window = read_window(node)
    rows, columns = sites(graph, node.inputs[0], node)
    halved = (window.kernel_rows, window.kernel_columns, window.stride, window.pad_top, window.pad_left)
    size = sites(graph, node.output, node)
    whole = (min(2, rows), min(2, columns), 2, 0, 0)  # of one row there is nothing to take two of
    if halved not in ((2, 2, 2, 0, 0), whole) or size != ((rows + 1) // 2, (columns + 1) // 2):
        raise refusal(node, "a mask that is halved, rounding up", f"{rows}x{columns} to {size[0]}x{size[1]}")
    if (before.row_factor, before.column_factor) != (1, 1):
        raise refusal(node, "a mask that was not repeated before it is halved", node.inputs[0])
    return Path(halvings=before.halvings + 1, row_factor=1, column_factor=1)


def _path(graph: Graph, rows: int, columns: int, node: Node) -> Path:
    mask_rows, mask_columns = graph.shapes[MASK_INPUT][2:]
    path = path_to_level(mask_rows=mask_rows, mask_columns=mask_columns, rows=rows, columns=columns)
    if path is None:
        raise refusal(node, f"a resolution that a mask of {mask_rows}x{mask_columns} cells has", f"{rows}x{columns}")
    return path

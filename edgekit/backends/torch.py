"""A PyTorch model behind the engine protocol: what checkpoints run on, and what every export is compared with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from edgekit.backends import Engine, Tensors
from edgekit.backends.boundary import RUNNING, check_finite, translated
from edgekit.backends.joining import join

if TYPE_CHECKING:
    from torch import nn

    from edgekit.models.masked_detector import MaskedDetector


def load_pair(model: MaskedDetector, *, threads: int) -> tuple[Engine, Engine]:
    """The engines (omg, detector) of ``model``, which must be in evaluation mode and stays shared with the caller.

    But for the head of a two-stage detector, which is a copy as it is now. A DETR gives ``class_logits`` [1, Q, C] and
    ``boxes`` [1, Q, 4] (``edgekit.decoding.detr``).

    Raises:
        ValueError: ``model`` is in training mode, where batch norm would depend on the batch.
    """
    spec, both = model.spec, ("image", "mask")
    omg = TorchEngine(model.omg, "omg", inputs=("image",), outputs=("objectness",), threads=threads)
    if spec.kind == "one_stage":
        outputs = ("class_logits", "box_offsets")
        return omg, TorchEngine(model.detector, "detector", inputs=both, outputs=outputs, threads=threads)
    if spec.kind == "detr":
        from edgekit.models.masked_detr import DetrGraph

        graph = DetrGraph(model.detr, spec)
        return omg, TorchEngine(graph, "detector", inputs=both, outputs=("class_logits", "boxes"), threads=threads)
    from edgekit.models.pvanet import HeadSites, SharedRows
    from edgekit.models.pvanet_layers import fold

    network = model.two_stage
    shared = SharedRows(network).eval()
    head = HeadSites(fold(network.head)).eval()
    outputs_shared, outputs_head = ("rpn_logits", "rpn_deltas", "features"), ("roi_logits", "roi_deltas")
    parts = {
        "shared": TorchEngine(shared, "shared", inputs=both, outputs=outputs_shared, threads=threads),
        "head": TorchEngine(head, "head", inputs=both, outputs=outputs_head, threads=threads),
    }
    return omg, join(parts, spec)


class TorchEngine:
    """One module; it runs wherever its parameters are."""

    takes_pixels = False

    def __init__(
        self, module: nn.Module, graph: str, *, inputs: tuple[str, ...], outputs: tuple[str, ...], threads: int
    ) -> None:
        """Name the positional arguments of ``module`` (``inputs``) and the tensors it returns (``outputs``)."""
        import torch

        if module.training:
            raise ValueError(f"the {graph} module is in training mode; call .eval() on the model first")
        self._module = module
        self._graph = graph
        self._inputs, self._outputs = inputs, outputs
        self._threads = threads
        self._device = next(module.parameters()).device
        self.name = f"torch {torch.__version__} {self._device.type.upper()}"

    def run(self, inputs: Tensors) -> Tensors:
        """Run the module once, with ``threads`` CPU threads; the process's own number comes back afterwards."""
        import torch

        with (
            translated("torch", self._graph, RUNNING, (RuntimeError, ValueError, MemoryError)),
            _cpu_threads(self._threads),
            torch.inference_mode(),
        ):
            tensors = [torch.from_numpy(np.ascontiguousarray(inputs[name])).to(self._device) for name in self._inputs]
            result = self._module(*tensors)
            values = result if isinstance(result, tuple) else (result,)
            arrays = [value.float().cpu().numpy() for value in values]
        return check_finite("torch", self._graph, dict(zip(self._outputs, arrays, strict=True)))


@contextmanager
def _cpu_threads(threads: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    if before != threads:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if before != threads:
            torch.set_num_threads(before)

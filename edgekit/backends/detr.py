"""The graphs of a DETR as one detector: of its encoders each frame takes the smallest that its mask leaves room for.

Tokens outside the mask are never refined, so that an encoder of fewer tokens computes the same as the whole budget
would, and sooner.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgekit.backends import Engine, Tensors
from edgekit.backends.boundary import check_outputs
from edgekit.masks.statistics import refined_tokens
from edgekit.spec import DetectorSpec


class DetrEngine:
    """An engine for the graph ``detector`` of a spec with ``detr``: ``image`` and ``mask`` -> logits and boxes."""

    def __init__(self, graphs: Mapping[str, Engine], spec: DetectorSpec) -> None:
        """Join the loaded graphs of one detector, by their names in ``spec.graphs``."""
        assert spec.detr is not None
        self._backbone, self._decoder = graphs["backbone"], graphs["decoder"]
        self._encoders = [(count, graphs[name]) for name, count in spec.encoders.items()]
        self._spec = spec
        tokens = sum(rows * columns for rows, columns in spec.token_maps)
        queries = min(spec.detr.queries, tokens)
        self._tokens: dict[str, tuple[int | None, ...]] = {"tokens": (1, tokens, None)}
        self._found: dict[str, tuple[int | None, ...]] = {
            "class_logits": (1, queries, len(spec.classes)),
            "boxes": (1, queries, 4),
        }
        ours, theirs = self._backbone.name, self._decoder.name
        self.name = ours if ours == theirs else f"{ours} and {theirs}"
        self.takes_pixels = self._backbone.takes_pixels

    def run(self, inputs: Tensors) -> Tensors:
        """Run the three stages once.

        Raises:
            EngineError: one fails, gives NaN, or gives what does not fit the spec.
        """
        mask = inputs["mask"]
        levels = self._backbone.run({"image": inputs["image"], "mask": mask})
        wanted = refined_tokens(self._spec, mask[0, 0] > 0)
        encoder = next(graph for count, graph in self._encoders if count >= wanted)
        made = check_outputs(encoder.name, "the encoder", encoder.run({"mask": mask, **levels}), self._tokens)
        found = self._decoder.run({"mask": mask, "tokens": made["tokens"]})
        return check_outputs(self._decoder.name, "the decoder", found, self._found)

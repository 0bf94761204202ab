"""What a TCL model is built from: one frozen dataclass that travels inside its checkpoints. Needs no PyTorch."""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass
from typing import Any, Literal

from edgekit.errors import UsageError

CONTEXT = 77
"""Tokens that a CLIP text encoder reads, start and end included (arXiv 2103.00020, section 2.4 and its weights)."""

VOCABULARY = 49408
"""Tokens of CLIP's vocabulary: 256 bytes, the same at a word's end, 48,894 merges, start and end."""


@dataclass(frozen=True, kw_only=True)
class TextSpec:
    """The text encoder: a transformer that reads up to the end token (arXiv 2103.00020, section 2.4)."""

    width: int
    layers: int
    heads: int
    context: int = CONTEXT
    vocabulary: int = VOCABULARY


@dataclass(frozen=True, kw_only=True)
class VitSpec:
    """A vision transformer as image encoder (arXiv 2010.11929), as CLIP builds it."""

    kind: Literal["vit"] = "vit"
    width: int
    layers: int
    heads: int
    patch: int
    """Side of a patch in pixels: the stride."""

    grid: int
    """Patches along each side of the pictures that it was trained on; position embeddings are for these."""


@dataclass(frozen=True, kw_only=True)
class MobileSpec:
    """MobileNetV2 as image encoder, at stride 16 to its end."""

    kind: Literal["mobilenetv2"] = "mobilenetv2"
    channels: int
    """Of the map that the decoder refines."""


@dataclass(frozen=True, kw_only=True)
class TclSpec:
    """One TCL model."""

    name: str
    """Of :data:`VARIANTS`, or another for one of one's own."""

    text: TextSpec
    image: VitSpec | MobileSpec
    embedding: int
    """Numbers in which pictures and texts meet."""

    quick_gelu: bool = True
    """Whether the transformers' activation is x * sigmoid(1.702 x), as in OpenAI's weights, or GELU."""

    up_blocks: int = 2
    """Blocks of the decoder, each of which doubles the sides of the map."""

    separable: bool = False
    """Whether the decoder's convolutions are depthwise separable: the published one's are not."""

    training_side: int = 224
    """Side of the crops that it learns from, in pixels."""

    def to_json(self) -> dict[str, Any]:
        """A dictionary for JSON and for the checkpoint."""
        return asdict(self)

    @staticmethod
    def from_json(document: dict[str, Any]) -> TclSpec:
        """The spec that :meth:`to_json` wrote; raises ``KeyError``, ``TypeError`` or ``ValueError`` for another."""
        values = dict(document)
        image = dict(values.pop("image"))
        kinds: dict[str, type[VitSpec | MobileSpec]] = {"vit": VitSpec, "mobilenetv2": MobileSpec}
        if image.get("kind") not in kinds:
            raise ValueError(f"its image encoder is of an unknown kind, {image.get('kind')!r}")
        return TclSpec(text=TextSpec(**values.pop("text")), image=kinds[image["kind"]](**image), **values)


VARIANTS: dict[str, TclSpec] = {
    spec.name: spec
    for spec in (
        TclSpec(
            name="tcl-vit-b16",
            text=TextSpec(width=512, layers=12, heads=8),
            image=VitSpec(width=768, layers=12, heads=12, patch=16, grid=14),
            embedding=512,
        ),
        # A board's size: ImageNet's MobileNetV2 sees, a text encoder of two layers reads, and both first learn to meet.
        TclSpec(
            name="tcl-mobilenetv2",
            text=TextSpec(width=128, layers=2, heads=4, context=32),
            image=MobileSpec(channels=128),
            embedding=128,
            quick_gelu=False,
            separable=True,
        ),
    )
}
"""The models that ``edgekit train tcl`` knows."""


def find_variant(name: str) -> TclSpec:
    """The spec of the variant called ``name``.

    Raises:
        UsageError: there is none; the nearest and all are named.
    """
    if name in VARIANTS:
        return VARIANTS[name]
    near = difflib.get_close_matches(name, VARIANTS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    raise UsageError(f"no TCL model is called {name!r}{hint} There are: {', '.join(VARIANTS)}")

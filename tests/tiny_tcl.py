"""TCL models in miniature, with every number off its start, and captions' tokens for them."""

from __future__ import annotations

from dataclasses import replace

import torch

from edgekit.models.tcl.model import TCL
from edgekit.models.tcl.spec import VARIANTS, MobileSpec, TclSpec, TextSpec, VitSpec

END = 63
"""The end token of the miniature vocabulary."""


def vit_spec(**changes: object) -> TclSpec:
    """A vision transformer of three blocks that learnt from crops of 4 x 4 patches."""
    spec = TclSpec(
        name="tiny",
        text=TextSpec(width=32, layers=2, heads=4, context=12, vocabulary=END + 1),
        image=VitSpec(width=48, layers=3, heads=3, patch=8, grid=4),
        embedding=24,
        training_side=32,
    )
    return replace(spec, **changes)


def mobile_spec() -> TclSpec:
    """The shipped small variant with a narrower text encoder and neck."""
    text = TextSpec(width=16, layers=1, heads=2, context=16)
    return replace(VARIANTS["tcl-mobilenetv2"], text=text, image=MobileSpec(channels=16), embedding=16)


def shaken(spec: TclSpec, seed: int = 0) -> TCL:
    """A model whose gates, biases, norms and ``sim2mask`` are not where they start: there they hide mistakes."""
    torch.manual_seed(seed)
    model = TCL(spec).eval()
    with torch.no_grad():
        for parameter in model.masker.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, parameter in model.named_parameters():
            if name.endswith("gate.gate"):
                parameter.add_(0.7)
            elif parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.tcli_loss.logit_scale.add_(0.3)
        model.tclf_loss.logit_scale.sub_(0.3)
    return model


def captions(count: int, spec: TclSpec, seed: int = 0) -> torch.Tensor:
    """[count, context] random tokens, each row ended."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(1, END, (count, spec.text.context), generator=generator)
    for row, length in zip(rows, torch.randint(2, spec.text.context, (count,), generator=generator), strict=True):
        row[length] = END
        row[length + 1 :] = 0
    return rows

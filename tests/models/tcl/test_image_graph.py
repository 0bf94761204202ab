"""The image side rewritten for engines computes what the model does."""

from __future__ import annotations

from types import ModuleType

import pytest

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")

from edgekit.exporters.tcl_reference import DenseMaps  # noqa: E402
from edgekit.models.tcl.image_graph import ImageGraph  # noqa: E402
from edgekit.models.tcl.prompts import fingerprint  # noqa: E402


@pytest.mark.parametrize("kind", ["mobile", "vit", "vit_separable", "vit_three_ups"])
@pytest.mark.parametrize("size", [(32, 32), (32, 64)])
def test_the_same_maps(tiny_tcl: ModuleType, kind: str, size: tuple[int, int]) -> None:
    specs = {
        "mobile": tiny_tcl.mobile_spec(),
        "vit": tiny_tcl.vit_spec(),
        "vit_separable": tiny_tcl.vit_spec(separable=True, quick_gelu=False),
        "vit_three_ups": tiny_tcl.vit_spec(up_blocks=3),
    }
    model = tiny_tcl.shaken(specs[kind])
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        expected = DenseMaps(model, known=True).eval()(image)
        found = ImageGraph(model, height=size[0], width=size[1], known=True)(image)
        alone = ImageGraph(model, height=size[0], width=size[1], known=False)(image)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() < 2e-5 * other.abs().max()
    assert torch.equal(alone, found[0])
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_fingerprint_tells_text_encoders_apart(tiny_tcl: ModuleType) -> None:
    model, other = tiny_tcl.shaken(tiny_tcl.vit_spec()), tiny_tcl.shaken(tiny_tcl.vit_spec())
    assert fingerprint(model) == fingerprint(other)
    with torch.no_grad():
        other.masker.sim2mask.w.add_(1)  # prompts do not depend on the image side
    assert fingerprint(model) == fingerprint(other)
    with torch.no_grad():
        other.clip_text_encoder.ln_final.bias[3] += 1e-3
    assert fingerprint(model) != fingerprint(other)
    assert fingerprint(model) != fingerprint(tiny_tcl.shaken(tiny_tcl.vit_spec(quick_gelu=False)))

"""TCL's losses against a slow reference, and what they do at their edges."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")

from edgekit.learning.tcl_losses import (  # noqa: E402
    Matches,
    TclWeights,
    align_losses,
    area_losses,
    contrast,
    find_matches,
    tcl_losses,
    total_variation,
)
from edgekit.models.tcl.masker import logistic_noise  # noqa: E402


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    path = Path(__file__).with_name("tcl_reference.py")
    specification = importlib.util.spec_from_file_location("tcl_reference", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def diagonal(count: int) -> Matches:
    return Matches(by_picture=torch.eye(count, dtype=torch.bool), by_text=torch.eye(count, dtype=torch.bool))


def test_every_loss_agrees_with_the_reference(tiny_tcl: ModuleType, reference: ModuleType) -> None:
    spec = tiny_tcl.vit_spec()
    model = tiny_tcl.shaken(spec).double()
    pictures = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 255
    tokens = tiny_tcl.captions(3, spec)
    noise = logistic_noise(torch.empty(3, 3, 16, 16).double())
    found = tcl_losses(model, pictures.double(), tokens, weights=TclWeights(), matches=diagonal(3), noise=noise)
    wanted = reference.reference_losses(
        model.state_dict(), model.normalise(pictures.double()), tokens, noise,
        heads=3, text_heads=4, layers=3, text_layers=2,
    )  # fmt: skip
    weights = {"tcl_v": 0.1, "tcl_f": 0.1, "area": 0.4, "negative_area": 0.4, "smooth_map": 1.0, "smooth_masks": 1.0}
    assert found.keys() == wanted.keys() == weights.keys()
    for name, weight in weights.items():
        assert found[name].item() == pytest.approx(weight * wanted[name], rel=1e-9), name
    assert min(wanted.values()) > 0.01  # none is trivially right


def test_the_hard_mask_passes_gradients_to_what_it_was_drawn_from(tiny_tcl: ModuleType) -> None:
    spec = tiny_tcl.vit_spec()
    model = tiny_tcl.shaken(spec)
    model.phase("masker")
    losses = tcl_losses(
        model, torch.rand(2, 3, 32, 32) * 255, tiny_tcl.captions(2, spec), weights=TclWeights(), matches=diagonal(2)
    )
    losses["tcl_v"].backward()
    assert all(parameter.grad is not None for name, parameter in model.masker.named_parameters())
    assert model.masker.sim2mask.w.grad.abs().item() > 0
    assert all(parameter.grad is None for parameter in model.clip_image_encoder.parameters())


def test_a_batch_of_one_has_no_wrong_text(tiny_tcl: ModuleType) -> None:
    spec = tiny_tcl.vit_spec()
    losses = tcl_losses(
        tiny_tcl.shaken(spec), torch.rand(1, 3, 32, 32) * 255, tiny_tcl.captions(1, spec),
        weights=TclWeights(), matches=diagonal(1),
    )  # fmt: skip
    assert "negative_area" not in losses
    assert all(bool(torch.isfinite(value)) for value in losses.values())


def test_equal_captions_are_no_opposites() -> None:
    tokens = torch.tensor([[1, 9], [2, 9], [1, 9]])
    captions = torch.tensor([[[1, 9], [3, 9]], [[2, 9], [0, 0]], [[1, 9], [2, 9]]])
    matches = find_matches(tokens, captions)
    assert matches.by_picture.tolist() == [[True, False, True], [False, True, False], [True, True, True]]
    assert matches.by_text.tolist() == [[True, False, True], [False, True, True], [True, False, True]]


def test_equal_matches_have_equal_parts() -> None:
    similarity = torch.tensor([[2.0, 1.0, -1.0]])
    logs = similarity.log_softmax(dim=1)[0]
    assert float(contrast(similarity, torch.tensor([[True, False, False]]))) == pytest.approx(-float(logs[0]))
    both = float(contrast(similarity, torch.tensor([[True, True, False]])))
    assert both == pytest.approx(-float(logs[0] + logs[1]) / 2)


def test_areas_are_those_of_the_own_text_and_of_wrong_ones() -> None:
    masks = torch.tensor([0.1, 0.5, 0.3, 0.9]).reshape(2, 2, 1, 1).expand(2, 2, 4, 4)
    losses = area_losses(masks, diagonal(2), TclWeights(positive_area=0.4))
    assert float(losses["area"]) == pytest.approx(abs((0.1 + 0.9) / 2 - 0.4))
    assert float(losses["negative_area"]) == pytest.approx((0.5 + 0.3) / 2)


def test_total_variation_is_the_mean_step() -> None:
    assert float(total_variation(torch.tensor([[[[0.0, 1.0], [0.0, 3.0]]]]))) == pytest.approx(
        (1 + 3) / 2 + (0 + 2) / 2
    )


def test_noise_is_logistic_and_finite() -> None:
    noise = logistic_noise(torch.empty(100_000))
    assert bool(torch.isfinite(noise).all())
    assert float(noise.mean()) == pytest.approx(0, abs=0.03)
    assert float(noise.var()) == pytest.approx(torch.pi**2 / 3, rel=0.03)


def test_aligning_teaches_both_sides_and_no_trunk(tiny_tcl: ModuleType) -> None:
    model = tiny_tcl.shaken(tiny_tcl.mobile_spec()).train()
    model.phase("align")
    tokens = torch.randint(1, 49000, (4, 16))
    optimiser = torch.optim.Adam([value for _, value in model.learning()], 1e-2)
    pictures = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255
    trunk = {name: value.clone() for name, value in model.clip_image_encoder.trunk.state_dict().items()}
    history = []
    for _ in range(12):
        loss = align_losses(model, pictures, tokens, matches=diagonal(4))["align"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        history.append(loss.item())
    assert history[-1] < history[0] - 0.3
    assert all(torch.equal(value, trunk[name]) for name, value in model.clip_image_encoder.trunk.state_dict().items())

"""The classifier of RoIs, and its compression by singular values."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from edgekit.models.pvanet import VARIANTS, PVANet, thinned
from edgekit.models.pvanet_head import HeadShape, RoIHead, compress
from edgekit.models.pvanet_layers import Scale, fold

CHANNELS, CLASSES = 8, 3


@pytest.fixture(scope="module", params=["9.0", "9.1"])
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def trained(shape: HeadShape) -> RoIHead:
    """A head whose norms are away from their start."""
    torch.manual_seed(0)
    head = RoIHead(CHANNELS, CLASSES, shape).double().eval()
    for part in head.modules():
        if isinstance(part, nn.BatchNorm1d):
            nn.init.normal_(part.get_buffer("running_mean"))
            nn.init.uniform_(part.get_buffer("running_var"), 0.5, 2)
        elif isinstance(part, Scale):
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=0.1)
            nn.init.normal_(part.bias)
    return head


def shapes(variant: str, *, rank: int | None = None) -> tuple[HeadShape, HeadShape]:
    """The full form in a thin network, and the compressed one, with another rank if one is given."""
    full, thin = VARIANTS[variant].full, thinned(VARIANTS[variant].compressed, 0.02)
    assert full is not None
    if rank is not None:
        thin = replace(thin, fc6=replace(thin.fc6, rank=rank), fc7=replace(thin.fc7, rank=rank))
    return thinned(full, 0.02), thin


def test_with_all_singular_values_nothing_changes(variant: str) -> None:
    full, thin = shapes(variant, rank=80)  # 80 outputs: there are no more
    head, pooled = trained(full), torch.randn(7, CHANNELS, 6, 6, dtype=torch.double)
    for source in (head, fold(head)):
        made = compress(source, thin)
        assert made.shape == thin
        for ours, theirs in zip(made(pooled), head(pooled), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_with_fewer_the_weight_is_the_best_of_its_rank(variant: str) -> None:
    full, thin = shapes(variant, rank=12)
    head = trained(full)
    made = compress(head, thin)
    # What the form has no layer for was absorbed before: 9.0 has no norms at all, 9.1's fc6 no Scale.
    before = head if variant == "9.1" else fold(head)
    left, values, right = torch.linalg.svd(before.get_parameter("fc7.weight"))
    expected = left[:, :12] @ torch.diag(values[:12]) @ right[:12]
    low, high = made.get_parameter("fc7_L.weight"), made.get_parameter("fc7_U.weight")
    torch.testing.assert_close(high @ low, expected)
    torch.testing.assert_close(high.T @ high, torch.eye(12, dtype=torch.double))
    torch.testing.assert_close(made.get_parameter("fc7_U.bias"), before.get_parameter("fc7.bias"))
    whole = fold(head).get_parameter("fc6.weight")
    left, values, right = torch.linalg.svd(whole, full_matrices=False)
    product = made.get_parameter("fc6_U.weight") @ made.get_parameter("fc6_L.weight")
    torch.testing.assert_close(product, left[:, :12] @ torch.diag(values[:12]) @ right[:12])


def test_compressed_forms_have_the_published_layers(variant: str) -> None:
    full, thin = shapes(variant)
    names = {name for name, part in compress(trained(full), thin).named_modules() if not list(part.children())}
    shared = {"fc6_L", "fc6_U", "fc7_L", "fc7_U", "cls_score", "bbox_pred"}
    assert names - {""} == (shared if variant == "9.0" else shared | {"fc6.bn", "fc7.bn", "fc7.scale"})
    head = RoIHead(CHANNELS, CLASSES, thin)
    biases = {name for name, _ in head.named_parameters() if name.endswith("_L.bias")}
    assert biases == (set() if variant == "9.0" else {"fc6_L.bias", "fc7_L.bias"})


def test_a_network_compresses_itself() -> None:
    net = PVANet("9.1", width=0.05).eval()
    parts = {name: part for name, part in net.named_children() if name != "head"}
    net.compress()
    assert net.head.state_dict().keys() == PVANet("9.1", width=0.05, compressed=True).head.state_dict().keys()
    assert all(getattr(net, name) is part for name, part in parts.items())
    with pytest.raises(ValueError, match="the head has 2 of them"):
        net.compress()


def test_ranks_that_cannot_be_are_refused(variant: str) -> None:
    full, thin = shapes(variant, rank=81)
    with pytest.raises(ValueError, match="fc6 has 80 singular values, and 81 were asked for"):
        compress(trained(full), thin)
    with pytest.raises(ValueError, match="fc6 is compressed from one layer of 80 outputs to two"):
        compress(trained(full), full)


def test_dropout_is_for_training_only(variant: str) -> None:
    head, pooled = trained(shapes(variant)[0]), torch.randn(3, CHANNELS, 6, 6, dtype=torch.double)
    assert torch.equal(head(pooled)[0], head(pooled)[0])
    for part in head.modules():
        part.train(not isinstance(part, nn.BatchNorm1d))
    assert not torch.equal(head(pooled)[0], head(pooled)[0])


def test_predictions_start_small() -> None:
    head = RoIHead(CHANNELS, 20, shapes("9.1")[0])
    assert float(head.cls_score.weight.detach().std()) == pytest.approx(0.01, rel=0.2)
    assert float(head.bbox_pred.weight.detach().std()) == pytest.approx(0.001, rel=0.2)
    assert not head.cls_score.bias.any()

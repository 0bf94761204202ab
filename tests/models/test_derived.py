"""Checkpoints made from others: another input size, a head in two halves."""

from __future__ import annotations

import pytest
import torch

from edgekit.errors import UsageError
from edgekit.metrics.macs import count_macs, total_macs
from edgekit.models.checkpoint import Checkpoint
from edgekit.models.derived import at_size, compressed
from edgekit.models.registry import build

PROVENANCE = {"training_data": "drawings", "starting_weights": "random"}


def checkpoint(name: str, size: int) -> Checkpoint:
    torch.manual_seed(0)
    width = 1.0 if name.startswith("mobilenet") else 0.125
    model = build(name, ("cat", "dog"), size=size, width_multiplier=width).eval()
    return Checkpoint(model=model, provenance=PROVENANCE, state={"step": 1})


@pytest.mark.parametrize("name", ["mobilenetv2-ssdlite-omg", "pvanet-9.1-omg"])
def test_another_size_has_the_same_weights(name: str) -> None:
    square = checkpoint(name, 64)
    oblong = at_size(square, height=64, width=128)
    assert (oblong.spec.height, oblong.spec.width, oblong.spec.mask_grid) == (64, 128, (4, 8))
    torch.testing.assert_close(oblong.model.state_dict(), square.model.state_dict(), rtol=0, atol=0)
    assert oblong.provenance == PROVENANCE
    assert oblong.state is None
    dense = [total_macs([layer for layer in count_macs(one.model) if layer.graph != "head"], "detector")
             for one in (square, oblong)]  # fmt: skip
    assert 1.9 < dense[1] / dense[0] < 2.1


def test_a_compressed_head_is_the_compressed_models() -> None:
    whole = checkpoint("pvanet-9.1-omg", 64)
    halves = compressed(whole)
    assert halves.spec.model == "pvanet-9.1-compressed-omg"
    assert whole.model.two_stage.head.parts("fc6")[0][0].out_features == 512  # as it was
    assert [layer.out_features for layer in halves.model.two_stage.head.parts("fc6")[0]] == [64, 512]
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(halves.model.two_stage(image).features, whole.model.two_stage(image).features)
    with pytest.raises(UsageError, match=r"the head of pvanet-9\.1-compressed-omg cannot be compressed"):
        compressed(halves)
    with pytest.raises(UsageError, match="the head of mobilenetv2-ssdlite-omg cannot be compressed"):
        compressed(checkpoint("mobilenetv2-ssdlite-omg", 64))

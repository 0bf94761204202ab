"""The layer table: counts checked by hand, executed MACs, JSON."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from edgekit.errors import BundleError
from edgekit.metrics.layers import count_spec
from edgekit.metrics.macs import (
    LayerMacs,
    count_macs,
    executed_layer_macs,
    executed_macs,
    layer_calls,
    layers_from_json,
    layers_to_json,
    total_macs,
)
from edgekit.models.registry import build

CLASSES = tuple(f"class {index}" for index in range(20))


@pytest.fixture(scope="module")
def layers() -> tuple[LayerMacs, ...]:
    """The layer table of the registered network with 20 classes."""
    return count_macs(build("mobilenetv2-ssdlite-omg", CLASSES))


def layer(layers: tuple[LayerMacs, ...], name: str) -> LayerMacs:
    return next(entry for entry in layers if entry.name == name)


def test_layers_counted_by_hand(layers: tuple[LayerMacs, ...]) -> None:
    stem = layer(layers, "detector.backbone.stem.conv")
    assert (stem.kind, stem.graph, stem.rows, stem.columns) == ("conv", "detector", 160, 160)
    assert stem.macs == 160 * 160 * 32 * 3 * 3 * 3
    assert stem.parameters == 32 * 3 * 3 * 3 + 32
    depthwise = layer(layers, "detector.backbone.blocks.0.depthwise.conv")
    assert (depthwise.kind, depthwise.macs) == ("depthwise", 160 * 160 * 32 * 9)
    head = layer(layers, "detector.class_heads.5.predict")
    assert (head.rows, head.columns, head.macs, head.parameters) == (1, 1, 128 * 120, 128 * 120 + 120)


def test_totals(layers: tuple[LayerMacs, ...]) -> None:
    assert total_macs(layers, "omg") <= 0.06e9
    assert total_macs(layers, "detector") == pytest.approx(0.694e9, rel=0.01)
    assert [entry.graph for entry in layers] == sorted((entry.graph for entry in layers), reverse=True)  # omg first


def test_counting_leaves_the_model_alone() -> None:
    model = build("mobilenetv2-ssdlite-omg", CLASSES).train()
    before = copy.deepcopy(model.state_dict())
    count_macs(model)
    assert model.training
    assert model.detector.training
    assert all(bool((value == before[name]).all()) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_rule_by_hand() -> None:
    """A convolution multiplies where it writes, a deconvolution where it reads, a linear layer in every row."""
    torch = pytest.importorskip("torch", reason="counting needs PyTorch: pip install 'edgekit-vision[train]'")
    picture = torch.zeros(2, 8, 5, 7)
    for layer, inputs, macs, size in (
        (torch.nn.Conv2d(8, 16, 3, stride=2, padding=1, groups=2), picture, 16 * 4 * 9 * 2 * 3 * 4, (3, 4)),
        (torch.nn.ConvTranspose2d(8, 16, 4, stride=2, padding=1, groups=2), picture, 8 * 8 * 16 * 2 * 5 * 7, (10, 14)),
        (torch.nn.Linear(8, 16), torch.zeros(9, 8), 8 * 16 * 9, (1, 1)),
    ):
        net = torch.nn.Sequential(layer, torch.nn.Dropout()).train()
        (call,) = layer_calls(net, inputs)
        assert (call.name, call.layer, call.macs, (call.rows, call.columns)) == ("0", layer, macs, size)
        assert net.training
        assert not layer._forward_hooks


def test_a_spec_gives_the_same_table(layers: tuple[LayerMacs, ...]) -> None:
    assert count_spec(build("mobilenetv2-ssdlite-omg", CLASSES).spec) == layers


def test_a_full_mask_executes_everything(layers: tuple[LayerMacs, ...]) -> None:
    everything = np.ones((20, 20), np.bool_)
    assert executed_layer_macs(layers, everything, omg=True) == [entry.macs for entry in layers]
    assert executed_macs(layers, everything, omg=False) == total_macs(layers, "detector")


def test_an_empty_mask_executes_the_omg_network_alone(layers: tuple[LayerMacs, ...]) -> None:
    nothing = np.zeros((20, 20), np.bool_)
    assert executed_macs(layers, nothing, omg=True) == total_macs(layers, "omg")
    assert executed_macs(layers, nothing, omg=False) == 0


def test_one_cell_is_executed_at_every_resolution(layers: tuple[LayerMacs, ...]) -> None:
    mask = np.zeros((20, 20), np.bool_)
    mask[7, 11] = True
    executed = dict(zip(layers, executed_layer_macs(layers, mask, omg=False), strict=True))
    for entry, macs in executed.items():
        if entry.graph == "detector":
            sites = max(1, entry.rows // 20) * max(1, entry.columns // 20)  # 8x8 of 160x160, one of 20x20 and coarser
            assert macs == entry.macs / (entry.rows * entry.columns) * sites, entry


def test_json_round_trip(layers: tuple[LayerMacs, ...]) -> None:
    document = layers_to_json(layers)
    assert document[0].keys() == {"name", "kind", "graph", "parameters", "macs", "rows", "columns"}
    assert layers_from_json(document) == layers


GOOD = {"name": "a", "kind": "conv", "graph": "omg", "parameters": 5, "macs": 40, "rows": 2, "columns": 2}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "the layer table should be a list, got dict"),
        ([GOOD, 3], r"layers\[1\] should have exactly name, kind"),
        ([{**GOOD, "extra": 1}], r"layers\[0\] should have exactly"),
        ([{**GOOD, "macs": 0}], r"layers\[0\]: macs should be a positive whole number, got 0"),
        ([{**GOOD, "rows": "2"}], r"layers\[0\]: rows should be a positive whole number, got '2'"),
        ([{**GOOD, "graph": "other"}], r"layers\[0\]: expected a name, graph in"),
        ([{**GOOD, "macs": 41}], r"layers\[0\]: 41 MACs do not divide by 2x2 sites"),
    ],
)
def test_malformed_tables(document: Any, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        layers_from_json(document)


def test_executed_macs_need_no_torch() -> None:
    program = (
        "import sys; sys.modules['torch'] = None\n"
        "import numpy, edgekit.metrics.macs as macs\n"
        f"print(macs.executed_macs(macs.layers_from_json([{GOOD}]), numpy.ones((2, 2), bool), omg=True))\n"
        "try: macs.count_macs(None)\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("40\nMissingDependencyError torch is needed to count the MACs of a model")

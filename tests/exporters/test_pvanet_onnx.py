"""PVANet's graphs: onnxruntime and the native engine compute what PyTorch does, whatever the mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.backends import load_engine
from edgekit.exporters.onnx_sparse import to_sparse
from edgekit.exporters.pvanet_onnx import export_pvanet
from edgekit.models.pvanet import PVANet, SharedRows

HEIGHT, WIDTH, ROIS = 128, 96, 5
Exported = tuple[PVANet, dict[str, Path]]
FORMS = [("9.0", False), ("9.0", True), ("9.1", False), ("9.1", True), ("lite", True)]


def network(variant: str, *, compressed: bool) -> PVANet:
    """A quarter as wide as the published one, with batch norms that do something."""
    torch.manual_seed(0)
    made = PVANet(variant, classes=3, compressed=compressed, width=0.25).eval()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    for name, parameter in made.named_parameters():
        if "scale" in name.split(".")[-2]:
            parameter.data.normal_(1, 0.3)
    return made


@pytest.fixture(scope="module", params=FORMS, ids=[f"{v}{'-compressed' * c}" for v, c in FORMS])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    variant, compressed = request.param
    made = network(variant, compressed=compressed)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    paths = export_pvanet(made, tmp_path_factory.mktemp(variant), height=HEIGHT, width=WIDTH, rois=ROIS)
    assert all(torch.equal(value, made.state_dict()[name]) for name, value in before.items()), "it is left as it was"
    return made, paths


@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_the_shared_graph_in_every_engine(exported: Exported, share: float) -> None:
    made, paths = exported
    program = paths["shared"].with_suffix(".sparse")
    to_sparse(paths["shared"], program, "fp32", mean=0.0, std=1.0)
    rng = np.random.default_rng(1)
    image = rng.normal(0, 50, (1, 3, HEIGHT, WIDTH)).astype(np.float32)
    cells = rng.random((1, 1, HEIGHT // 16, WIDTH // 16)) < share
    inputs = {"image": image, "mask": cells.astype(np.float32)}
    with torch.no_grad():
        expected = SharedRows(made)(torch.from_numpy(image), torch.from_numpy(inputs["mask"]))
    for engine, path in (("onnxruntime", paths["shared"]), ("native", program)):
        found = load_engine(engine, path, threads=1).run(inputs)
        for name, values in zip(("rpn_logits", "rpn_deltas", "features"), expected, strict=True):
            wanted = values.numpy()
            got = found[name].reshape(wanted.shape)
            assert np.abs(got - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max()), (engine, name)


def test_the_head_in_every_engine(exported: Exported) -> None:
    made, paths = exported
    program = paths["head"].with_suffix(".sparse")
    to_sparse(paths["head"], program, "fp32", mean=0.0, std=1.0)
    pooled = torch.randn(ROIS, made.head.channels, 6, 6)
    present = np.array([1, 1, 0, 1, 0], np.float32)  # RoIs
    with torch.no_grad():
        expected = made.head(pooled)
    inputs = {
        "image": np.ascontiguousarray(pooled.flatten(1).numpy().T[None, ..., None]),
        "mask": present.reshape(1, 1, ROIS, 1),
    }
    for engine, path in (("onnxruntime", paths["head"]), ("native", program)):
        found = load_engine(engine, path, threads=1).run(inputs)
        for name, values in zip(("roi_logits", "roi_deltas"), expected, strict=True):
            wanted = values.numpy() * present[:, None]
            got = found[name].reshape(wanted.shape)
            assert np.abs(got - wanted).max() <= 1e-5 * max(1.0, np.abs(wanted).max()), (engine, name)


def test_a_size_that_does_not_divide_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="multiples of 32, got 100x96"):
        export_pvanet(network("lite", compressed=True), tmp_path, height=100, width=96, rois=1)

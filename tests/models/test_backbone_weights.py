"""Published files load into the backbones, and files of anything else are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekit.errors import CheckpointError
from edgekit.models.backbone_weights import load_scrl_resnet, load_swin, load_torchvision_resnet
from edgekit.models.resnet import ResNet
from edgekit.models.swin import SwinTransformer

LAYERS = (1, 2, 1, 1)


def resnet(**options: Any) -> ResNet:
    return ResNet(LAYERS, 4, **options)


def swin() -> SwinTransformer:
    return SwinTransformer(4, (2, 2, 1, 1), (1, 1, 1, 1), window=3)


def torchvision_weights() -> dict[str, Tensor]:
    """A classifier's, with every value different from a new network's."""
    torch.manual_seed(9)
    network = resnet(norm=nn.BatchNorm2d)
    weights = {name: torch.rand(value.shape) + 0.1 for name, value in network.state_dict().items()}
    counts = {name: torch.tensor(7) for name in weights if name.endswith("num_batches_tracked")}
    return {**weights, **counts, "fc.weight": torch.rand(10, 128), "fc.bias": torch.rand(10)}


def scrl_weights() -> dict[str, Tensor]:
    names = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}
    weights = {"projector.net.0.weight": torch.rand(2, 128), "projector.net.1.running_mean": torch.rand(2)}
    for name, value in torchvision_weights().items():
        layer, _, rest = name.partition(".")
        if layer != "fc":
            weights[f"encoder.{names[layer]}.{rest}"] = value
    return weights


def swin_weights() -> dict[str, Tensor]:
    torch.manual_seed(10)
    weights = {name: torch.rand(value.shape) for name, value in swin().state_dict().items()}
    weights = {name: value for name, value in weights.items() if not name.startswith(("norm1", "norm2", "norm3"))}
    for name in weights:
        if name.endswith("relative_position_index"):
            weights[name] = torch.zeros(9, 9, dtype=torch.int64)
    extra = {"norm.weight": torch.rand(32), "norm.bias": torch.rand(32), "head.weight": torch.rand(10, 32)}
    return {**weights, **extra, "head.bias": torch.rand(10), "layers.0.blocks.1.attn_mask": torch.rand(64, 9, 9)}


def saved(path: Path, document: Any) -> Path:
    torch.save(document, path)
    return path


@pytest.mark.parametrize("options", [{}, {"norm": nn.BatchNorm2d}])
def test_torchvisions_resnet(tmp_path: Path, options: dict[str, Any]) -> None:
    weights, network = torchvision_weights(), resnet(**options)
    load_torchvision_resnet(network, saved(tmp_path / "resnet.pth", weights))
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_a_file_from_before_batches_were_counted(tmp_path: Path) -> None:
    weights = {name: value for name, value in torchvision_weights().items() if "num_batches" not in name}
    network = resnet(norm=nn.BatchNorm2d)
    load_torchvision_resnet(network, saved(tmp_path / "resnet.pth", weights))
    assert torch.equal(network.conv1.weight, weights["conv1.weight"])


def test_scrls_online_network(tmp_path: Path) -> None:
    weights, network = torchvision_weights(), resnet()
    document = {"online_network_state_dict": scrl_weights(), "predictor_state_dict": {}, "epoch": 3}
    load_scrl_resnet(network, saved(tmp_path / "scrl.pth", document))
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_swin(tmp_path: Path) -> None:
    weights, network, new = swin_weights(), swin(), swin()
    load_swin(network, saved(tmp_path / "swin.pth", {"model": weights, "epoch": 300}))
    own = ("norm1", "norm2", "norm3")
    for name, value in network.state_dict().items():
        kept = name.startswith(own) or name.endswith("relative_position_index")
        assert torch.equal(value, new.state_dict()[name] if kept else weights[name]), name


def test_swin_with_norms_of_its_maps(tmp_path: Path) -> None:
    weights, network = {**swin_weights(), "norm2.bias": torch.rand(16)}, swin()
    load_swin(network, saved(tmp_path / "swin.pth", {"model": weights}))
    assert torch.equal(network.norm2.bias, weights["norm2.bias"])


def test_faults_are_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    weights, network = torchvision_weights(), resnet()
    del weights["layer2.1.bn3.running_var"]
    weights["layer5.0.conv1.weight"] = torch.rand(1)
    weights["conv1.weight"] = torch.rand(4, 3, 3, 3)
    weights["bn1.bias"][2] = torch.nan
    with pytest.raises(CheckpointError, match=r"resnet\.pth are not those of this ResNet") as caught:
        load_torchvision_resnet(network, saved(tmp_path / "resnet.pth", weights))
    assert str(caught.value).splitlines()[1:] == [
        "it lacks layer2.1.bn3.running_var",
        "it has unknown layer5.0.conv1.weight",
        "it has other shapes: conv1.weight [4, 3, 3, 3], not [4, 3, 7, 7]",
        "it holds NaN or infinite values in bn1.bias",
    ]
    assert all(
        torch.equal(network.state_dict()[name], torch.ones(4)) for name in ("bn1.weight", "layer1.0.bn1.running_var")
    )


def test_long_lists_of_names_are_cut(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"it lacks conv1\.weight, (\S+, ){4}\S+ and \d+ more$"):
        load_torchvision_resnet(resnet(), saved(tmp_path / "x.pth", {}))


def test_another_part_of_scrls_encoder_is_unknown(tmp_path: Path) -> None:
    document = {"online_network_state_dict": {**scrl_weights(), "encoder.9.weight": torch.rand(1)}}
    with pytest.raises(CheckpointError, match=r"it has unknown encoder\.9\.weight$"):
        load_scrl_resnet(resnet(), saved(tmp_path / "scrl.pth", document))


def test_a_swin_without_a_block_is_refused(tmp_path: Path) -> None:
    weights = {name: value for name, value in swin_weights().items() if not name.startswith("layers.2.blocks.0.norm1")}
    with pytest.raises(CheckpointError, match=r"it lacks layers\.2\.blocks\.0\.norm1\.weight, \S+norm1\.bias$"):
        load_swin(swin(), saved(tmp_path / "swin.pth", {"model": weights}))


def test_other_documents_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="but not an SCRL checkpoint with 'online_network_state_dict'"):
        load_scrl_resnet(resnet(), saved(tmp_path / "a.pth", torchvision_weights()))
    with pytest.raises(CheckpointError, match="but not a Swin checkpoint with 'model'"):
        load_swin(swin(), saved(tmp_path / "b.pth", [1, 2]))
    with pytest.raises(CheckpointError, match=r"but not a torchvision ResNet's state dict$"):
        load_torchvision_resnet(resnet(), saved(tmp_path / "c.pth", torch.rand(3)))
    with pytest.raises(CheckpointError, match=r"state dict: no tensors are model, epoch$"):
        load_torchvision_resnet(resnet(), saved(tmp_path / "d.pth", {"model": {}, "epoch": 1}))


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "torn.pth").write_bytes(b"PK no archive")
    with pytest.raises(CheckpointError, match=r"torn\.pth cannot be read as a checkpoint"):
        load_swin(swin(), tmp_path / "torn.pth")
    with pytest.raises(CheckpointError, match=r"absent\.pth does not exist"):
        load_torchvision_resnet(resnet(), tmp_path / "absent.pth")

"""Caffe files written here are read back, fill networks, and are refused where they are damaged or do not fit."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn

from edgekit.errors import CheckpointError, UsageError
from edgekit.models.caffe_weights import CaffeLayer, load_caffe, read_caffemodel
from edgekit.models.checkpoint import load_checkpoint, save_checkpoint
from edgekit.models.default import default_checkpoint
from edgekit.models.derived import from_caffe
from edgekit.models.pvanet import PVANet, PVANetClassifier
from edgekit.models.pvanet_layers import Scale, fold

FACTOR = 3.0
"""Third blob of every BatchNorm that is written."""

Array = NDArray[np.float32]


def varint(value: int) -> bytes:
    """Seven bits a byte, lowest first."""
    text = b""
    while value >= 0x80:
        text += bytes([value & 0x7F | 0x80])
        value >>= 7
    return text + bytes([value])


def field(number: int, content: bytes | int) -> bytes:
    """One field: a varint, or bytes with their length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def packed_blob(values: Array) -> bytes:
    """As Caffe writes it."""
    return field(7, field(1, b"".join(map(varint, values.shape)))) + field(5, values.astype("<f4").tobytes())


def loose_blob(values: Array) -> bytes:
    """As a writer that packs nothing does: a tag before each number."""
    numbers = (varint(5 << 3 | 5) + one.tobytes() for one in values.astype("<f4").reshape(-1))
    return field(7, b"".join(field(1, side) for side in values.shape)) + b"".join(numbers)


def double_blob(values: Array) -> bytes:
    """In double precision."""
    return field(7, field(1, b"".join(map(varint, values.shape)))) + field(8, values.astype("<f8").tobytes())


def old_blob(values: Array) -> bytes:
    """With the four sides of Caffe before 2014, ones in front."""
    sides = (1,) * (4 - values.ndim) + values.shape
    return b"".join(field(number, side) for number, side in enumerate(sides, start=1)) + field(5, values.tobytes())


def written(layer: CaffeLayer, blob: Callable[[Array], bytes] = packed_blob) -> bytes:
    """LayerParameter as a field of NetParameter, with a bottom (3) and a phase (10) that readers pass over."""
    content = field(1, layer.name.encode()) + field(2, layer.kind.encode()) + field(3, b"data") + field(10, 1)
    return field(100, content + b"".join(field(7, blob(values)) for values in layer.blobs))


def write(path: Path, layers: Sequence[CaffeLayer], blob: Callable[[Array], bytes] = packed_blob) -> Path:
    """A ``.caffemodel`` file with a layer without weights in front."""
    relu = CaffeLayer(name="relu", kind="ReLU", blobs=())
    path.write_bytes(field(1, b"PVANET") + b"".join(written(layer, blob) for layer in (relu, *layers)))
    return path


def layer(name: str, kind: str, *blobs: object) -> CaffeLayer:
    return CaffeLayer(name=name, kind=kind, blobs=tuple(np.asarray(blob, np.float32) for blob in blobs))


KINDS: tuple[tuple[type[nn.Module], str], ...] = (
    (nn.ConvTranspose2d, "Deconvolution"),
    (nn.Conv2d, "Convolution"),
    (nn.Linear, "InnerProduct"),
    (Scale, "Scale"),
)


def layers_of(net: nn.Module, *, parts: bool) -> list[CaffeLayer]:
    """What Caffe would have saved of ``net``; ``parts`` says whether paths begin with the name of a part."""
    found = []
    for path, module in net.named_modules():
        name = (path.partition(".")[2] if parts else path).replace(".", "/")
        kind = next((name for known, name in KINDS if isinstance(module, known)), "")
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            statistics = [module.get_buffer("running_mean") * FACTOR, module.get_buffer("running_var") * FACTOR]
            found.append(layer(name, "BatchNorm", *statistics, [FACTOR]))
        elif kind:
            blobs = [parameter.detach().numpy().copy() for parameter in module.parameters(recurse=False)]
            found.append(layer(name, kind, *blobs))
    return found


def shaken(net: nn.Module) -> nn.Module:
    """``net`` with random numbers everywhere."""
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5)
    return net.eval()


@pytest.mark.parametrize(
    ("variant", "compressed"), [("9.0", False), ("9.0", True), ("9.1", False), ("9.1", True), ("lite", True)]
)
def test_networks_come_back_from_their_files(tmp_path: Path, variant: str, compressed: bool) -> None:
    torch.manual_seed(0)
    net = shaken(PVANet(variant, compressed=compressed, width=0.05))
    path = write(tmp_path / "net.caffemodel", layers_of(net, parts=True))
    other = PVANet(variant, compressed=compressed, width=0.05).eval()
    load_caffe(other, path)
    for (name, ours), theirs in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=0, msg=name)
    # A folded file belongs to a folded network.
    folded, target = fold(net), shaken(fold(other))
    load_caffe(target, write(tmp_path / "folded.caffemodel", layers_of(folded, parts=True)))
    torch.testing.assert_close(target.state_dict(), folded.state_dict(), rtol=0, atol=0)


def test_a_published_file_becomes_a_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = shaken(PVANet("lite"))
    path = write(tmp_path / "lite.caffemodel", layers_of(net, parts=True))
    checkpoint = from_caffe(path, "pvanet-lite-omg")
    shipped = load_checkpoint(default_checkpoint())
    assert checkpoint.spec.classes[:2] == ("aeroplane", "bicycle")
    assert checkpoint.spec.mask_threshold == shipped.spec.mask_threshold
    torch.testing.assert_close(checkpoint.model.omg.state_dict(), shipped.model.omg.state_dict())
    ours, theirs = checkpoint.model.two_stage.state_dict(), net.state_dict()
    torch.testing.assert_close(
        ours["trunk.conv1.weight"], theirs["trunk.conv1.weight"].flip(1) * 128, rtol=1e-6, atol=0
    )
    torch.testing.assert_close(ours["head.fc6_L.weight"], theirs["head.fc6_L.weight"], rtol=1e-6, atol=0)
    save_checkpoint(tmp_path / "lite.pt", checkpoint)
    assert load_checkpoint(tmp_path / "lite.pt").provenance["starting_weights"] == "lite.caffemodel"

    merged = [layer for layer in layers_of(net, parts=True) if layer.kind not in ("BatchNorm", "Scale")]
    with pytest.raises(CheckpointError, match=r"(?s)has no batch norms.*original\.model instead of test\.model"):
        from_caffe(write(tmp_path / "merged.caffemodel", merged), "pvanet-lite-omg")
    with pytest.raises(UsageError, match="mobilenetv2-ssdlite-omg was not published as a Caffe file"):
        from_caffe(path, "mobilenetv2-ssdlite-omg")


def test_classifiers_and_parts_come_back_too(tmp_path: Path) -> None:
    net = shaken(PVANetClassifier("9.1", side=64, classes=3, width=0.05))
    assert isinstance(net, PVANetClassifier)
    whole = layers_of(net.trunk, parts=False)
    head = [one for one in layers_of(net, parts=False) if one.name.startswith("fc")]
    assert {"fc6/bn_scale", "fc8"} <= {one.name for one in head}
    other = PVANetClassifier("9.1", side=64, classes=3, width=0.05)
    load_caffe(other, write(tmp_path / "net.caffemodel", whole + head))
    torch.testing.assert_close(other.state_dict(), net.state_dict(), rtol=1e-6, atol=0)
    trunk = PVANet("9.1", width=0.05).trunk
    load_caffe(trunk, write(tmp_path / "trunk.caffemodel", whole))
    torch.testing.assert_close(trunk.state_dict(), net.trunk.state_dict(), rtol=1e-6, atol=0)


class Small(nn.Module):
    """One layer of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4, affine=False)
        self.scale = Scale(4)
        self.up = nn.ConvTranspose2d(4, 4, 4, groups=4, bias=False)
        self.fc = nn.Linear(4 * 2 * 3, 5)


def small_layers() -> list[CaffeLayer]:
    generator = np.random.default_rng(0)
    draw = lambda *shape: generator.uniform(0.5, 1.5, shape)  # noqa: E731
    return [
        layer("conv", "Convolution", draw(4, 3, 3, 3), draw(4)),
        layer("norm", "BatchNorm", draw(4), draw(4), [FACTOR]),
        layer("scale", "Scale", draw(4), draw(4)),
        layer("up", "Deconvolution", draw(4, 1, 4, 4)),
        layer("fc", "InnerProduct", draw(5, 24), draw(5)),
    ]


@pytest.mark.parametrize("blob", [packed_blob, loose_blob, double_blob, old_blob])
def test_every_way_to_store_numbers_is_read(tmp_path: Path, blob: Callable[[Array], bytes]) -> None:
    net, layers = Small(), small_layers()
    load_caffe(net, write(tmp_path / "net.caffemodel", layers, blob))
    for one, parameters in ((layers[0], net.conv), (layers[2], net.scale), (layers[4], net.fc)):
        for values, parameter in zip(one.blobs, parameters.parameters(), strict=True):
            np.testing.assert_array_equal(parameter.detach().numpy(), values)
    np.testing.assert_array_equal(net.up.weight.detach().numpy(), layers[3].blobs[0])
    for values, name in zip(layers[1].blobs, ("running_mean", "running_var"), strict=False):
        np.testing.assert_allclose(net.norm.get_buffer(name).numpy(), values / FACTOR, rtol=1e-6)


def test_fully_connected_layers_read_maps_in_torchs_order(tmp_path: Path) -> None:
    """Caffe flattens channel, row, column."""
    net, layers = Small(), small_layers()
    load_caffe(net, write(tmp_path / "net.caffemodel", layers))
    maps = np.random.default_rng(1).normal(size=(4, 2, 3)).astype(np.float32)
    expected = np.einsum("ochw,chw->o", layers[4].blobs[0].reshape(5, 4, 2, 3), maps) + layers[4].blobs[1]
    ours = net.fc(torch.from_numpy(maps)[None].flatten(1))[0]
    np.testing.assert_allclose(ours.detach().numpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_factor_of_zero_means_no_statistics(tmp_path: Path) -> None:
    net, layers = Small(), small_layers()
    layers[1] = layer("norm", "BatchNorm", np.ones(4), np.ones(4), [0])
    load_caffe(net, write(tmp_path / "net.caffemodel", layers))
    assert not net.norm.get_buffer("running_mean").any()
    assert not net.norm.get_buffer("running_var").any()


def replaced(*changes: CaffeLayer) -> list[CaffeLayer]:
    """The small network's layers with those of the same name taken from ``changes``."""
    new = {one.name: one for one in changes}
    return [new.get(one.name, one) for one in small_layers()]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [*small_layers(), layer("scal", "Scale", [1], [1])],
            "layers that the network has not: scal; did the network mean 'scale'",
        ),
        ([*small_layers(), *[layer(f"new{k}", "Scale", [1]) for k in range(9)]], "new0, new1, .*new4 and 4 more"),
        (small_layers()[1:], "lacks layers that the network has: conv$"),
        (
            replaced(layer("conv", "Convolution", np.zeros((4, 3, 5, 5)), np.zeros(4))),
            r"layer conv should have blobs of shapes \[\[4, 3, 3, 3\], \[4\]\], got \[\[4, 3, 5, 5\], \[4\]\]",
        ),
        (replaced(layer("conv", "Convolution", np.zeros((4, 3, 3, 3)))), r"got \[\[4, 3, 3, 3\]\]"),
        (replaced(layer("scale", "Scale", np.zeros(5), np.zeros(5))), r"layer scale should have blobs of shapes"),
        (replaced(layer("norm", "BatchNorm", np.zeros(4), np.zeros(4))), r"layer norm should have blobs of shapes"),
        (replaced(layer("up", "Convolution", np.zeros((4, 1, 4, 4)))), "layer up should be of type Deconvolution, got"),
        (replaced(layer("norm", "BatchNorm", [0] * 4, [-1] * 4, [1])), "layer norm should have finite means and var"),
        (replaced(layer("norm", "BatchNorm", [1] * 4, [1] * 4, [1e-42])), "divided by its factor, .*is damaged"),
        (replaced(layer("fc", "InnerProduct", np.full((5, 24), np.nan), [0] * 5)), "layer 'fc': a blob holds NaN"),
        ([*small_layers(), small_layers()[0]], "has more than one layer called conv"),
        ([], "it holds no layer with weights$"),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_is_changed(
    tmp_path: Path, layers: list[CaffeLayer], message: str
) -> None:
    net = Small()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(CheckpointError, match=message):
        load_caffe(net, write(tmp_path / "net.caffemodel", layers))
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def one_blob(content: bytes) -> bytes:
    return field(100, field(1, b"conv") + field(2, b"Convolution") + field(7, content))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"\x80", "ends within a number; is it truncated"),
        (b"\xff" * 11, "more than ten bytes"),
        (field(100, b"abc")[:-1], "field 100 should have 3 bytes and 2 are left; is it truncated"),
        (varint(1 << 3 | 3), r"field 1 is stored in an unknown way \(3\)"),
        (b"\x00\x00", "a field has the number 0"),
        (field(2, b"layer"), "of an older format, which Caffe's upgrade_net_proto_binary converts"),
        (one_blob(field(5, bytes(6))), "layer 'conv': 6 bytes are no whole number of f4 values"),
        (one_blob(field(7, field(1, bytes([2, 3]))) + field(5, bytes(8))), r"shape \[2, 3\] should hold 6 .* holds 2"),
        (one_blob(field(7, field(1, varint(1 << 40)))), "impossible shape"),
        (one_blob(field(7, field(1, bytes(9)))), "impossible shape"),
        (one_blob(field(7, field(1, b"\x80"))), "layer 'conv': it ends within a number"),
        (one_blob(field(8, np.float64(1e300).tobytes())), "layer 'conv': a blob holds NaN or infinite"),
        (field(100, field(1, b"conv") + 9 * field(7, b"")), "layer 'conv' has 9 blobs, and no layer has more than 8"),
        ((1 << 14) * field(100, field(7, b"")) + field(100, field(7, b"")), "more than 16384 layers with weights"),
        (b"", "it holds no layer with weights$"),
    ],
    ids=map(str, range(15)),
)
def test_damaged_files_are_refused(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "net.caffemodel"
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=message):
        read_caffemodel(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"net\.caffemodel cannot be read: No such file"):
        read_caffemodel(tmp_path / "net.caffemodel")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    raw = write(tmp_path / "whole.caffemodel", small_layers()).read_bytes()
    path = tmp_path / "cut.caffemodel"
    for length in range(0, len(raw), 7):
        path.write_bytes(raw[:length])
        with pytest.raises(CheckpointError):
            load_caffe(Small(), path)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_change_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A few changed bytes never give any other exception, and never a number that is not finite."""
    path = tmp_path_factory.mktemp("caffe") / "net.caffemodel"
    blob = data.draw(st.sampled_from([packed_blob, loose_blob, old_blob]))
    raw = bytearray(write(path, small_layers(), blob).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw)
    net = Small()
    with contextlib.suppress(CheckpointError):
        load_caffe(net, path)
    assert all(torch.isfinite(tensor).all() for tensor in net.state_dict().values())

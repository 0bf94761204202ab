"""ncnn files: what is read computes what the layers say, and damaged files are refused."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from edgekit.errors import CheckpointError
from edgekit.models.ncnn_graph import FLOAT16_TAG, read_ncnn

PARAM = """7767517
6 7
Input images 0 1 images
Convolution stem 1 1 images a 0=4 1=3 3=2 4=1 5=1 6=108
Swish act 1 1 a b
Split fork 1 2 b c d
ConvolutionDepthWise deep 1 1 c e 0=4 1=3 3=1 4=1 5=1 6=36 7=4 9=4
BinaryOp sum 2 1 d e f 0=0
"""


def write(folder: Path, *, param: str = PARAM, half: bool = True, cut: int = 0, extra: bytes = b"") -> Path:
    """A network of two convolutions, the first stored as float16 if ``half``."""
    generator = np.random.default_rng(0)
    stem, deep = generator.normal(size=108).astype(np.float32), generator.normal(size=36).astype(np.float32)
    bias = np.arange(4, dtype=np.float32)
    first = FLOAT16_TAG.to_bytes(4, "little") + stem.astype(np.float16).tobytes() if half else bytes(4) + stem.tobytes()
    raw = first + bias.tobytes() + bytes(4) + deep.tobytes() + bias.tobytes()
    path = folder / "net.param"
    path.write_text(param)
    path.with_suffix(".bin").write_bytes(raw[: len(raw) - cut] + extra)
    return path


@pytest.mark.parametrize("half", [True, False])
def test_layers_compute_what_they_say(tmp_path: Path, half: bool) -> None:
    graph = read_ncnn(write(tmp_path, half=half))
    generator = np.random.default_rng(0)
    stem = torch.from_numpy(generator.normal(size=(4, 3, 3, 3)).astype(np.float32))
    deep = torch.from_numpy(generator.normal(size=(4, 1, 3, 3)).astype(np.float32))
    image, bias = torch.rand(2, 3, 8, 8), torch.arange(4.0)
    before = F.silu(F.conv2d(image, stem, bias, stride=2, padding=1))
    expected = before + torch.sigmoid(F.conv2d(before, deep, bias, padding=1, groups=4))
    torch.testing.assert_close(graph(image, ("f",))[0], expected, atol=2e-2 if half else 1e-5, rtol=0)


def test_nothing_of_it_learns(tmp_path: Path) -> None:
    assert not any(parameter.requires_grad for parameter in read_ncnn(write(tmp_path)).parameters())


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("hello\n", "does not start with 7767517"),
        ("7767517\n0 0\n", "holds no layers"),
        (PARAM.replace("Swish", "Mystery"), "line 5: the layer type 'Mystery' is not known here"),
        (PARAM.replace("1 1 a b", "1 1 nobody b"), r"line 5: layer 'act' reads \['nobody'\]"),
        (PARAM.replace("1 1 a b", "1 1 a"), "line 5"),
        (PARAM.replace("0=4 1=3 3=2", "0=four 1=3 3=2"), "0=four is not a whole number"),
        (PARAM.replace("6=108", "6=107"), "layer stem has impossible sizes"),
        (PARAM.replace("0=4 1=3 3=2", "0=400000000 1=3 3=2"), "layer stem has impossible sizes"),
        (PARAM.replace("4=1 5=1 6=108", "4=1 6=108"), "layer stem is dilated or has no bias"),
        (PARAM.replace("BinaryOp sum 2 1 d e f 0=0\n", "Convolution x 1 1 e f 0=4 1=1 5=1 6=16\n"), "is truncated"),
    ],
)
def test_a_damaged_description_is_refused(tmp_path: Path, param: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_ncnn(write(tmp_path, param=param))


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="truncated: it has 396 bytes"):
        read_ncnn(write(tmp_path, cut=4))
    with pytest.raises(CheckpointError, match="has 8 bytes that no layer of it reads"):
        read_ncnn(write(tmp_path, extra=bytes(8)))
    path = write(tmp_path)
    raw = bytearray(path.with_suffix(".bin").read_bytes())
    path.with_suffix(".bin").write_bytes(b"\1" + raw[1:])
    with pytest.raises(CheckpointError, match=r"stored in an unknown way \(tag 0x1306b01\)"):
        read_ncnn(path)
    raw[-4:] = np.float32(np.nan).tobytes()
    path.with_suffix(".bin").write_bytes(raw)
    with pytest.raises(CheckpointError, match="layer deep holds NaN"):
        read_ncnn(path)


def test_a_missing_half_is_named(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.with_suffix(".bin").unlink()
    with pytest.raises(CheckpointError, match=r"net\.bin cannot be read: No such file"):
        read_ncnn(path)
    path.write_bytes(b"\xff\xfe\x00")
    path.with_suffix(".bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="it is not text"):
        read_ncnn(path)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_change_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """One changed character or byte never gives any other exception."""
    path = write(tmp_path_factory.mktemp("ncnn"))
    text = path.read_text()
    at = data.draw(st.integers(0, len(text) - 1))
    path.write_text(text[:at] + data.draw(st.sampled_from("0123456789=- xX\n\t.")) + text[at + 1 :])
    raw = bytearray(path.with_suffix(".bin").read_bytes())
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.with_suffix(".bin").write_bytes(raw)
    with contextlib.suppress(CheckpointError):
        read_ncnn(path)

"""The reference executor: float operations against PyTorch on masked dense maps, integers against plain loops."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekit.errors import UsageError
from edgekit.sparse.checks import check_program
from edgekit.sparse.program import DType, Kind, Level, Operation, Output, Program, Tensor
from edgekit.sparse.reference import run_reference

torch = pytest.importorskip("torch", reason="needs PyTorch, which the export extra brings")

from torch.nn import functional as F  # noqa: E402

RANDOM = np.random.default_rng(0)
MASK = np.array([[1, 0], [0, 1], [1, 1]], np.bool_)
"""3x2 cells, so levels of 12x8, 6x4, 3x2 and 2x1 sites."""

MASKS = {"some": MASK, "all": np.ones((3, 2), np.bool_), "none": np.zeros((3, 2), np.bool_)}
FLOAT = {"dtype": DType.FLOAT32}


def normal(*shape: int) -> Any:
    return RANDOM.normal(size=shape).astype(np.float32)


def planes(values: NDArray[Any]) -> Any:
    """[rows, columns, channels] -> [1, channels, rows, columns]"""
    return torch.from_numpy(np.ascontiguousarray(values.transpose(2, 0, 1)))[None]


WINDOWS = [
    # kernel, stride, (top, left, bottom, right), result
    ((1, 1), 1, (0, 0, 0, 0), (12, 8)),
    ((3, 3), 1, (1, 1, 1, 1), (12, 8)),
    ((3, 3), 2, (1, 1, 1, 1), (6, 4)),
    ((3, 3), 2, (0, 0, 1, 1), (6, 4)),
    ((5, 7), 1, (2, 3, 2, 3), (12, 8)),
    ((7, 7), 4, (3, 3, 0, 0), (3, 2)),
    ((1, 1), 2, (0, 0, 0, 0), (6, 4)),
    ((3, 1), 1, (0, 0, 2, 0), (12, 8)),
]


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize(("kernel", "stride", "pads", "size"), WINDOWS)
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolution(
    single: ModuleType, kernel: Any, stride: int, pads: Any, size: Any, depthwise: bool, mask: Any
) -> None:
    filters = 5 if depthwise else 4
    weights = normal(filters, *kernel, 1 if depthwise else 5)
    image, bias = normal(12, 8, 5), normal(filters)
    operation = Operation(
        kind=Kind.DEPTHWISE if depthwise else Kind.CONV,
        input=0,
        output=1,
        weights=np.ascontiguousarray(weights[..., 0].transpose(1, 2, 0)) if depthwise else weights,
        bias=bias,
        low=0.0,
        high=6.0,
        **single.window(kernel, stride, pads),
    )
    found = single.result(single.program([(12, 8), size], [5, filters], operation, kinds=FLOAT), image, mask)
    top, left, bottom, right = pads
    padded = F.pad(planes(single.masked(image, mask)), (left, right, top, bottom))
    dense = F.conv2d(
        padded,
        torch.from_numpy(weights.transpose(0, 3, 1, 2).copy()),
        torch.from_numpy(bias),
        stride,
        groups=5 if depthwise else 1,
    )
    assert found == pytest.approx(single.expected(F.relu6(dense), mask), abs=1e-5)


def test_residual_and_multipliers(single: ModuleType) -> None:
    weights, bias, factors, image = normal(4, 3, 3, 4), normal(4), normal(4), normal(12, 8, 4)
    operation = Operation(
        kind=Kind.CONV, input=0, second=0, output=1, weights=weights, bias=bias, multipliers=factors, low=-1.0,
        **single.window((3, 3), 1, (1, 1, 1, 1)),
    )  # fmt: skip
    found = single.result(single.program([(12, 8), (12, 8)], [4, 4], operation, kinds=FLOAT), image, MASK)
    inputs = planes(single.masked(image, MASK))
    dense = F.conv2d(inputs, torch.from_numpy(weights.transpose(0, 3, 1, 2).copy()), torch.from_numpy(bias), padding=1)
    dense = (dense * torch.from_numpy(factors)[:, None, None] + inputs).clamp(min=-1)
    assert found == pytest.approx(single.expected(dense, MASK), abs=1e-5)


def test_crelu(single: ModuleType) -> None:
    """Both halves, each with its own scale and shift."""
    weights, bias, image = normal(3, 1, 1, 2), normal(3), normal(12, 8, 2)
    scales, shifts = np.abs(normal(6)) + 0.5, normal(6)
    factors = scales * np.repeat([1, -1], 3).astype(np.float32)
    operation = Operation(
        kind=Kind.CONV,
        input=0,
        output=1,
        crelu=True,
        weights=weights,
        bias=np.tile(bias, 2) + shifts / factors,
        multipliers=factors,
        low=0.0,
    )
    found = single.result(single.program([(12, 8), (12, 8)], [2, 6], operation, kinds=FLOAT), image, MASK)
    x = F.conv2d(planes(image), torch.from_numpy(weights.transpose(0, 3, 1, 2).copy()), torch.from_numpy(bias))
    both = torch.cat([x, -x], 1) * torch.from_numpy(scales)[:, None, None] + torch.from_numpy(shifts)[:, None, None]
    assert found == pytest.approx(single.expected(F.relu(both), MASK), abs=1e-5)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_max_pool(single: ModuleType, mask: Any) -> None:
    """All values are below 0: an inactive site inside the map counts as 0, one outside not at all."""
    image = -np.abs(normal(12, 8, 3)) - 1
    operation = Operation(kind=Kind.MAXPOOL, input=0, output=1, **single.window((3, 3), 2, (1, 1, 1, 1)))
    found = single.result(single.program([(12, 8), (6, 4)], [3, 3], operation, kinds=FLOAT), image, mask)
    dense = F.max_pool2d(planes(single.masked(image, mask)), 3, 2, 1)
    assert np.array_equal(found, single.expected(dense, mask))


def test_max_pool_of_an_odd_map_sees_less_at_its_end(single: ModuleType) -> None:
    image = -np.abs(normal(3, 2, 3)) - 1
    operation = Operation(kind=Kind.MAXPOOL, input=0, output=1, **single.window((2, 2), 2, (0, 0, 1, 0)))
    found = single.result(single.program([(3, 2), (2, 1)], [3, 3], operation, kinds=FLOAT), image, MASK)
    dense = F.max_pool2d(planes(single.masked(image, MASK)), 2, 2, ceil_mode=True)
    assert np.array_equal(found, single.expected(dense, MASK))


def test_average_pool(single: ModuleType) -> None:
    image = normal(12, 8, 3)
    operation = Operation(
        kind=Kind.AVGPOOL, input=0, output=1, first_scale=1 / 16, **single.window((4, 4), 4, (0,) * 4)
    )
    found = single.result(single.program([(12, 8), (3, 2)], [3, 3], operation, kinds=FLOAT), image, MASK)
    assert found == pytest.approx(single.expected(F.avg_pool2d(planes(single.masked(image, MASK)), 4), MASK), abs=1e-6)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_upsample(single: ModuleType, factor: int) -> None:
    image = normal(3, 2, 3)
    operation = Operation(kind=Kind.UPSAMPLE, input=0, output=1, stride=factor)
    found = single.result(
        single.program([(3, 2), (3 * factor, 2 * factor)], [3, 3], operation, kinds=FLOAT), image, MASK
    )
    dense = F.interpolate(planes(single.masked(image, MASK)), scale_factor=factor, mode="nearest")
    assert np.array_equal(found, single.expected(dense, MASK))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_deconvolution(single: ModuleType, mask: Any) -> None:
    image, weights, bias = normal(6, 4, 3), normal(4, 4, 3), normal(3)
    fields = single.window((4, 4), 2, (1, 1, 1, 1))
    operation = Operation(kind=Kind.DECONV, input=0, output=1, weights=weights, bias=bias, high=1.0, **fields)
    found = single.result(single.program([(6, 4), (12, 8)], [3, 3], operation, kinds=FLOAT), image, mask)
    kernels = torch.from_numpy(weights.transpose(2, 0, 1)[:, None].copy())
    inputs = planes(single.masked(image, mask))
    dense = F.conv_transpose2d(inputs, kernels, torch.from_numpy(bias), stride=2, padding=1, groups=3)
    assert found == pytest.approx(single.expected(dense.clamp(max=1), mask), abs=1e-5)


def test_add(single: ModuleType) -> None:
    image = normal(12, 8, 3)
    operation = Operation(kind=Kind.ADD, input=0, second=0, output=1, low=-1.0, high=2.0)
    found = single.result(single.program([(12, 8), (12, 8)], [3, 3], operation, kinds=FLOAT), image, MASK)
    assert np.array_equal(found, single.masked(np.clip(image + image, -1, 2), MASK))


def test_operations_can_share_an_output(single: ModuleType) -> None:
    image = normal(12, 8, 3)
    first = Operation(kind=Kind.UPSAMPLE, input=0, output=1, channel_offset=3)
    second = Operation(kind=Kind.ADD, input=0, second=0, output=1)
    found = single.result(single.program([(12, 8), (12, 8)], [3, 6], first, second, kinds=FLOAT), image, MASK)
    assert np.array_equal(found, single.masked(np.concatenate([image + image, image], axis=2), MASK))


def test_without_a_mask_all_sites_are_active(single: ModuleType) -> None:
    image = normal(5, 7, 3)
    operation = Operation(kind=Kind.ADD, input=0, second=0, output=1)
    made = single.program([(5, 7), (5, 7)], [3, 3], operation, kinds=FLOAT, masked=False)
    assert np.array_equal(single.result(made, image, None), image + image)


def test_numbers_change_their_kind() -> None:
    """Pixels to uint8, integers to float32 in a convolution, QUANTISE, DEQUANTISE, and an output that is uint8."""
    byte = {"low": 0, "high": 255}
    tensors = (
        Tensor(level=0, channels=2, dtype=DType.UINT8, scale=0.02, zero_point=120),
        Tensor(level=0, channels=2),
        Tensor(level=0, channels=2, dtype=DType.UINT8, scale=0.05, zero_point=90),
        Tensor(level=0, channels=2),
    )
    weights, bias = RANDOM.integers(-127, 128, (2, 1, 1, 2)).astype(np.int8), np.array([40, -70], np.int32)
    factors = np.array([2e-4, 3e-4], np.float32)
    operations = (
        Operation(
            kind=Kind.INPUT, output=0, weights=np.array([100, 110], np.float32), bias=np.array([60, 70], np.float32),
            **byte,
        ),
        Operation(kind=Kind.CONV, input=0, output=1, weights=weights, bias=bias, multipliers=factors, high=1.5),
        Operation(kind=Kind.QUANTISE, input=1, output=2, **byte),
        Operation(kind=Kind.DEQUANTISE, input=2, output=3),
        *(Operation(kind=Kind.OUTPUT, input=tensor, output=tensor, anchors=1) for tensor in range(4)),
    )  # fmt: skip
    made = Program(
        levels=(Level(rows=5, columns=4, masked=False),),
        tensors=tensors,
        operations=operations,
        outputs=tuple(Output(name=f"tensor_{index}", rows=20, columns=2) for index in range(4)),
    )
    check_program(made)
    pixels = RANDOM.integers(0, 256, (5, 4, 2), np.uint8)
    found = run_reference(made, pixels, None)
    x = (pixels.reshape(20, 2).astype(np.float32) - operations[0].weights) / operations[0].bias
    q = np.clip(np.rint(x * (np.float32(1) / np.float32(0.02))) + 120, 0, 255)
    assert np.array_equal(found["tensor_0"], (q - 120).astype(np.float32) * np.float32(0.02))
    acc = ((q - 120) @ weights.reshape(2, 2).T.astype(np.float64)).astype(np.int64) + bias
    real = np.minimum(acc.astype(np.float32) * factors, np.float32(1.5))
    assert np.array_equal(found["tensor_1"], real)
    q = np.clip(np.rint(real * (np.float32(1) / np.float32(0.05))) + 90, 0, 255)
    assert np.array_equal(found["tensor_2"], (q - 90).astype(np.float32) * np.float32(0.05))
    assert np.array_equal(found["tensor_3"], found["tensor_2"])
    assert np.array_equal(run_reference(made, x.reshape(5, 4, 2), None)["tensor_1"], real)


def test_rows_of_an_output(single: ModuleType) -> None:
    """Anchors of a site lie behind each other; what nobody writes is 0, and so is every inactive site."""
    made = single.program([(3, 2), (3, 2)], [4, 4], Operation(kind=Kind.ADD, input=0, second=0, output=1), kinds=FLOAT)
    output = Operation(kind=Kind.OUTPUT, input=1, output=0, row_offset=3, anchors=2)
    made = replace(
        made, operations=(*made.operations[:-1], output), outputs=(Output(name="result", rows=16, columns=2),)
    )
    check_program(made)
    image = normal(3, 2, 4)
    found = run_reference(made, image, MASK)["result"]
    expected = np.zeros((16, 2), np.float32)
    expected[3:15] = single.masked(2 * image, MASK).reshape(12, 2)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_random_programs_run(programs: ModuleType, dtype: str) -> None:
    """Whatever the masks: finite numbers, zeros where nothing is active, and the same again."""
    for seed in range(20):
        random = np.random.default_rng(seed)
        made = programs.random_program(random, dtype=dtype)
        image, mask = programs.random_inputs(made, random)
        found = run_reference(made, image, mask)
        assert [values.shape for values in found.values()] == [(output.rows, output.columns) for output in made.outputs]
        assert all(np.isfinite(values).all() for values in found.values())
        if mask is not None:
            nothing = run_reference(made, image, np.zeros_like(mask))
            assert not any(values.any() for values in nothing.values())


def test_other_inputs_are_refused(single: ModuleType) -> None:
    made = single.program([(3, 2), (3, 2)], [4, 4], Operation(kind=Kind.ADD, input=0, second=0, output=1), kinds=FLOAT)
    with pytest.raises(UsageError, match=r"expected a uint8 or float32 image \(3, 2, 4\), got float32 \(2, 3, 4\)"):
        run_reference(made, normal(2, 3, 4), MASK)
    with pytest.raises(UsageError, match=r"expected a uint8 or float32 image \(3, 2, 4\), got float64 \(3, 2, 4\)"):
        run_reference(made, np.zeros((3, 2, 4)), MASK)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"expected a bool mask \(3, 2\), got bool \(2, 3\)"):
        run_reference(made, normal(3, 2, 4), MASK.T)
    with pytest.raises(UsageError, match=r"expected a bool mask \(3, 2\), got float32 \(3, 2\)"):
        run_reference(made, normal(3, 2, 4), MASK.astype(np.float32))  # type: ignore[arg-type]
    unmasked = single.program([(3, 2)], [4], kinds=FLOAT, masked=False)
    with pytest.raises(UsageError, match=r"expected no mask, because the program takes none, got one of \(3, 2\)"):
        run_reference(unmasked, normal(3, 2, 4), MASK)


def test_infinite_bounds_clamp_nothing(single: ModuleType) -> None:
    image = normal(3, 2, 4) * np.float32(1e30)
    operation = Operation(kind=Kind.ADD, input=0, second=0, output=1, low=-inf, high=inf)
    found = single.result(single.program([(3, 2), (3, 2)], [4, 4], operation, kinds=FLOAT), image, MASKS["all"])
    assert np.array_equal(found, image * 2)

"""The native engine beside the numpy reference: every instruction set of this machine, with one thread and two."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.masks.pyramid import mask_at
from edgekit.sparse import _native
from edgekit.sparse.format import with_checksum, write_program
from edgekit.sparse.program import DType, Kind, Operation
from edgekit.sparse.reference import run_reference

INSTRUCTION_SETS = _native.instruction_sets()


def run(data, image, mask, *, isa="", threads=1):
    engine = _native.Engine(data, threads, isa)
    return engine.run(np.ascontiguousarray(image), None if mask is None else mask.astype(np.uint8))


def sums_floats(program):
    """Whether an operation's float32 result depends on the order of its sums."""
    kinds = (Kind.CONV, Kind.DEPTHWISE, Kind.DECONV, Kind.AVGPOOL, Kind.ADD)
    return any(
        operation.kind in kinds and program.tensors[operation.input].dtype is DType.FLOAT32
        for operation in program.operations
    )


def assert_same(got, expected, program):
    assert got.keys() == expected.keys()
    rounds = any(operation.kind is Kind.QUANTISE for operation in program.operations)
    for name, values in expected.items():
        largest = max(1.0, np.abs(values).max())
        if not sums_floats(program):  # integers: exact, on every processor
            np.testing.assert_array_equal(got[name], values)
        elif not rounds:
            np.testing.assert_allclose(got[name], values, rtol=0, atol=1e-4 * largest)
        else:  # a sum halfway between two integers may be rounded to either, and what is made of it is a little off
            apart = np.abs(got[name] - values)
            assert apart.max(initial=0) <= 0.05 * largest, name
            assert apart.mean() <= 0.005 * largest, name


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_random_programs_equal_the_reference(programs, isa, dtype, seed):
    random = np.random.default_rng(seed)
    program = programs.random_program(random, dtype=dtype)
    image, mask = programs.random_inputs(program, random)
    expected = run_reference(program, image, mask)
    data = write_program(program)
    for threads in (1, 2):
        assert_same(run(data, image, mask, isa=isa, threads=threads), expected, program)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_deep_convolutions_add_up_their_slices(single, isa):
    random = np.random.default_rng(0)
    channels, filters, size = 1541, 180, (12, 8)  # four slices, the last ending within a block; 1.1 MB of weights

    def deep(output, **more):
        weights = (random.normal(size=(filters, 1, 1, channels)) / 40).astype(np.float32)
        bias = random.normal(size=filters).astype(np.float32)
        return Operation(
            kind=Kind.CONV,
            input=0,
            output=output,
            weights=weights,
            bias=bias,
            **single.window((1, 1), 1, (0,) * 4),
            **more,
        )

    operations = (deep(1, low=-1.0, high=1.0), deep(2, second=1, second_scale=1.0, low=0.0, high=np.inf))
    kinds = {"dtype": DType.FLOAT32}
    program = single.program([size] * 3, [channels, filters, filters], *operations, kinds=kinds)
    image = random.normal(size=(*size, channels)).astype(np.float32)
    for share in (0.5, 1.0):
        mask = random.random((3, 2)) < share
        expected = run_reference(program, image, mask)
        for threads in (1, 2):
            assert_same(run(write_program(program), image, mask, isa=isa, threads=threads), expected, program)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("pixels", [False, True])
def test_an_image_of_whole_blocks_is_read_in_place(single, isa, pixels):
    """As the RoI head of PVANet reads what was pooled: sites are far apart, and some are inactive."""
    random = np.random.default_rng(0)
    channels, size = [1200, 40, 7], (12, 8)  # 75 blocks, three slices
    convolutions = [
        Operation(
            kind=Kind.CONV,
            input=index,
            output=index + 1,
            weights=(random.normal(size=(channels[index + 1], 1, 1, channels[index])) / 40).astype(np.float32),
            bias=random.normal(size=channels[index + 1]).astype(np.float32),
            **single.window((1, 1), 1, (0,) * 4),
        )
        for index in range(2)
    ]
    program = single.program([size] * 3, channels, *convolutions, kinds={"dtype": DType.FLOAT32})
    shape = (*size, channels[0])
    image = random.integers(0, 256, shape, np.uint8) if pixels else random.normal(size=shape).astype(np.float32)
    for share in (1.0, 0.5):
        mask = random.random((3, 2)) < share
        if not pixels:
            image[~mask_at(mask, rows=size[0], columns=size[1])] = np.nan  # nobody may look there
        expected = run_reference(program, np.nan_to_num(image), mask)
        for threads in (1, 2):
            assert_same(run(write_program(program), image, mask, isa=isa, threads=threads), expected, program)


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.UINT8])
def test_chains_whose_maps_no_cache_holds(single, isa, dtype):
    """1x1, 3x3 and 1x1 convolutions around a residual, and a convolution with the pool behind it, go row by row."""
    random = np.random.default_rng(0)
    integers = dtype is DType.UINT8
    size, half = (192, 128), (96, 64)
    channels = [3, 32, 12, 20, 32, 40, 40]

    def conv(output, filters, kernel, *, crelu=False, second=None):
        depth, written = kernel * kernel * channels[output - 1], filters * (1 + crelu)
        weights = random.normal(size=(filters, kernel, kernel, channels[output - 1])) / depth**0.5
        constants = {"weights": weights.astype(np.float32), "bias": random.normal(size=written).astype(np.float32)}
        signs = np.where(np.arange(written) < filters, 1, -1)
        bounds = {"low": -1.0, "high": 2.0}
        if integers:
            constants = {
                "weights": np.clip(weights * depth**0.5 * 40, -127, 127).astype(np.int8),
                "bias": random.integers(-500, 500, written, np.int32),
            }
            bounds = {"low": 0, "high": 255}
            signs = signs / (40 * depth**0.5)
        if crelu or integers:
            constants["multipliers"] = signs.astype(np.float32)
        pads = (kernel // 2,) * 4
        place = single.window((kernel, kernel), 1, pads)
        return Operation(
            kind=Kind.CONV, input=output - 1, output=output, crelu=crelu, second=second, **constants, **bounds, **place
        )

    pool = Operation(kind=Kind.MAXPOOL, input=5, output=6, **single.window((3, 3), 2, (0, 0, 1, 1)))
    if integers:
        pool = replace(pool, low=0, high=255)
    operations = (
        conv(1, 16, 3, crelu=True),
        conv(2, 12, 1),
        conv(3, 10, 3, crelu=True),
        conv(4, 32, 1, second=1),
        conv(5, 40, 3),
        pool,
    )
    kinds = {"dtype": dtype, **({"scale": 0.02, "zero_point": 120} if integers else {})}
    program = single.program([*[size] * 6, half], channels, *operations, kinds=kinds)
    image = random.normal(size=(*size, 3)).astype(np.float32)
    engines = [_native.Engine(write_program(program), threads, isa) for threads in (1, 3)]
    assert [2, 3, 4] in engines[0].steps()
    assert [5, 6] in engines[0].steps()
    for share in (1.0, 0.5):
        mask = random.random((3, 2)) < share
        expected = run_reference(program, image, mask)
        for engine in engines:
            assert_same(engine.run(image, mask.astype(np.uint8)), expected, program)


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_what_an_earlier_mask_left_behind_does_not_show(programs, dtype, seed):
    random = np.random.default_rng(seed)
    program = programs.random_program(random, dtype=dtype, masked=True)
    engine = _native.Engine(write_program(program), 2)
    for _ in range(4):
        image, mask = programs.random_inputs(program, random)
        got = engine.run(np.ascontiguousarray(image), mask.astype(np.uint8))
        assert_same(got, run_reference(program, image, mask), program)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_the_number_of_threads_changes_nothing(programs, seed):
    random = np.random.default_rng(seed)
    program = programs.random_program(random, dtype="float32")
    image, mask = programs.random_inputs(program, random)
    data = write_program(program)
    one, *others = (run(data, image, mask, threads=threads) for threads in (1, 2, 3, 7))
    for other in others:
        for name, values in one.items():
            np.testing.assert_array_equal(other[name], values)


def test_far_more_threads_than_processors(programs):
    """Such a team is late again and again, so its caller works alone now and then: no result shows it."""
    random = np.random.default_rng(3)
    program = programs.random_program(random, dtype="uint8")
    engine = _native.Engine(write_program(program), 24)
    for _ in range(40):
        image, mask = programs.random_inputs(program, random)
        expected = run_reference(program, image, mask)
        got = engine.run(np.ascontiguousarray(image), None if mask is None else mask.astype(np.uint8))
        assert_same(got, expected, program)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_a_forged_program_is_refused_or_runs(programs, seed):
    random = np.random.default_rng(seed)
    forged = bytearray(write_program(programs.random_program(random, dtype=["float32", "uint8"][seed % 2], steps=4)))
    for _ in range(int(random.integers(1, 4))):
        forged[int(random.integers(16, len(forged)))] = int(random.integers(0, 256))
    try:
        engine = _native.Engine(with_checksum(bytes(forged)), 1)
    except (_native.ProgramError, MemoryError):
        return
    rows, columns, channels = engine.image_shape
    if rows * columns * channels > 1 << 22:
        return
    image = random.integers(0, 256, (rows, columns, channels), dtype=np.uint8)
    mask = None if engine.mask_shape is None else random.integers(0, 2, engine.mask_shape, dtype=np.uint8)
    engine.run(image, mask)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", "fewer than its header"),
        (lambda data: b"x" + data[1:], "does not start with EKSPARSE"),
        (lambda data: data[:-1], "truncated"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "checksum"),
        (lambda data: data[:8] + b"\x02" + data[9:], "format version 2"),
    ],
)
def test_a_damaged_file_is_refused(programs, damage, message):
    data = write_program(programs.random_program(np.random.default_rng(0), dtype="float32"))
    with pytest.raises(_native.ProgramError, match=message):
        _native.Engine(damage(data), 1)


def test_wrong_arguments(programs):
    random = np.random.default_rng(3)
    program = programs.random_program(random, dtype="float32", masked=True)
    data = write_program(program)
    image, mask = programs.random_inputs(program, random)
    engine = _native.Engine(data, 1)
    with pytest.raises(ValueError, match="expected a mask"):
        engine.run(image, None)
    with pytest.raises(ValueError, match="zeros and ones"):
        engine.run(image, np.full(mask.shape, 2, np.uint8))
    with pytest.raises(ValueError, match="expected an image"):
        engine.run(image[:-1], mask.astype(np.uint8))
    with pytest.raises(ValueError, match="it can run: reference"):
        _native.Engine(data, 1, "sse9")
    with pytest.raises(ValueError, match="1 to 256 threads"):
        _native.Engine(data, 0)


def test_the_best_instruction_set_is_the_default(programs, monkeypatch):
    data = write_program(programs.random_program(np.random.default_rng(0), dtype="float32"))
    monkeypatch.delenv("EDGEKIT_ISA", raising=False)
    assert _native.Engine(data, 1).isa == INSTRUCTION_SETS[-1]
    monkeypatch.setenv("EDGEKIT_ISA", "reference")
    assert _native.Engine(data, 1).isa == "reference"


READERS = {
    "max pool": {"kind": Kind.MAXPOOL, "kernel_rows": 3, "kernel_columns": 3, "pad_top": 1, "pad_left": 1},
    "average pool": {"kind": Kind.AVGPOOL},
    "upsample": {"kind": Kind.UPSAMPLE, "stride": 1},
    "sum": {"kind": Kind.ADD, "second": 1},
    "sum with another": {"kind": Kind.ADD, "second": 0},
    "depthwise": {"kind": Kind.DEPTHWISE, "kernel_rows": 3, "kernel_columns": 3, "pad_top": 1, "pad_left": 1},
}


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.UINT8])
@pytest.mark.parametrize("reader", READERS)
def test_parts_of_a_concatenation_may_be_written_in_any_order(single, isa, dtype, reader):
    """What reads them block by block starts at the first channel, wherever that lies."""
    random = np.random.default_rng(0)
    whole, bounds = dtype is DType.UINT8, {"low": 0, "high": 255} if dtype is DType.UINT8 else {}
    kinds = {"dtype": dtype, "scale": 0.05, "zero_point": 128} if whole else {}
    fields = dict(READERS[reader]) | {"input": 1, "output": 2} | bounds
    if fields["kind"] is Kind.DEPTHWISE:
        weights = random.integers(-9, 9, (3, 3, 30))
        fields["weights"] = weights.astype(np.int8 if whole else np.float32)
        fields["bias"] = random.integers(-9, 9, 30).astype(np.int32 if whole else np.float32)
        fields["multipliers"] = np.full(30, 0.02, np.float32)
    if "sum with" in reader:
        sizes, channels = [(6, 4)] * 3, [30, 30, 30]
        parts = []
        for first in (20, 0, 10):
            kernel = np.eye(30)[first : first + 10].reshape(10, 1, 1, 30)
            constants = {
                "weights": (kernel * (100 if whole else 1)).astype(np.int8 if whole else np.float32),
                "bias": np.zeros(10, np.int32 if whole else np.float32),
                "multipliers": np.full(10, 0.01 if whole else 1.0, np.float32),
            }
            parts.append(Operation(kind=Kind.CONV, input=0, output=1, channel_offset=first, **constants, **bounds))
    else:
        sizes, channels = [(6, 4)] * 3, [10, 30, 30]
        parts = [
            Operation(kind=Kind.UPSAMPLE, stride=1, input=0, output=1, channel_offset=first, **bounds)
            for first in (20, 0, 10)
        ]
    made = single.program(sizes, channels, *parts, Operation(**fields), kinds=kinds)
    image, mask = random.normal(size=(6, 4, channels[0])).astype(np.float32), np.array([[1, 0], [1, 1], [0, 1]], bool)
    expected = run_reference(made, image, mask)
    assert np.abs(expected["result"]).max() > 0
    assert_same(run(write_program(made), image, mask, isa=isa), expected, made)

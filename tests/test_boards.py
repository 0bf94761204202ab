"""Board files and the loader that checks them; the machines are folders that imitate /proc."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from edgekit.backends import ENGINES, load_engine
from edgekit.boards import (
    GRAPH_SUFFIXES,
    PRECISIONS,
    Board,
    boards_folder,
    cpu_flags,
    detect_board,
    list_boards,
    load_board,
    read_board,
)
from edgekit.bundle.manifest import GRAPH_FORMATS
from edgekit.errors import UsageError

BOARD_FILES = sorted(boards_folder().glob("*.toml"))


@pytest.mark.parametrize("path", BOARD_FILES, ids=lambda path: path.stem)
def test_every_board_file_loads(path: Path) -> None:
    board = read_board(path)
    assert board == load_board(path.stem)
    assert board.cpu.cores >= board.export.threads >= 1
    assert ENGINES[board.export.engines[0]][1] == GRAPH_SUFFIXES[board.export.format]
    assert board.detect.model or board.detect.compatible or board.detect.cpu_flags


def test_the_promised_boards_are_there() -> None:
    names = {board.name for board in list_boards()}
    assert {"raspberry-pi-4", "raspberry-pi-5", "jetson-nano", "jetson-orin-nano", "desktop"} <= names


def test_names_and_aliases_are_unique() -> None:
    names = [name for board in list_boards() for name in (board.name, *board.aliases)]
    assert len(names) == len(set(names))


def test_jetson_is_the_orin_nano() -> None:
    assert load_board("jetson") == load_board("jetson-orin-nano")


@pytest.mark.parametrize("name", ["jetson-nano", "jetson-orin-nano"])
def test_jetsons_try_tensorrt_then_cuda_then_cpu_and_cache_their_engines(name: str) -> None:
    providers = load_board(name).export.engine_options["onnxruntime"]["providers"]
    assert [provider["name"].removesuffix("ExecutionProvider") for provider in providers] == ["Tensorrt", "CUDA", "CPU"]
    assert providers[0]["options"]["trt_fp16_enable"] is True
    assert providers[0]["options"]["trt_engine_cache_enable"] is True


@pytest.mark.parametrize("name", ["jetson-nano", "jetson-orin-nano"])
def test_the_runtime_accepts_the_options_and_falls_back(
    name: str, tiny: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("onnx", reason="the tiny graph is written with onnx")
    onnxruntime = pytest.importorskip("onnxruntime", reason="it is what reads the options")
    if "TensorrtExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime would build a TensorRT engine")
    monkeypatch.setenv("HOME", str(tmp_path))  # engines are cached below it
    options = load_board(name).export.engine_options["onnxruntime"]
    engine = load_engine("onnxruntime", tiny.onnx_omg(tmp_path / "omg.onnx"), threads=1, options=options)
    assert engine.name.endswith("CPU")
    assert "onnxruntime cannot use TensorrtExecutionProvider" in caplog.text


@pytest.mark.parametrize("board", list_boards(), ids=lambda board: board.name)
def test_a_bundle_may_name_the_first_engine(board: Board) -> None:
    suffix, engines = GRAPH_FORMATS[board.export.format]
    assert suffix == GRAPH_SUFFIXES[board.export.format]
    assert board.export.engines[0] in engines
    assert board.export.precision in PRECISIONS


def test_an_unknown_board_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"no board is called 'rasberry_pi5'; did you mean raspberry-pi-5"):
        load_board("rasberry_pi5")


@pytest.mark.parametrize("name", ["zzzz", "../boards/desktop", ""])
def test_an_unknown_board_without_a_near_name_lists_them(name: str) -> None:
    with pytest.raises(UsageError, match=r"no board is called .*desktop"):
        load_board(name)


def imitate(root: Path, *, model: str = "", compatible: tuple[str, ...] = (), cpuinfo: str = "") -> Path:
    """A root folder that looks like a board's."""
    tree = root / "proc/device-tree"
    tree.mkdir(parents=True)
    if model:
        (tree / "model").write_bytes(model.encode() + b"\0")
    if compatible:
        (tree / "compatible").write_bytes(b"".join(entry.encode() + b"\0" for entry in compatible))
    (root / "proc/cpuinfo").write_text(cpuinfo)
    return root


X86 = (
    "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu sse4_2 avx avx2 fma\n\nprocessor\t: 1\nflags\t\t: fpu\n"
)


@pytest.mark.parametrize(
    ("model", "compatible", "cpuinfo", "expected"),
    [
        ("Raspberry Pi 4 Model B Rev 1.4", ("raspberrypi,4-model-b", "brcm,bcm2711"), "", "raspberry-pi-4"),
        ("Raspberry Pi 400 Rev 1.0", ("raspberrypi,400", "brcm,bcm2711"), "", "raspberry-pi-4"),
        ("Raspberry Pi 5 Model B Rev 1.0", ("raspberrypi,5-model-b", "brcm,bcm2712"), "", "raspberry-pi-5"),
        ("Raspberry Pi 3 Model B Plus Rev 1.3", ("raspberrypi,3-model-b-plus", "brcm,bcm2837"), "", None),
        ("NVIDIA Jetson Nano Developer Kit", ("nvidia,p3450-0000", "nvidia,tegra210"), "", "jetson-nano"),
        ("NVIDIA Jetson Orin Nano Developer Kit", ("nvidia,p3767-0005", "nvidia,tegra234"), "", "jetson-orin-nano"),
        ("Some carrier board", ("nvidia,p3767-0003", "nvidia,tegra234"), "", "jetson-orin-nano"),
        ("NVIDIA Jetson AGX Orin Developer Kit", ("nvidia,p3701-0005", "nvidia,tegra234"), "", None),
        ("Radxa ROCK 5B", ("radxa,rock-5b", "rockchip,rk3588"), "", None),
        ("", (), X86, "desktop"),
        ("", (), "flags : fpu sse4_2\n", None),
        ("", (), "Features : fp asimd asimddp\n", None),
    ],
)
def test_detection(tmp_path: Path, model: str, compatible: tuple[str, ...], cpuinfo: str, expected: str | None) -> None:
    assert detect_board(imitate(tmp_path, model=model, compatible=compatible, cpuinfo=cpuinfo)) == expected


def test_detection_without_proc(tmp_path: Path) -> None:
    assert detect_board(tmp_path) is None
    assert cpu_flags(tmp_path) == frozenset()


def test_cpu_flags_on_arm(tmp_path: Path) -> None:
    root = imitate(tmp_path, cpuinfo="processor\t: 0\nFeatures\t: fp asimd asimddp\n")
    assert cpu_flags(root) == {"fp", "asimd", "asimddp"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("cores = 4", "cores = 'four'", r"boards/x\.toml: cpu: cores: expected a whole number, got 'four'"),
        ("cores = 4", "cores = true", r"cpu: cores: expected a whole number, got True"),
        ("clock_ghz = 1.8", "clock_ghz = 'fast'", r"cpu: clock_ghz: expected a number"),
        ("cores = 4", "", r"boards/x\.toml: cpu: cores: missing"),
        ("threads = 4", "thread = 4", r"export: thread: no such entry; did you mean threads\?"),
        ("threads = 4", "threads = 4\nzzz = 1", r"export: zzz: no such entry; it may have: format"),
        ("threads = 4", "threads = 0", r"export: threads: expected at least 1, got 0"),
        (
            'format = "tflite"',
            'format = "caffe"',
            r"export: format: expected one of tflite, openvino, onnx, sparse, got 'caffe'",
        ),
        (
            'precision = "int8"',
            'precision = "int4"',
            r"export: precision: expected one of fp32, fp16, int8, got 'int4'",
        ),
        ('uncalibrated_precision = "fp16"', 'uncalibrated_precision = "int8"', r"int8 needs calibration images"),
        ('engines = ["tflite", "onnxruntime"]', 'engines = ["ncnn"]', r"engines: no engine is called 'ncnn'"),
        (
            'engines = ["tflite", "onnxruntime"]',
            'engines = ["onnxruntime"]',
            r"the first one must read format 'tflite'",
        ),
        (
            'engines = ["tflite", "onnxruntime"]',
            'engines = "tflite"',
            r"export: engines: expected a list, got 'tflite'",
        ),
        ('engines = ["tflite", "onnxruntime"]', "engines = [1]", r"export: engines\[0\]: expected text, got 1"),
        ('name = "x"', 'name = "y"', r"boards/x\.toml: name: expected 'x', as the file is called, got 'y'"),
        ('name = "x"', "name = ", r"boards/x\.toml cannot be read: "),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (boards_folder() / "raspberry-pi-4.toml").read_text().replace('name = "raspberry-pi-4"', 'name = "x"')
    assert old in text
    path = tmp_path / "x.toml"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError, match=message):
        read_board(path)


def test_a_table_given_as_a_number_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('name = "x"\ntitle = "X"\nsoc = "X"\ncpu = 4\ndetect = {}\nmemory = {}\nexport = {}\n')
    with pytest.raises(UsageError, match=r"(?s)boards/x\.toml: cpu: expected a table, got 4"):
        read_board(path)

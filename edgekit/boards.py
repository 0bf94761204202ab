"""What edgekit knows about each board: one TOML file a board in ``boards/``, read into frozen dataclasses.

A board file holds facts (cores, clock, instructions, peak arithmetic) with their sources in comments, and the choices
that follow from them (``[export]``). A new board is a new file; nothing here names one.
"""

from __future__ import annotations

import difflib
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from edgekit.backends import ENGINES
from edgekit.errors import UsageError
from edgekit.programs import find_folder

GRAPH_SUFFIXES = {"tflite": ".tflite", "openvino": ".xml", "onnx": ".onnx", "sparse": ".sparse"}
"""Graph format -> suffix of its graph files, as in :data:`edgekit.backends.ENGINES`."""

PRECISIONS = ("fp32", "fp16", "int8")


@dataclass(frozen=True, kw_only=True)
class Detect:
    """How a machine is recognised as this board; any one entry is enough."""

    model: tuple[str, ...] = ()
    """Beginnings of ``/proc/device-tree/model``, e.g. ``Raspberry Pi 5``."""

    compatible: tuple[str, ...] = ()
    """Entries of ``/proc/device-tree/compatible``, e.g. ``brcm,bcm2712``."""

    cpu_flags: tuple[str, ...] = ()
    """For machines without a device tree: flags of ``/proc/cpuinfo`` that must all be there."""


@dataclass(frozen=True, kw_only=True)
class PeakRate:
    """Peak multiply-accumulates of one core, in 10^9 a second."""

    fp32: float
    int8: float
    fp16: float | None = None
    """None where the core has no fp16 arithmetic."""


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """The processor that runs what no accelerator does."""

    core: str
    """Microarchitecture, e.g. ``Cortex-A76``."""

    cores: int
    clock_ghz: float
    simd: tuple[str, ...]
    """Instruction sets that matter to inference: neon, fp16, dotprod, avx2, fma, avx_vnni."""

    gmacs_per_core: PeakRate


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Main memory, shared with the accelerator where there is one."""

    kind: str
    sizes_gb: tuple[float, ...]
    """Every size on sale."""

    bandwidth_gb_s: float | None = None
    """Nominal bandwidth in GB/s; None where no source gives it."""


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """A GPU or NPU that an engine can use."""

    name: str
    gmacs_fp32: float | None = None
    """Peak fp32 multiply-accumulates, in 10^9 a second."""

    gmacs_fp16: float | None = None
    """Peak fp16 multiply-accumulates, in 10^9 a second."""

    tops_int8_dense: float | None = None
    """Peak int8 operations as vendors count them, in 10^12 a second: two a multiply-accumulate."""


@dataclass(frozen=True, kw_only=True)
class PowerMode:
    """One setting of the board's power tool (``nvpmodel`` on a Jetson)."""

    name: str
    """As the tool prints it; its number differs from module to module."""

    cores: int
    watts: float | None = None
    cpu_mhz: int | None = None
    gpu_mhz: int | None = None


@dataclass(frozen=True, kw_only=True)
class ExportDefaults:
    """What ``edgekit export --target`` chooses unless told otherwise."""

    format: str
    """Graph format: ``onnx``, ``tflite``, ``openvino`` or ``sparse``."""

    precision: str
    """``fp32``, ``fp16`` or ``int8``."""

    uncalibrated_precision: str
    """Used instead when no calibration images are given: int8 cannot be made without them."""

    threads: int
    """CPU threads that the bundle asks its engine for."""

    engines: tuple[str, ...]
    """Engines that work on the board, best first; the first reads ``format``."""

    engine_options: Mapping[str, Any] = field(default_factory=dict)
    """Engine name -> settings that the engine's adapter passes on. ``onnxruntime``: ``providers``, a list of
    {``name``, ``options``} tried in order. ``openvino``: properties of ``compile_model``."""

    def __post_init__(self) -> None:
        if self.format not in GRAPH_SUFFIXES:
            raise ValueError(f"format: expected one of {', '.join(GRAPH_SUFFIXES)}, got {self.format!r}")
        for key in ("precision", "uncalibrated_precision"):
            if getattr(self, key) not in PRECISIONS:
                raise ValueError(f"{key}: expected one of {', '.join(PRECISIONS)}, got {getattr(self, key)!r}")
        if self.uncalibrated_precision == "int8":
            raise ValueError("uncalibrated_precision: int8 needs calibration images; say fp16 or fp32")
        for name in (*self.engines, *self.engine_options):
            if name not in ENGINES:
                raise ValueError(f"engines: no engine is called {name!r}; there are: {', '.join(ENGINES)}")
        if self.threads < 1:
            raise ValueError(f"threads: expected at least 1, got {self.threads}")
        if not self.engines or ENGINES[self.engines[0]][1] != GRAPH_SUFFIXES[self.format]:
            raise ValueError(f"engines: the first one must read format {self.format!r}, got {list(self.engines)}")


@dataclass(frozen=True, kw_only=True)
class Board:
    """One board: facts about it, and what to export for it."""

    name: str
    """What ``--target`` takes; also the stem of the file."""

    title: str
    """Name as its maker writes it."""

    soc: str
    """System on chip, e.g. ``Broadcom BCM2712``."""

    detect: Detect
    cpu: Cpu
    memory: Memory
    export: ExportDefaults
    aliases: tuple[str, ...] = ()
    """Other names that ``--target`` takes."""

    accelerator: Accelerator | None = None
    power_modes: tuple[PowerMode, ...] = ()


def boards_folder() -> Path:
    """The folder of the board files: the checkout's, or the package's in a wheel."""
    return find_folder("boards")


def list_boards() -> tuple[Board, ...]:
    """Every board, by name."""
    return tuple(read_board(path) for path in sorted(boards_folder().glob("*.toml")))


def load_board(name: str) -> Board:
    """The board called ``name``, or that has it as an alias.

    Raises:
        UsageError: no such board (near misses are suggested), or its file is malformed.
    """
    path = boards_folder() / f"{name}.toml"
    if Path(name).name == name and path.is_file():  # read alone, so that no other file's fault stands in the way
        return read_board(path)
    boards = list_boards()
    for board in boards:
        if name in board.aliases:
            return board
    names = [known for board in boards for known in (board.name, *board.aliases)]
    near = difflib.get_close_matches(name.lower().replace("_", "-"), names, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}."
    raise UsageError(
        f"no board is called {name!r}; {hint}\n`edgekit boards` lists them; a new one is a file in boards/."
    )


def detect_board(root: Path = Path("/")) -> str | None:
    """Name of the board this machine is, or None when no file describes it.

    Args:
        root: where ``proc/`` is found, so that any board can be imitated on any machine.
    """
    model = _device_tree(root, "model")
    compatible = _device_tree(root, "compatible")
    boards = list_boards()
    for board in boards:
        if any(text.startswith(start) for text in model for start in board.detect.model):
            return board.name
    for board in boards:
        if set(compatible) & set(board.detect.compatible):
            return board.name
    if model or compatible:
        return None
    flags = cpu_flags(root)
    for board in boards:
        if board.detect.cpu_flags and flags.issuperset(board.detect.cpu_flags):
            return board.name
    return None


def cpu_flags(root: Path = Path("/")) -> frozenset[str]:
    """Instruction-set flags of ``/proc/cpuinfo`` (``flags`` on x86, ``Features`` on Arm); empty where there is none."""
    try:
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _device_tree(root: Path, name: str) -> list[str]:
    """The NUL-terminated strings of one device-tree property; none on a machine without a device tree."""
    try:
        raw = (root / "proc/device-tree" / name).read_bytes()
    except OSError:
        return []
    return [text for text in raw.decode("utf-8", "replace").split("\0") if text]


def read_board(path: Path) -> Board:
    """Read and check one board file.

    Raises:
        UsageError: not TOML, or an entry that is missing, unknown or of the wrong type; the message names it.
    """
    where = f"boards/{path.name}"
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{where} cannot be read: {error}") from error
    board = _build(Board, document, where)
    if board.name != path.stem:
        raise UsageError(f"{where}: name: expected {path.stem!r}, as the file is called, got {board.name!r}")
    return board


_T = TypeVar("_T")


def _build(kind: type[_T], table: Any, where: str) -> _T:
    """``table`` as the dataclass ``kind``: every key known, every field without a default given, every type right."""
    assert is_dataclass(kind)
    if not isinstance(table, dict):
        raise UsageError(f"{where}: expected a table, got {table!r}")
    known = {item.name: item for item in fields(kind)}
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"it may have: {', '.join(known)}"
            raise UsageError(f"{where}: {key}: no such entry; {hint}")
    for name, item in known.items():
        if name not in table and item.default is MISSING and item.default_factory is MISSING:
            raise UsageError(f"{where}: {name}: missing")
    hints = typing.get_type_hints(kind)
    values = {key: _convert(hints[key], value, f"{where}: {key}") for key, value in table.items()}
    try:
        return kind(**values)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from error


_PLAIN: dict[Any, tuple[str, tuple[type, ...]]] = {
    str: ("text", (str,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
    Mapping: ("a table", (dict,)),
}
"""Type of a field -> what to call it in a message, and what TOML may hold there."""


def _convert(hint: Any, value: Any, where: str) -> Any:
    """``value``, as TOML gave it, as the type ``hint``."""
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):  # X | None: TOML has no null, so only X can come
        return _convert(next(kind for kind in typing.get_args(hint) if kind is not type(None)), value, where)
    if origin is tuple:
        if not isinstance(value, list):
            raise UsageError(f"{where}: expected a list, got {value!r}")
        return tuple(_convert(typing.get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if is_dataclass(hint):
        return _build(typing.cast("type[Any]", hint), value, where)
    expected, accepted = _PLAIN[origin or hint]
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise UsageError(f"{where}: expected {expected}, got {value!r}")
    return value

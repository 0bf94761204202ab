"""Open mutated bundles for some time: zips whose bytes changed, and zips and folders whose ``bundle.json`` changed.

    python tests/bundle/fuzz_bundle.py SECONDS [SEED]

Anything but an open bundle or an :class:`EdgekitError` is a finding: the bundle is kept, and the exit code is 1.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
import sys
import tempfile
import time
import traceback
import zipfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import tiny

from edgekit.backends import engine_problem
from edgekit.bundle import open_bundle
from edgekit.errors import EdgekitError

VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, -(2**64), 10**400, 0.5, 1e308, -1e-320, "", "a", "..", "/etc/passwd", "a\0b",
    "ü" * 5000, "\ud800", "NaN", [], {}, [[]], [None] * 2000, {"": None}, {"a": {"b": {}}}, [[[[[[[[]]]]]]]],
]  # fmt: skip
KEYS = ["", "..", "/a", "a\\b", "x" * 300, "bundle.json", "omg.onnx/x"]
BYTES = [b"\0", b"\xff", b"PK\1\2", b"PK\3\4", b"PK\5\6", b"\xff" * 8, b"../", b"\\", b'{"', b"NaN", b"1e999"]


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every container and key below ``value``."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            found += [(value, key), *places(value[key])]
    return found


def mutate_document(document: Any, chance: random.Random) -> None:
    for _ in range(chance.choice([1, 1, 1, 2, 5])):
        container, key = chance.choice(places(document))
        how = chance.randrange(6)
        if how == 0:
            del container[key]
        elif how == 1 and isinstance(container, dict):
            container[chance.choice(KEYS)] = copy.deepcopy(container[key])
        elif how == 2:
            container[key] = chance.choice(places(document))[1]  # a key as a value
        elif how == 3 and isinstance(container[key], int | float) and abs(container[key]) < 1e99:
            container[key] = container[key] * chance.choice([-1, 0, 2, 1e9]) + chance.choice([-1, 0, 1, 0.5])
        else:
            container[key] = copy.deepcopy(chance.choice(VALUES))
        if not places(document):
            return


def mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4, 16])):
        at = chance.randrange(len(changed) + 1) if changed else 0
        if chance.random() < 0.4:  # the directory at the end
            at = max(0, len(changed) - chance.randrange(1, 400))
        how = chance.randrange(5)
        if how == 0:
            changed[at : at + 1] = bytes([chance.randrange(256)])
        elif how == 1:
            token = chance.choice(BYTES)
            changed[at : at + len(token)] = token
        elif how == 2:
            changed[at:at] = chance.choice(BYTES)
        elif how == 3:
            del changed[at : at + chance.choice([1, 2, 4, 100])]
        else:
            other = chance.randrange(len(changed) + 1)
            changed[at : at + 46] = changed[other : other + 46]
    return bytes(changed)


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)


def write_folder(path: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)


def fuzz(folder: Path, seconds: float, chance: random.Random) -> int:
    break_even = {"cpu": "x", "threads": 1, "engine": "openvino", "share": 0.8}
    programs = engine_problem("native") is None
    whole = tiny.write_bundle(folder / "whole.edgekit", zipped=True, programs=programs, break_even=break_even)
    with zipfile.ZipFile(whole) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    document = json.loads(files["bundle.json"])
    tried = opened = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        path = folder / "mutated.edgekit"
        shutil.rmtree(path, ignore_errors=True)
        path.unlink(missing_ok=True)
        how = chance.randrange(4)
        if how == 0:
            path.write_bytes(mutate_bytes(whole.read_bytes(), chance))
        else:
            changed = copy.deepcopy(document)
            mutate_document(changed, chance)
            text = json.dumps(changed).encode("utf-8", "surrogatepass")
            manifest = mutate_bytes(text, chance) if how == 1 else text
            (write_folder if chance.random() < 0.3 else write_zip)(path, {**files, "bundle.json": manifest})
        tried += 1
        try:
            bundle = open_bundle(path)
            for engine in bundle.manifest.choices:
                assert bundle.graph("detector", engine).read_bytes()
            opened += 1
        except EdgekitError:
            pass
        except Exception:
            traceback.print_exc()
            kept = Path(tempfile.mkdtemp(prefix="fuzz-bundle-")) / path.name
            (shutil.copytree if path.is_dir() else shutil.copy)(path, kept)
            print(f"kept {kept}", file=sys.stderr)
            return 1
    print(f"{tried} bundles, of which {opened} were opened: nothing found")
    return 0


if __name__ == "__main__":
    number = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(2**32)
    print(f"seed {number}")
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(fuzz(Path(temporary), float(sys.argv[1]), random.Random(number)))

"""Write random sparse programs as files: what the fuzzer starts from, and what runs on an emulated board.

    python tests/native/write_programs.py FOLDER COUNT [STEPS]

writes ``COUNT`` programs of each type of numbers, always the same ones, of about ``STEPS`` operations.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "sparse"))

import programs

from edgekit.sparse.format import write_program


def main(folder: Path, count: int, steps: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for dtype in ("float32", "uint8"):
        for seed in range(count):
            program = programs.random_program(np.random.default_rng(seed), dtype=dtype, steps=steps)
            (folder / f"{dtype}_{seed}.sparse").write_bytes(write_program(program))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 8)

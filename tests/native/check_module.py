"""The Python module beside the numpy reference on random programs, where pytest is too much: an emulated board.

    python tests/native/check_module.py COUNT

Needs numpy and ``edgekit`` with its built module on the path; exits 1 if a result is wrong.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "sparse"))

import programs

from edgekit.sparse import _native
from edgekit.sparse.format import write_program
from edgekit.sparse.reference import run_reference


def main(count: int) -> int:
    worst = dict.fromkeys(_native.instruction_sets(), 0.0)
    for seed in range(count):
        random = np.random.default_rng(seed)
        program = programs.random_program(random, dtype=("float32", "uint8")[seed % 2])
        image, mask = programs.random_inputs(program, random)
        cells = None if mask is None else mask.astype(np.uint8)
        expected = run_reference(program, image, mask)
        for name in worst:
            got = _native.Engine(write_program(program), 1 + seed % 2, name).run(np.ascontiguousarray(image), cells)
            for output, values in expected.items():
                apart = np.abs(got[output] - values).max() / max(1.0, np.abs(values).max())
                worst[name] = max(worst[name], float(apart))
    for name, apart in worst.items():
        print(f"{name:12} {count} programs, largest relative difference from numpy {apart:.2g}")
    return int(max(worst.values()) > 1e-4)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))

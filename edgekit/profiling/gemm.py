"""How fast this CPU multiplies matrices: the measured ceiling that a network's speed is held against.

Nominal peaks (``boards/*.toml``) assume a clock that a warm board does not keep; numpy's matrix product is what a
well-written dense kernel reaches here and now.
"""

from __future__ import annotations

import os
import subprocess
import sys

from edgekit.errors import EngineError

_PROGRAM = """
import sys, time
import numpy as np
size, seconds = int(sys.argv[1]), float(sys.argv[2])
a, b = (np.random.default_rng(i).random((size, size), np.float32) for i in (0, 1))
np.matmul(a, b)
best, end = float("inf"), time.perf_counter() + seconds
while best == float("inf") or time.perf_counter() < end:
    start = time.perf_counter()
    np.matmul(a, b)
    best = min(best, time.perf_counter() - start)
sys.stdout.write(repr(size**3 / best / 1e9))
"""

_THREAD_VARIABLES = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")


def peak_gmacs(*, threads: int, size: int = 1024, seconds: float = 0.5) -> float:
    """Best fp32 matrix product of numpy, in 10^9 multiply-accumulates a second.

    Measured in a process of its own, because a BLAS reads its number of threads only when it is loaded.

    Args:
        threads: threads for the BLAS.
        size: side of the two square matrices; 1024 leaves every cache level, as a network's activations do.
        seconds: how long to repeat; the best run counts.

    Raises:
        ValueError: an argument is not positive.
        EngineError: numpy cannot run in a child process.
    """
    if threads < 1 or size < 1 or seconds <= 0:
        raise ValueError(f"expected positive threads, size and seconds, got {threads}, {size} and {seconds}")
    environment = {**os.environ, **dict.fromkeys(_THREAD_VARIABLES, str(threads))}
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM, str(size), str(seconds)],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1]
        raise EngineError(f"the matrix product of numpy cannot be measured: {reason}") from error
    return float(done.stdout)


def ceilings_gmacs(*, threads: int) -> dict[str, float]:
    """Precision -> the best rate of any matrix product that was tried here, in 10^9 multiply-accumulates a second.

    For fp32 numpy's product or the native kernels on data that is in the cache, whichever is faster: numpy's BLAS does
    not know every processor. For int8 the native kernels, the only ones that can be asked.

    Args:
        threads: the kernels' rate of one thread counts as often.

    Raises:
        EngineError: the kernels cannot be loaded, or numpy cannot run in a child process.
    """
    from edgekit.backends.native import require

    fp32, int8 = (rate * threads for rate in require().peak_gmacs())
    return {"fp32": max(fp32, peak_gmacs(threads=threads)), "int8": int8}

"""How fast this CPU multiplies matrices: the measured ceiling that a network's speed is held against.

Nominal peaks (``boards/*.toml``) assume a clock that a warm board does not keep; numpy's matrix product is what a
well-written dense kernel reaches here and now.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

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
    """:class:`Ceilings`, measured once.

    Raises:
        EngineError: the kernels cannot be loaded, or numpy cannot run in a child process.
    """
    ceilings = Ceilings(threads=threads)
    ceilings.measure(seconds=0.5)
    return ceilings.gmacs()


class Ceilings:
    """The best rate of any matrix product that was tried here, in 10^9 multiply-accumulates a second.

    For fp32 numpy's product or the native kernels on data that is in the cache, whichever is faster: numpy's BLAS does
    not know every processor. For int8 the native kernels, the only ones that can be asked.

    A processor's clock changes within seconds. What is held against a ceiling should have met the same clocks: so a
    benchmark calls :meth:`measure` between its own runs.
    """

    def __init__(self, *, threads: int) -> None:
        """``threads``: the kernels' rate of one thread counts as often.

        Raises:
            EngineError: the kernels cannot be loaded.
        """
        from edgekit.backends.native import require

        self._kernels = require()
        self._threads = threads
        self._best = (0.0, 0.0)
        self._library: float | None = None

    def measure(self, *, seconds: float = 0.06, product: Callable[[], float] | None = None) -> None:
        """Ask the native kernels for ``seconds``; the best rate of all calls counts.

        Args:
            seconds: how long.
            product: a matrix product of another library, run once: its rate in 10^9 multiply-accumulates a second.
        """
        fp32, int8 = self._kernels.peak_gmacs(seconds)
        self._best = max(self._best[0], fp32), max(self._best[1], int8)
        if product is not None:
            self._library = max(self.library_gmacs(), product())

    def kernel_gmacs(self) -> dict[str, float]:
        """Precision, ``fp32`` and ``int8`` -> the native kernels' rate on data that is in the cache."""
        return {name: rate * self._threads for name, rate in zip(("fp32", "int8"), self._best, strict=True)}

    def gmacs(self) -> dict[str, float]:
        """Precision, ``fp32`` and ``int8`` -> the rate.

        Raises:
            EngineError: numpy cannot run in a child process.
        """
        kernels = self.kernel_gmacs()
        return {**kernels, "fp32": max(kernels["fp32"], self.library_gmacs())}

    def library_gmacs(self) -> float:
        """What numpy's BLAS, or another library, reaches in a product of fp32 matrices that no cache holds.

        Raises:
            EngineError: numpy cannot run in a child process.
        """
        if self._library is None:
            self._library = peak_gmacs(threads=self._threads)
        return self._library

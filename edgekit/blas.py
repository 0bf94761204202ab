"""numpy's own threads, which small products of matrices lose by: they wait for each other longer than they compute.

A segmenter's masks took 13 ms with one thread and 150 with two on two busy processors. Engines have threads of their
own (``--threads``).
"""

from __future__ import annotations

import os


def one_blas_thread() -> None:
    """Let numpy compute on the thread that calls it, unless the environment says otherwise; before it is imported."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # what numpy's wheels and Debian's package are linked with

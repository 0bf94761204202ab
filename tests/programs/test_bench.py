"""``edgekit bench``: every engine that is installed, a row an engine, precision and share."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(*arguments):
    return subprocess.run(
        [sys.executable, str(ROOT / "runtime" / "bench.py"), "sparse", *arguments], capture_output=True, text=True
    )


@pytest.mark.slow
def test_every_engine_has_its_rows():
    done = bench("--iterations", "1", "--active", "1", "--active", "0.2", "--threads", "2", "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["gemm_peak_gmacs"] > 0
    assert document["machine"]["cores"] >= 1
    rows = {(row["engine"], row["precision"], row["active"]): row for row in document["rows"]}
    engines = ("native", "openvino", "onnxruntime", "tflite")
    assert rows.keys() == {
        (engine, precision, share) for engine in engines for precision in ("fp32", "int8") for share in (1.0, 0.2)
    }
    for row in rows.values():
        assert row["threads"] == 2
        assert 0 < row["ms_min"] <= row["ms_median"]
    # A dense engine's work does not depend on the mask; the native one executes what is active.
    dense, sparse = (rows[engine, "fp32", 0.2] for engine in ("openvino", "native"))
    assert dense["gmacs_executed"] == dense["gmacs_dense_equivalent"]
    assert sparse["gmacs_executed"] < 0.4 * sparse["gmacs_dense_equivalent"]


def test_an_unknown_benchmark():
    done = subprocess.run([sys.executable, str(ROOT / "runtime" / "bench.py"), "spars"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "sparse" in done.stderr


def test_a_share_beyond_one():
    done = bench("--active", "1.5")
    assert done.returncode == 2
    assert "--active" in done.stderr

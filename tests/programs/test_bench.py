"""``edgekit bench``: every engine that is installed, a row an engine, precision and share."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekit.backends import engine_problem
from edgekit.bundle import open_bundle
from edgekit.bundle.golden import verify_bundle
from edgekit.cli import load_program
from edgekit.errors import UsageError
from edgekit.pipeline import open_pipeline
from edgekit.profiling.machine import cpu_model

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


# A bundle's own graphs

LAYERS = [
    {"name": "stem", "kind": "conv", "graph": "detector", "parameters": 10, "macs": 1600, "rows": 4, "columns": 4},
    {"name": "omg", "kind": "conv", "graph": "omg", "parameters": 10, "macs": 480, "rows": 4, "columns": 4},
]
SHARES = (1.0, 0.5, 0.25)


def bench_bundle(*arguments):
    shares = [item for share in SHARES[1:] for item in ("--active", str(share))]
    words = ["sparse", *map(str, arguments), "--iterations", "2", *shares]
    result = CliRunner().invoke(load_program("bench"), words, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


@pytest.fixture
def bundle(tiny, tmp_path, monkeypatch):
    """Tiny, so that nothing of the network matters: the native engine is much faster than any other."""
    pytest.importorskip("onnx", reason="the tiny bundle is made with onnx")
    if problem := engine_problem("native"):
        pytest.skip(str(problem).splitlines()[0])
    monkeypatch.delenv("EDGEKIT_ISA", raising=False)
    return tiny.write_bundle(tmp_path / "tiny.edgekit", programs=True, layers=LAYERS)


def test_a_bundle_is_measured_and_told(bundle):
    document = json.loads(bench_bundle(bundle, "--json", "--threads", 2).stdout)
    engines = ("native", "onnxruntime", "openvino", "onnxruntime-sparse")
    assert [(row["engine"], row["active"]) for row in document["rows"]] == [
        (engine, share) for share in SHARES for engine in engines
    ]
    for row in document["rows"]:
        assert 0 < row["ms_min"] <= row["ms_median"]
        assert row["threads"] == 2
        assert row["detail"].endswith("CPU, sparse" if row["engine"].endswith("-sparse") else "CPU")
    dense, sparse = (row for row in document["rows"][4:6][::-1])
    assert dense["gmacs_executed"] == dense["gmacs_dense_equivalent"]
    assert sparse["gmacs_executed"] <= sparse["gmacs_dense_equivalent"]
    found = document["break_even"]
    assert found.pop("stored") is True
    assert found == {"cpu": cpu_model(), "threads": 2, "engine": found["engine"], "share": found["share"]}
    assert found["engine"] in ("onnxruntime", "openvino")
    assert 0 <= found["share"] <= 1
    assert open_bundle(bundle).manifest.document["sparse"]["break_even"] == found
    assert verify_bundle(bundle).passed


def test_what_is_stored_is_what_auto_uses(bundle, monkeypatch):
    """The dense engine is made to win above half of the cells."""
    monkeypatch.setattr("edgekit.profiling.share_curve.crossing", lambda *_: 0.5)
    result = bench_bundle(bundle)
    assert "| break-even, 50% active" in result.stdout
    assert "above 50 % active" in open_pipeline(bundle, threads=1).engine_name


def test_the_table_the_drawing_and_the_file(bundle, tmp_path):
    result = bench_bundle(bundle, "--no-store", "--plot", tmp_path / "x.svg")
    lines = result.stdout.splitlines()
    assert [line.split()[:2] for line in lines if line.startswith("onnxruntime-sparse")] == [
        ["onnxruntime-sparse", "fp32"]
    ] * len(SHARES)
    assert any(line.endswith("100 % active") for line in lines)
    assert lines[-1].split()[:3] == ["o", "native", "-"]
    assert (tmp_path / "x.svg").read_text().startswith("<svg")
    assert open_bundle(bundle).manifest.sparse.break_even is None


def test_a_bundle_that_cannot_be_written_is_a_warning(bundle, monkeypatch, caplog):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write whatever the mode says
    assert json.loads(bench_bundle(bundle, "--json").stdout)["break_even"]["stored"] is False
    assert "the break-even is not stored:" in caplog.text
    assert "is read-only" in caplog.text


def test_another_instruction_set_is_not_stored(bundle, monkeypatch, caplog):
    monkeypatch.setenv("EDGEKIT_ISA", "reference")
    assert json.loads(bench_bundle(bundle, "--json").stdout)["break_even"]["stored"] is False
    assert "the break-even is not stored: it is for reference, and usually " in caplog.text


def test_an_engine_that_is_absent_is_left_out(bundle, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setenv("EDGEKIT_ADAPTERS", str(bundle))
    document = json.loads(bench_bundle(bundle, "--json").stdout)
    assert {row["engine"] for row in document["rows"]} == {"native", "onnxruntime"}
    assert document["break_even"]["engine"] == "onnxruntime"
    assert "onnxruntime-sparse is not measured: there is no edgekit_onnxruntime.so" in caplog.text


def test_a_bundle_of_programs_alone_is_measured_alone(tiny, tmp_path, caplog):
    pytest.importorskip("onnx", reason="the tiny bundle is made with onnx")
    path = tiny.write_bundle(tmp_path / "tiny.edgekit", "sparse", zipped=True)
    before = path.read_bytes()
    result = bench_bundle(path)
    assert result.stdout.splitlines()[-1].strip() == "o native"
    assert "MACs are left out" in caplog.text
    assert "the bundle gets no break-even: it has no dense graphs" in caplog.text
    assert json.loads(bench_bundle(path, "--json").stdout)["break_even"] is None
    assert path.read_bytes() == before


def test_wrong_use_with_bundles(bundle, tiny, tmp_path):
    plain = tiny.write_bundle(tmp_path / "plain.edgekit")
    with pytest.raises(UsageError, match=r"(?s)has no sparse programs to measure.*edgekit export CHECKPOINT --sparse"):
        bench_bundle(plain)
    with pytest.raises(UsageError, match="a bundle is measured as it is: leave out --precision and --calib"):
        bench_bundle(bundle, "--precision", "int8")
    with pytest.raises(UsageError, match=r"--plot draws the times of a bundle into an \.svg file, got .*x\.png"):
        bench_bundle(bundle, "--plot", tmp_path / "x.png")
    with pytest.raises(UsageError, match=r"--plot draws the times of a bundle .* for default"):
        bench_bundle("default", "--plot", tmp_path / "x.svg")


# PVANet


def bench_pvanet(*arguments):
    words = ["pvanet", "--imgsz", "64x96", "--width-multiplier", "0.25", "--rois", "8", "--iterations", "1", *arguments]
    result = CliRunner().invoke(load_program("bench"), words, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


@pytest.mark.slow
def test_the_stages_of_pvanet(caplog):
    pytest.importorskip("onnx", reason="PVANet is exported with onnx")
    pytest.importorskip("torch", reason="PVANet is made with PyTorch")
    document = json.loads(bench_pvanet("--active", "1", "--active", "0.25", "--active", "0", "--json").stdout)
    assert document["input"] == {"height": 64, "width": 96}
    assert document["published"]["ms"] == 750
    assert document["gemm_peak_gmacs"] > 0
    rows = {(row["engine"], row["precision"], row["active"]): row for row in document["rows"]}
    unknown = {text.split()[0] for text in caplog.messages if "is not measured" in text}
    engines = {"native", "openvino", "onnxruntime", "tflite"} - unknown
    assert engines >= {"native", "openvino", "onnxruntime"}
    shares = ((1.0, 8), (0.25, 2), (0.0, 0))
    assert rows.keys() == {
        (engine, precision, share) for engine in engines for precision in ("fp32", "int8") for share, _ in shares
    }
    for (_, precision, share), row in rows.items():
        kernel = document["kernel_peak_gmacs_int8" if precision == "int8" else "kernel_peak_gmacs"]
        assert list(row["stages"]) == ["trunk", "rpn", "proposals", "pool", "head", "post"]
        assert 0 < row["ms_min"] <= row["ms_median"]
        assert row["rois"] == dict(shares)[share]
        gemm = row["gmacs_executed"] / document["gemm_peak_gmacs"] if precision == "fp32" else None
        assert row["of_gemm_peak"] == (gemm and pytest.approx(gemm, abs=1e-3))
        assert row["of_kernel_peak"] == pytest.approx(row["gmacs_executed"] / kernel, abs=1e-3)
        assert row["of_kernel_peak_layers"] == pytest.approx(row["gmacs_layers"] / kernel, abs=1e-3)
        assert row["gmacs_layers"] >= row["gmacs_executed"]
    assert min(row["to_dense"] for row in rows.values() if not row["sparse"]) == 1
    nothing = rows["native", "int8", 0.0]
    assert nothing["gmacs_executed"] == 0 < nothing["gmacs_dense_equivalent"]


def test_one_engine_of_pvanet_as_a_table():
    pytest.importorskip("onnx", reason="PVANet is exported with onnx")
    pytest.importorskip("torch", reason="PVANet is made with PyTorch")
    result = bench_pvanet("--variant", "lite", "--engine", "native", "--precision", "fp32", "--active", "1")
    lines = result.stdout.splitlines()
    (row,) = [line.split() for line in lines if line.startswith("native")]
    assert row[:3] == ["native", "fp32", "1.00"]
    assert lines[-2].startswith("as published")


def test_wrong_use_with_pvanet():
    with pytest.raises(UsageError, match=r"--imgsz: expected rows and columns, multiples of 32, .* got '640x1000'"):
        bench_pvanet("--imgsz", "640x1000")
    with pytest.raises(UsageError, match="lite has no full form: leave out --full"):
        bench_pvanet("--variant", "lite", "--full")

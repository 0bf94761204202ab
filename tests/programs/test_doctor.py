"""``edgekit doctor`` on this machine, whatever is installed here."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner, Result

from edgekit import health
from edgekit.cli import load_program
from edgekit.health import Finding


def doctor(*arguments: str) -> Result:
    result = CliRunner().invoke(load_program("doctor"), arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result


def pretend(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> None:
    monkeypatch.setattr(health, "run_checks", lambda: list(findings))


def test_json_has_every_check_and_the_machine() -> None:
    result = doctor("--json")
    report = json.loads(result.stdout)
    assert {"python", "numpy", "default detector", "engine native", "engine tflite", "kernels", "extra train"} <= {
        finding["check"] for finding in report["findings"]
    }
    assert report["machine"]["packages"]["numpy"]
    assert result.return_value == (0 if report["ok"] else 1)


def test_json_names_the_instruction_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    native = pytest.importorskip("edgekit.sparse._native", reason="the native engine is not built")
    pretend(monkeypatch)
    monkeypatch.setenv("EDGEKIT_ISA", "reference")
    assert json.loads(doctor("--json").stdout)["kernels"] == {
        "usable": native.instruction_sets(),
        "chosen": "reference",
    }
    monkeypatch.setenv("EDGEKIT_ISA", "mmx")
    assert json.loads(doctor("--json").stdout)["kernels"] is None


def test_a_warning_shows_its_fix_and_exits_0(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, Finding(check="engine x", status="warn", text="not installed\nat all", fix="pip install x"))
    result = doctor()
    assert result.return_value == 0
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert lines == ["warn  engine x           not installed", "at all", "-> pip install x", "", lines[-1]]
    assert lines[-1] == "The built-in detector runs here."


def test_a_failure_exits_1(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, Finding(check="numpy", status="fail", text="cannot be imported"))
    result = doctor()
    assert result.return_value == 1
    assert "does not run here" in result.stdout

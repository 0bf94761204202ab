"""``edgekit boards``."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from edgekit.cli import load_program
from edgekit.errors import UsageError


def output(*arguments: str) -> str:
    result = CliRunner().invoke(load_program("boards"), arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_the_list_has_every_board_and_its_export() -> None:
    text = output()
    assert all(name in text for name in ("raspberry-pi-4", "raspberry-pi-5", "jetson-orin-nano", "desktop"))
    assert "tflite int8" in text


def test_the_list_as_json() -> None:
    boards = json.loads(output("--json"))
    assert {"name", "cpu", "export", "detected"} <= boards[0].keys()
    assert sum(board["detected"] for board in boards) <= 1


def test_one_board_by_alias() -> None:
    assert "TensorrtExecutionProvider" in output("jetson")
    assert json.loads(output("jetson", "--json"))["name"] == "jetson-orin-nano"


def test_one_board_without_options() -> None:
    text = output("raspberry-pi-4")
    assert "4 x Cortex-A72 at 1.8 GHz, neon" in text
    assert "fp32 7.2, int8 14.4 GMAC/s" in text


def test_an_unknown_board() -> None:
    with pytest.raises(UsageError, match="did you mean desktop"):
        output("desktp")

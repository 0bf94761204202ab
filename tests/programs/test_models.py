"""``edgekit models``."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from edgekit.cli import load_program
from edgekit.errors import UsageError
from edgekit.models.facts import find_facts

NAME = "mobilenetv2-ssdlite-omg"


def output(*arguments: str) -> str:
    result = CliRunner().invoke(load_program("models"), arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_the_list() -> None:
    assert f"{NAME}  320x320" in output()
    assert NAME in [model["name"] for model in json.loads(output("--json"))]


def test_one_network_as_json() -> None:
    model = json.loads(output(NAME, "--json"))
    assert model["name"] == NAME
    assert model["input_size"] == 320
    for count in ("parameters", "macs"):
        assert model[count] == sum(stage[count] for stage in model["stages"])


def test_one_network_as_a_table() -> None:
    facts = find_facts(NAME)
    lines = output(NAME).splitlines()
    assert lines[-1].split() == ["total", f"{facts.parameters:,}", f"{facts.macs / 1e6:.2f}"]
    assert any(line.startswith("class heads") for line in lines)


def test_an_unknown_network() -> None:
    with pytest.raises(UsageError, match="no network is called 'ssd'"):
        output("ssd")

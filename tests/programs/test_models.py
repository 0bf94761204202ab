"""``edgekit models``."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from edgekit.cli import load_program
from edgekit.errors import UsageError
from edgekit.models.facts import find_facts
from edgekit.models.registry import MODELS, NETWORKS

NAME = "mobilenetv2-ssdlite-omg"


def output(*arguments: str) -> str:
    result = CliRunner().invoke(load_program("models"), arguments, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def test_the_list() -> None:
    text = output()
    assert f"{NAME}  320x320  3.76 M parameters  753 MMAC\n" in text
    assert "pvanet-9.0  1056x640  96.53 M parameters  27787 MMAC with 200 RoIs\n" in text
    models = json.loads(output("--json"))
    assert [model["name"] for model in models] == list(NETWORKS)
    assert [model["name"] for model in models if model["trainable"]] == list(MODELS)
    assert text.count("can be trained\n") == len(MODELS)
    assert text.count("trained as pvanet-") == 5
    assert text.count("cannot be trained yet\n") == len(NETWORKS) - len(MODELS) - 6


@pytest.mark.parametrize(
    ("name", "size"), [(NAME, (320, 320, 20, 0)), ("pvanet-lite", (640, 1056, 20, 200))], ids=["trainable", "not yet"]
)
def test_one_network_as_json(name: str, size: tuple[int, ...]) -> None:
    model = json.loads(output(name, "--json"))
    assert model["name"] == name
    assert tuple(model[key] for key in ("height", "width", "classes", "rois")) == size
    assert model["stages"][0].keys() == {"name", "weights", "parameters", "macs"}
    for count in ("weights", "parameters", "macs"):
        assert model[count] == sum(stage[count] for stage in model["stages"])


def test_one_network_as_a_table() -> None:
    facts = find_facts(NAME)
    lines = output(NAME).splitlines()
    assert lines[:3] == [f"{NAME}: {facts.summary}", "can be trained", "input 320x320 (width x height), 20 classes"]
    assert lines[-1].split() == ["total", f"{facts.weights:,}", f"{facts.parameters:,}", f"{facts.macs / 1e6:.2f}"]
    assert any(line.startswith("class heads") for line in lines)


def test_one_that_is_trained_by_another_name_as_a_table() -> None:
    lines = output("pvanet-9.1").splitlines()
    assert lines[1:3] == ["trained as pvanet-9.1-omg", "input 1056x640 (width x height), 20 classes, 200 RoIs"]
    assert lines[-1].split() == ["total", "96,527,600", "96,574,197", "27890.52"]


def test_an_unknown_network() -> None:
    with pytest.raises(UsageError, match="no network is called 'ssd'"):
        output("ssd")

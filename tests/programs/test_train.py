"""``edgekit train``: what it refuses, by exit code and message. Whole runs are in ``tests/learning/test_run.py``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from edgekit.cli import main


def train(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


def test_a_misspelt_network_is_wrong_use(tmp_path: Path) -> None:
    result = train("mobilenetv2-ssdlite-omgg", "--data", tmp_path, "-o", tmp_path / "run", "--weights", "none")
    assert result.exit_code == 2
    assert "did you mean 'mobilenetv2-ssdlite-omg'?" in result.output


def test_data_that_is_not_there_is_a_failure(tmp_path: Path) -> None:
    result = train("mobilenetv2-ssdlite-omg", "--data", tmp_path / "nowhere", "-o", tmp_path / "run")
    assert result.exit_code == 1
    assert "does not exist or is not a folder" in result.output
    assert not (tmp_path / "run").exists()


def test_an_empty_data_set_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "annotations").mkdir()
    empty = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    for split in ("train", "val"):
        (tmp_path / "annotations" / f"instances_{split}.json").write_text(json.dumps(empty))
    result = train("mobilenetv2-ssdlite-omg", "--data", tmp_path, "-o", tmp_path / "run")
    assert result.exit_code == 1
    assert "is empty" in result.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--epochs", "0"], "epochs must be at least 1"),
        (["--recipe", "nothing.toml"], "cannot be read"),
        (["--optimiser", "lion"], "is not one of"),
        (["--epoch", "1"], "--epochs"),
        (["--footage", "frames"], "footage and cutouts go together"),
    ],
)
def test_wrong_options_are_wrong_use(tmp_path: Path, options: list[str], message: str) -> None:
    result = train("mobilenetv2-ssdlite-omg", "--data", tmp_path, "-o", tmp_path / "run", *options)
    assert result.exit_code == 2
    assert message in result.output

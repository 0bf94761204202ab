"""The program folders: every verb has its file, and a file run by path is the same command as its verb."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.cli import VERBS, Program, load_program
from edgekit.programs import FOLDERS, find_folder

ROOT = Path(__file__).resolve().parent.parent


def test_the_folders_of_a_checkout_are_the_live_ones() -> None:
    assert [find_folder(name) for name in FOLDERS] == [ROOT / name for name in FOLDERS]


def test_an_unknown_folder_is_refused() -> None:
    with pytest.raises(ValueError, match="no program folder is called 'tests'; there are: training, export"):
        find_folder("tests")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_a_program_with_help(verb: str) -> None:
    program = load_program(verb)
    assert isinstance(program, Program), "decorate it with @click.command(cls=Program), from edgekit.cli"
    assert program.help


@pytest.mark.parametrize("folder", ["training", "export", "runtime"])
def test_every_program_file_is_a_verb_or_a_part_of_one(folder: str) -> None:
    verbs = {verb for verb, (home, _) in VERBS.items() if home == folder}
    assert {path.stem.partition("_")[0] for path in (ROOT / folder).glob("*.py")} == verbs


@pytest.mark.parametrize("verb", VERBS)
def test_a_program_run_by_path_has_the_help_of_its_verb(verb: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    path = find_folder(VERBS[verb][0]) / f"{verb}.py"

    def help_of(*command: str) -> str:
        line = [sys.executable, *command, "--help"]
        done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    by_path = help_of(str(path))
    assert by_path.startswith(f"Usage: edgekit {verb} ")
    assert by_path == help_of("-m", "edgekit.cli", verb)

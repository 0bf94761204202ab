"""The command line itself: verbs, suggestions, logging, and the exit code of every kind of end."""

from __future__ import annotations

import inspect
import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from edgekit import cli, errors
from edgekit.cli import VERBS, Program, main

ROOT = Path(__file__).resolve().parent.parent
ERRORS = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.EdgekitError)]


def run_program(body: BaseException | str, *arguments: str) -> Result:
    """Run a small program that raises ``body`` or prints it."""

    @click.command(cls=Program)
    @click.option("--speed", default=1)
    def program(speed: int) -> None:
        """Do one thing."""
        if isinstance(body, BaseException):
            raise body
        logging.getLogger("edgekit").info("speed %d", speed)
        logging.getLogger("edgekit").warning("slow")
        logging.getLogger("edgekit").debug("details")
        click.echo(body)

    return CliRunner().invoke(program, arguments)


def test_help_lists_every_verb_in_order() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    positions = [result.stdout.index(f"\n  {verb} ") for verb in VERBS]
    assert positions == sorted(positions)


def test_no_verb_prints_help_as_wrong_use() -> None:
    result = CliRunner().invoke(main, [])
    assert result.exit_code == 2
    assert "Verbs:" in result.stderr


def test_version_is_printed() -> None:
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.stdout[:8]) == (0, "edgekit ")


def test_a_mistyped_verb_gets_a_suggestion() -> None:
    result = CliRunner().invoke(main, ["verfiy"])
    assert result.exit_code == 2
    assert "No such command 'verfiy'. Did you mean 'verify'?" in result.stderr


def test_a_mistyped_option_gets_a_suggestion() -> None:
    result = run_program("", "--sped", "3")
    assert result.exit_code == 2
    assert "Did you mean --speed?" in result.stderr.replace("'", "")


def test_data_goes_to_stdout_and_logs_to_stderr() -> None:
    result = run_program("the data", "--speed", "3")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "the data\n", "speed 3\nwarning: slow\n")


def test_verbose_adds_details_for_this_run_only() -> None:
    assert run_program("", "-v").stderr == "speed 1\nwarning: slow\ndetails\n"
    assert "details" not in run_program("").stderr


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_every_error_is_its_message_and_its_exit_code(kind: type[errors.EdgekitError]) -> None:
    arguments = ("torch", "train", "train") if kind is errors.MissingDependencyError else ("no such thing.\nTry that.",)
    error = kind(*arguments)
    result = run_program(error)
    assert (result.exit_code, result.stdout, result.stderr) == (kind.exit_code, "", f"error: {error}\n")


def test_an_unexpected_error_is_short_and_says_how_to_see_more(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run_program(ZeroDivisionError("by zero"))
    assert result.exit_code == 1
    assert result.stderr == (
        "error: unexpected ZeroDivisionError: by zero\n"
        "This is a bug in edgekit. Set EDGEKIT_TRACEBACK=1 and run again to see where.\n"
    )
    monkeypatch.setenv("EDGEKIT_TRACEBACK", "1")
    result = run_program(ZeroDivisionError("by zero"))
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr


def test_an_interrupt_is_130_and_quiet() -> None:
    result = run_program(KeyboardInterrupt())
    assert (result.exit_code, result.stdout, result.stderr.strip()) == (130, "", "")


def test_a_program_chooses_its_own_exit_code() -> None:
    assert run_program(click.exceptions.Exit(5)).exit_code == 5


def test_without_standalone_mode_errors_pass_through() -> None:
    @click.command(cls=Program)
    def program() -> None:
        raise errors.DataError("empty")

    with pytest.raises(errors.DataError, match="empty"):
        program.main([], standalone_mode=False)


def edgekit_process(*arguments: str, **streams: int) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    return subprocess.Popen([sys.executable, "-m", "edgekit.cli", *arguments], cwd=ROOT, env=environment, **streams)


def test_a_reader_that_goes_away_leaves_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = edgekit_process("--help", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (1, b"")


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colour_is_for_terminals_without_no_color(
    no_color: str, coloured: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    (tmp_path / "train.py").write_text(
        "import click\nfrom edgekit.cli import Program\nfrom edgekit.errors import DataError\n"
        "@click.command(cls=Program)\ndef main() -> None:\n    raise DataError('empty')\nmain()\n"
    )
    terminal, stderr = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, tmp_path / "train.py"], env=environment, stderr=stderr, check=False)
    os.close(stderr)
    shown = os.read(terminal, 4096)
    os.close(terminal)
    assert done.returncode == 1
    assert b"error: " in shown
    assert (b"\x1b[" in shown) == coloured


def test_a_missing_program_file_says_how_to_repair(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cli, "find_folder", lambda name: tmp_path / name)
    result = CliRunner().invoke(main, ["train"])
    assert result.exit_code == 1
    assert "the program of `edgekit train` is missing: expected" in result.stderr
    assert "pip install --force-reinstall" in result.stderr


def test_a_verb_runs_the_program_of_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "train.py").write_text(
        "import click\nfrom edgekit.cli import Program\n"
        "@click.command(cls=Program)\n@click.argument('name')\n"
        "def main(name: str) -> None:\n    'Train.'\n    click.echo(f'hello {name}')\n"
    )
    monkeypatch.setattr(cli, "find_folder", lambda name: tmp_path / name)
    result = CliRunner().invoke(main, ["train", "you"])
    assert (result.exit_code, result.stdout) == (0, "hello you\n")
    assert (
        "Usage: edgekit train [OPTIONS] NAME" in CliRunner().invoke(main, ["train", "-h"], prog_name="edgekit").stdout
    )

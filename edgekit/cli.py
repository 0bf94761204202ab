"""The command line: ``edgekit VERB`` loads the program file of that verb and nothing else.

A verb is a file in a program folder (``edgekit train`` is ``training/train.py``) that holds one click command
called ``main``. Programs are loaded by path and never imported by name, so the same file runs as
``python training/train.py``. Importing this module costs click and nothing more: ``edgekit --help`` reads the table
below.

Every :class:`Program`, run either way, ends here with an exit code: 0 done, 1 failure, 2 wrong use, 3 missing
dependency or engine, 4 source lost, 5 gate failed, 130 interrupted (``edgekit.errors``).
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from edgekit import interruption
from edgekit.errors import EdgekitError
from edgekit.programs import find_folder

VERBS = {
    "train": ("training", "Train a detector and its objectness mask on a data set."),
    "pretrain": ("training", "Teach a backbone to see, from pictures without labels."),
    "val": ("training", "Measure accuracy, mask recall and executed MACs of a checkpoint or bundle."),
    "export": ("export", "Convert a checkpoint into a bundle for one board, behind an accuracy gate."),
    "prompts": ("export", "Put what a segmenter looks for into a small file, for bundles that are there already."),
    "verify": ("export", "Does a bundle still give its golden output, or its checkpoint's on any footage?"),
    "run": ("runtime", "Detect objects in a camera, video, folder or the demo."),
    "service": ("runtime", "Keep a run going: as a service that systemd starts, watches and starts again."),
    "profile": ("runtime", "MACs per layer and latency percentiles per stage, for every engine present."),
    "bench": ("runtime", "Time the native engine beside every other one on this machine."),
    "doctor": ("runtime", "Say what works on this machine and how to mend what does not."),
    "label": ("training", "Boxes and masks for training, from pictures and words alone."),
    "segment": ("runtime", "Colour pictures by any words: what is a person, a car, a red door."),
    "boards": ("runtime", "List the boards that export can target."),
    "models": ("runtime", "List the networks with their parameters and MACs."),
    "info": ("runtime", "Describe a bundle or a checkpoint."),
}
"""Verb -> (program folder, one line of help), in the order of ``edgekit --help``."""

CONTEXT_SETTINGS = {"help_option_names": ["-h", "--help"], "max_content_width": 120}

log = logging.getLogger("edgekit")


class _Guarded(click.Command):
    """A command whose every end, good or bad, is a message on stderr and an exit code."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run; with ``standalone_mode`` (the default) raise ``SystemExit``, otherwise let exceptions through."""

        def call() -> Any:
            return super(_Guarded, self).main(
                args=args,
                prog_name=prog_name or self.program_name(),
                complete_var=complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )

        if not standalone_mode:
            return call()
        sys.exit(_exit_code(call))

    def program_name(self) -> str:
        """What usage lines call this command."""
        return "edgekit"


class Program(_Guarded):
    """The class of a program's ``main``: ``@click.command(cls=Program)``.

    Makes ``python training/train.py`` the same as ``edgekit train``: help text, ``-v``, messages and exit codes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs["context_settings"] = {**CONTEXT_SETTINGS, **(kwargs.get("context_settings") or {})}
        super().__init__(*args, **kwargs)
        self.params.append(_verbose_option())

    def program_name(self) -> str:
        """``edgekit VERB``: the stem of a program file is its verb."""
        return f"edgekit {Path(sys.argv[0]).stem}"


class ProgramGroup(Program, click.Group):
    """The class of the ``main`` of a program with sub-commands: ``@click.group(cls=ProgramGroup)``."""


class ProgramWithParts(Program):
    """A program some of whose first arguments name parts of it, with options of their own, in files beside it."""

    def __init__(
        self, *args: Any, parts: dict[str, str], folder: str, asked_by: dict[str, str] | None = None, **kwargs: Any
    ) -> None:
        """``parts``: first argument -> stem of the file in ``folder``; ``asked_by``: option -> first argument."""
        super().__init__(*args, **kwargs)
        self.parts, self.folder, self.asked_by = parts, folder, asked_by or {}

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """That of a part where one is named."""
        asking = (self.asked_by[name] for name in (text.partition("=")[0] for text in args) if name in self.asked_by)
        name = args[0] if args and args[0] in self.parts else next(asking, None)
        if name is not None:
            part = load_program(self.parts[name], folder=self.folder)
            return part.make_context(f"{info_name} {name}", args[1:] if args[0] == name else args, parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run whatever the context is of."""
        return super().invoke(ctx) if ctx.command is self else ctx.command.invoke(ctx)


class Attempts(click.ParamType[float]):
    """A number of attempts, or ``forever``, which becomes infinity."""

    name = "attempts"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the number."""
        if value == "forever":
            return math.inf
        if str(value).isdecimal():
            return int(value)
        self.fail(f"expected a number of attempts from 0, or forever, got {value!r}", param, ctx)


class Share(click.ParamType[float]):
    """A share above 0 and at most 1: ``0.3`` or ``30%``."""

    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read the number."""
        text = str(value).strip()
        try:
            share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            share = math.nan
        if 0 < share <= 1:
            return share
        self.fail(f"expected a share above 0 and at most 1, such as 0.3 or 30%, got {value!r}", param, ctx)


class LazyGroup(_Guarded, click.Group):
    """A group that knows its verbs from :data:`VERBS` and loads a program only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the table's order."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The program of one verb; an unknown verb is answered with the nearest ones."""
        if cmd_name in VERBS:
            return load_program(cmd_name)
        if cmd_name.startswith("-"):
            return None
        raise click.exceptions.NoSuchCommand(cmd_name, possibilities=VERBS, ctx=ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of verbs, written from the table so that no program is loaded."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])


def _be_verbose(_context: click.Context, _option: click.Parameter, value: bool) -> None:
    if value:
        log.setLevel(logging.DEBUG)


def _verbose_option() -> click.Option:
    return click.Option(
        ["-v", "--verbose"], is_flag=True, expose_value=False, callback=_be_verbose, help="Log details to stderr."
    )


def _show_version(context: click.Context, _option: click.Parameter, value: bool) -> None:
    if not value or context.resilient_parsing:
        return
    try:
        click.echo(f"edgekit {importlib.metadata.version('edgekit-vision')}")
    except importlib.metadata.PackageNotFoundError:
        click.echo("edgekit (a checkout, not installed)")
    context.exit()


def load_program(verb: str, *, folder: str | None = None) -> click.Command:
    """The click command in the program file of ``verb``, or of a part of one in ``folder``, loaded by path.

    Raises:
        EdgekitError: the file is not there, so the installation is damaged.
    """
    path = find_folder(folder or VERBS[verb][0]) / f"{verb}.py"
    if not path.is_file():
        raise EdgekitError(
            f"the program of `edgekit {verb}` is missing: expected {path}.\n"
            'The installation is damaged; repair it with: pip install --force-reinstall --no-deps "edgekit-vision"'
        )
    name = f"_edgekit_program_{verb}"
    specification = importlib.util.spec_from_file_location(name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[name] = module  # dataclasses and worker processes look their module up by name
    specification.loader.exec_module(module)
    command: click.Command = module.main
    return command


class _StderrHandler(logging.Handler):
    """Writes to whatever ``sys.stderr`` is at that moment; warnings and errors name their level."""

    def emit(self, record: logging.LogRecord) -> None:
        level = f"{record.levelname.lower()}: " if record.levelno >= logging.WARNING else ""
        click.echo(f"{level}{self.format(record)}", err=True)


def _set_up_logging() -> None:
    if not any(isinstance(handler, _StderrHandler) for handler in log.handlers):
        log.addHandler(_StderrHandler())
    log.setLevel(logging.INFO)


def _say_error(message: str) -> None:
    colour = None if not os.environ.get("NO_COLOR") else False  # None: only on a terminal (https://no-color.org)
    click.echo(click.style("error: ", fg="red", bold=True) + message, err=True, color=colour)
    if os.environ.get("EDGEKIT_TRACEBACK"):
        import traceback

        traceback.print_exc()


def _exit_code(call: Callable[[], Any]) -> int:
    """Run ``call`` and turn however it ends into an exit status."""
    _set_up_logging()
    try:
        with interruption.remember():
            result = call()
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):  # click turns Ctrl-C into Abort
        return 130
    except BrokenPipeError:  # the reader of our output went away, as in `edgekit run ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except EdgekitError as error:
        _say_error(str(error))
        return error.exit_code
    except Exception as error:
        _say_error(f"unexpected {type(error).__name__}: {error}")
        if not os.environ.get("EDGEKIT_TRACEBACK"):
            click.echo("This is a bug in edgekit. Set EDGEKIT_TRACEBACK=1 and run again to see where.", err=True)
        return 1


@click.group(
    cls=LazyGroup, context_settings=CONTEXT_SETTINGS, params=[_verbose_option()], subcommand_metavar="VERB [ARGS]..."
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Print the version and exit.",
)
def main() -> None:
    """Train small object detectors, export them for edge boards, and run them there.

    Detectors compute only where an objectness mask says objects can be. `edgekit VERB --help` explains one verb.
    """


if __name__ == "__main__":
    main()

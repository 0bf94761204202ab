"""Keep ``edgekit run`` running: install it as a service of systemd, or remove it: ``edgekit service``."""

from __future__ import annotations

import getpass
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click

from edgekit.cli import Program, ProgramGroup, load_program

log = logging.getLogger("edgekit")

NAME = click.option("--name", default="edgekit", show_default=True, help="Of the service.")
FOR_USER = click.option(
    "--user", "for_user", is_flag=True, help="Your own service manager instead of the system's: needs no root."
)


@click.group(cls=ProgramGroup)
def main() -> None:
    """Run `edgekit run` as a service: from boot on, started again whenever it ends or its frames stop."""


@main.command(cls=Program, context_settings={"ignore_unknown_options": True})
@NAME
@FOR_USER
@click.option("--run-as", metavar="USER", help="Account that it runs as.  [default: whoever called sudo]")
@click.option(
    "--watchdog", type=click.IntRange(min=5), default=60, show_default=True, metavar="S",
    help="Start again after so many seconds without a fresh frame.",
)  # fmt: skip
@click.option("--start/--no-start", default=True, show_default=True, help="Start it now and at every boot.")
@click.option("--print", "only_print", is_flag=True, help="Print the unit file; change nothing.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="-- RUN-ARGUMENTS...")
def install(
    name: str,
    for_user: bool,
    run_as: str | None,
    watchdog: int,
    start: bool,
    only_print: bool,
    arguments: tuple[str, ...],
) -> None:
    """Install a service that runs `edgekit run RUN-ARGUMENTS` in this folder.

    \b
    sudo edgekit service install -- detector.edgekit --camera 0 --mqtt mqtt://broker.local/edgekit
    edgekit service install --user --name gate -- --source rtsp://camera.local/stream --view 8080
    """
    from edgekit.service import unit_path, unit_text, write_unit

    # What `edgekit run` would not understand is refused now, not at every start.
    load_program("run").make_context("edgekit run", list(arguments), resilient_parsing=False).close()
    user = None if for_user else run_as or os.environ.get("SUDO_USER") or getpass.getuser()
    command = [sys.executable, "-m", "edgekit.cli", "run", *arguments]
    text = unit_text(command, name=name, folder=Path.cwd(), user=user, watchdog_s=watchdog, for_user=for_user)
    if only_print:
        click.echo(text, nl=False)
        return
    path = unit_path(name, for_user=for_user)
    write_unit(path, text)
    log.info("wrote %s", path)
    commands = [["daemon-reload"], *([["enable", "--now", f"{name}.service"]] if start else [])]
    _systemctl(commands, for_user=for_user)
    log.info("Look at it: %s", " ".join(_command(["status", name], for_user)))
    log.info("Its log: journalctl %s-u %s -f", "--user " if for_user else "", name)
    if for_user and start:
        log.info("It ends when you log out, unless you say once: loginctl enable-linger")


@main.command(cls=Program)
@NAME
@FOR_USER
def uninstall(name: str, for_user: bool) -> None:
    """Stop a service and remove its unit file."""
    from edgekit.errors import StorageError, UsageError
    from edgekit.service import unit_path

    path = unit_path(name, for_user=for_user)
    if not path.is_file():
        raise UsageError(f"no service {name!r} is installed: {path} does not exist")
    _systemctl([["disable", "--now", f"{name}.service"]], for_user=for_user)
    try:
        path.unlink()
    except OSError as error:
        raise StorageError(f"{path} cannot be removed: {error.strerror}. Try: sudo edgekit service ...") from error
    _systemctl([["daemon-reload"]], for_user=for_user)
    log.info("removed %s", path)


def _systemctl(commands: list[list[str]], *, for_user: bool) -> None:
    """Run them where systemd runs; elsewhere, as in a container, say what to type there."""
    from edgekit.errors import EdgekitError

    if shutil.which("systemctl") is None or not Path("/run/systemd/system").is_dir():
        log.warning("systemd does not run here; where it does: %s", _typed(commands, for_user))
        return
    for command in commands:
        done = subprocess.run(_command(command, for_user), capture_output=True, text=True)
        if done.returncode:
            raise EdgekitError(f"{' '.join(_command(command, for_user))} failed: {done.stderr.strip()}")


def _command(words: list[str], for_user: bool) -> list[str]:
    return ["systemctl", *(["--user"] if for_user else []), *words]


def _typed(commands: list[list[str]], for_user: bool) -> str:
    return " && ".join(" ".join(_command(command, for_user)) for command in commands)


if __name__ == "__main__":
    main()

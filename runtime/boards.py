"""List the boards that export can target: ``edgekit boards [NAME] [--json]``."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from edgekit.cli import Program

if TYPE_CHECKING:
    from edgekit.boards import Board


@click.command(cls=Program)
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an object for NAME, otherwise a list of them.")
def main(name: str | None, as_json: bool) -> None:
    """List the boards that `edgekit export --target` takes, or print what is known about the one called NAME.

    A star marks the board that this machine is.
    """
    from edgekit.boards import detect_board, list_boards, load_board

    here = detect_board()
    if name:
        board = load_board(name)
        if as_json:
            click.echo(json.dumps(_to_json(board, here), indent=2))
        else:
            _print_one(board)
        return
    boards = list_boards()
    if as_json:
        click.echo(json.dumps([_to_json(board, here) for board in boards], indent=2))
        return
    click.echo(f"  {'board':<18}{'CPU':<22}{'fp32 GMAC/s':>12}  {'exports':<16}title")
    for board in boards:
        star = "*" if board.name == here else " "
        cpu = f"{board.cpu.cores} x {board.cpu.core}"
        peak = board.cpu.cores * board.cpu.gmacs_per_core.fp32
        exports = f"{board.export.format} {board.export.precision}"
        click.echo(f"{star} {board.name:<18}{cpu:<22}{peak:>12.1f}  {exports:<16}{board.title}")


def _to_json(board: Board, here: str | None) -> dict[str, object]:
    return {**asdict(board), "detected": board.name == here}


def _print_one(board: Board) -> None:
    cpu, peak, export = board.cpu, board.cpu.gmacs_per_core, board.export
    rates = ", ".join(
        f"{precision} {rate:g}"
        for precision, rate in (("fp32", peak.fp32), ("fp16", peak.fp16), ("int8", peak.int8))
        if rate is not None
    )
    sizes = "/".join(f"{size:g}" for size in board.memory.sizes_gb)
    rows = [
        ("name", ", ".join((board.name, *board.aliases))),
        ("board", f"{board.title} ({board.soc})"),
        ("cpu", f"{cpu.cores} x {cpu.core} at {cpu.clock_ghz:g} GHz, {' '.join(cpu.simd)}"),
        ("peak per core", f"{rates} GMAC/s"),
        ("memory", f"{sizes} GB {board.memory.kind}"),
        ("accelerator", board.accelerator.name if board.accelerator else "none that is used"),
        ("power modes", ", ".join(mode.name for mode in board.power_modes) or "none"),
        ("exports", f"{export.format} {export.precision}, {export.threads} threads"),
        ("uncalibrated", export.uncalibrated_precision),
        ("engines", ", ".join(export.engines)),
    ]
    for label, text in rows:
        click.echo(f"{label:<14} {text}")
    for engine, options in export.engine_options.items():
        click.echo(f"{engine} options:\n{json.dumps(options, indent=2)}")


if __name__ == "__main__":
    main()

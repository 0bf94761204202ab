"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = sorted((ROOT / "edgekit").rglob("*.py"))
PROGRAMS = sorted(path for folder in ("training", "export", "runtime") for path in (ROOT / folder).glob("*.py"))


def longer_than(limit: int, paths: list[Path]) -> dict[str, int]:
    """Files over ``limit`` lines."""
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in paths}
    return {name: lines for name, lines in lengths.items() if lines > limit}


def test_modules_hold_one_idea() -> None:
    assert longer_than(400, LIBRARY) == {}
    assert [path.name for path in LIBRARY if path.stem in ("utils", "misc", "helpers", "common")] == []


def test_programs_are_short_enough_to_read() -> None:
    assert longer_than(220, PROGRAMS) == {}


def calls(path: Path) -> Iterator[str]:
    """Names of everything that a file calls, as written."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


def test_the_library_neither_prints_nor_exits() -> None:
    forbidden = {"print", "click.echo", "sys.exit", "exit"}
    offenders = {
        str(path.relative_to(ROOT)): sorted(forbidden.intersection(calls(path)))
        for path in LIBRARY
        if path != ROOT / "edgekit" / "cli.py"
    }
    assert {name: found for name, found in offenders.items() if found} == {}


def test_every_module_says_what_it_is() -> None:
    openings = {
        str(path.relative_to(ROOT)): ast.get_docstring(ast.parse(path.read_text())) for path in LIBRARY + PROGRAMS
    }
    assert [name for name, opening in openings.items() if not opening or opening.startswith("TODO")] == []

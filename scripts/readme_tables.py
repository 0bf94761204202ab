#!/usr/bin/env python3
"""Fill the tables of README.md and docs/model-card.md; with ``--check`` only say whether they are stale.

A table's place is ``<!-- table:NAME -->`` ... ``<!-- /table -->``; whatever stands between is replaced. A table comes
from the code (``GENERATED``) or from ``docs/results/NAME.json``, which the measuring programs' ``--json`` feeds::

    {"columns": ["engine", "ms"], "rows": [["tflite", 1.5], ...], "note": "how and where it was measured"}

A result that does not exist yet leaves a line that says so.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
import tomllib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from edgekit import cli, errors  # noqa: E402  (found from a checkout that is not installed, too)

RESULTS = ROOT / "docs" / "results"
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "model-card.md")
PLACE = re.compile(r"(<!-- table:(?P<name>[\w-]+) -->\n).*?(<!-- /table -->)", re.DOTALL)


def markdown(columns: Sequence[str], rows: Iterable[Sequence[Any]], note: str = "") -> str:
    """A Markdown table; numbers go to the right, ``None`` is an empty cell."""
    rows = [list(row) for row in rows]
    for row in rows:
        if len(row) != len(columns):
            raise SystemExit(f"a row has {len(row)} cells, the table has {len(columns)} columns: {row}")
    numeric = [all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(columns))]
    lines = [list(columns), ["---:" if right else "---" for right in numeric]]
    lines += [["" if cell is None else str(cell) for cell in row] for row in rows]
    text = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return f"{text}\n{note}\n" if note else text


def verbs() -> str:
    """Every verb, where its program is, and what it does."""
    rows = [[f"`edgekit {verb}`", line, f"`{folder}/{verb}.py`"] for verb, (folder, line) in cli.VERBS.items()]
    return markdown(["command", "what it does", "program"], rows)


def exit_codes() -> str:
    """Every exit code and the errors that end in it."""
    codes: dict[int, list[str]] = {}
    for _, cls in inspect.getmembers(errors, inspect.isclass):
        if issubclass(cls, errors.EdgekitError):
            codes.setdefault(cls.exit_code, []).append(f"`{cls.__name__}`")
    meanings = {
        1: "failure",
        2: "wrong use",
        3: "missing dependency or engine",
        4: "source lost after retries",
        5: "gate failed",
    }
    rows = [[0, "done", ""], *([code, meanings[code], ", ".join(codes[code])] for code in sorted(codes))]
    return markdown(
        ["code", "meaning", "errors"], [*rows, [130, "interrupted (Ctrl-C)", ""], [143, "terminated (SIGTERM)", ""]]
    )


def boards() -> str:
    """Every board file, and what ``export`` chooses for it."""
    rows = []
    for path in sorted((ROOT / "boards").glob("*.toml")):
        board = tomllib.loads(path.read_text())
        export = board["export"]
        rows.append([f"`{path.stem}`", board["title"], export["format"], export["precision"], export["threads"]])
    return markdown(["`--target`", "board", "format", "precision", "threads"], rows)


GENERATED: dict[str, Callable[[], str]] = {"verbs": verbs, "exit-codes": exit_codes, "boards": boards}


def table(name: str) -> str:
    """The Markdown of the table called ``name``."""
    if name in GENERATED:
        return GENERATED[name]()
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return "*Not measured yet.*\n"
    result = json.loads(path.read_text())
    return markdown(result["columns"], result["rows"], result.get("note", ""))


def filled(text: str) -> str:
    """``text`` with every table up to date."""
    return PLACE.sub(lambda place: f"{place[1]}\n{table(place['name'])}\n{place[3]}", text)


def main() -> None:
    """Rewrite the documents, or with ``--check`` exit with 1 if one is stale."""
    stale = [path for path in DOCUMENTS if path.read_text() != filled(path.read_text())]
    if "--check" not in sys.argv[1:]:
        for path in stale:
            path.write_text(filled(path.read_text()))
    elif stale:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        sys.exit(f"stale tables in {names}. Refresh them with: scripts/readme_tables.py")


if __name__ == "__main__":
    main()

"""What ``import edgekit`` offers, what it costs and what it changes (nothing)."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import edgekit
from edgekit.cli import VERBS

ROOT = Path(edgekit.__file__).resolve().parent.parent


def test_public_names_are_few_sorted_and_real() -> None:
    assert len(edgekit.__all__) <= 15
    assert sorted(edgekit.__all__) == edgekit.__all__
    for name in edgekit.__all__:
        assert getattr(edgekit, name).__name__ == name


def test_nothing_else_is_visible() -> None:
    rooms = {name for name in dir(edgekit) if f"edgekit.{name}" in sys.modules}
    plumbing = {"annotations", "import_module", "TYPE_CHECKING"}
    assert {name for name in dir(edgekit) if not name.startswith("_")} - rooms - plumbing == set(edgekit.__all__)


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(edgekit.__file__).read_text())
    guard = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {
        alias.name: node.module for node in guard.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert imported == edgekit._HOMES
    assert sorted(imported) == edgekit.__all__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'edgekit' has no attribute 'open_bundel'"):
        _ = edgekit.open_bundel


def imports_of(statements: str) -> set[str]:
    """Top-level packages outside the standard library that ``statements`` import, in a fresh interpreter."""
    code = (
        "import json, sys\nbefore = set(sys.modules)\n"
        f"{statements}\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in set(sys.modules) - before})), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    names = set(json.loads(done.stderr.splitlines()[-1]))
    return {name for name in names - sys.stdlib_module_names if not name.startswith("_")}


def test_import_edgekit_costs_nothing() -> None:
    assert imports_of("import edgekit") == {"edgekit"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([verb, "--help"] for verb in VERBS)], ids=" ".join)
def test_help_imports_only_click(arguments: list[str]) -> None:
    statements = (
        "from edgekit.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit as end: assert end.code == 0, end.code"
    )
    assert imports_of(statements) == {"edgekit", "click"}


def test_importing_changes_nothing_in_the_process() -> None:
    code = """
import importlib, locale, logging, os, signal, sys, threading, warnings
def state():
    root = logging.getLogger()
    return [dict(os.environ), list(sys.path), list(warnings.filters), list(root.handlers), root.level, os.getcwd(),
            logging.getLogger("edgekit").handlers, locale.setlocale(locale.LC_ALL), sys.getrecursionlimit(),
            sys.excepthook, sys.stdout, sys.stderr, threading.active_count(), list(sys.meta_path),
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]]
before = state()
for module in ("edgekit", "edgekit.cli", "edgekit.errors", "edgekit.programs"):
    importlib.import_module(module)
assert state() == before, (before, state())
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)

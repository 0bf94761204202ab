"""Where the program folders are: the files that a person runs, as opposed to the library that is imported."""

from __future__ import annotations

from pathlib import Path

FOLDERS = ("training", "export", "runtime", "boards")


def find_folder(name: str) -> Path:
    """The folder ``name`` of :data:`FOLDERS`: at the root of a checkout, inside the package in a wheel."""
    if name not in FOLDERS:
        raise ValueError(f"no program folder is called {name!r}; there are: {', '.join(FOLDERS)}")
    package = Path(__file__).resolve().parent
    carried = package / "_programs" / name
    return carried if carried.is_dir() else package.parent / name

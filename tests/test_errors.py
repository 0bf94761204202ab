"""The error tree drawn at the top of ``edgekit/errors.py`` is the one that the classes form."""

from __future__ import annotations

import inspect
import re

from edgekit import errors

LINE = re.compile(r"^ {4}(?P<branches>[│├└─ ]*)(?P<name>\w+Error)(?: +(?P<code>\d))?  ")


def drawn_tree() -> dict[str, tuple[str | None, int]]:
    """Class name -> (parent's name, exit code), read from the drawing; no code of one's own means the parent's."""
    tree: dict[str, tuple[str | None, int]] = {}
    ancestors: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := LINE.match(line):
            depth = len(match["branches"]) // 4
            parent = ancestors[depth - 1] if depth else None
            code = int(match["code"]) if match["code"] else tree[parent or ""][1]
            tree[match["name"]] = (parent, code)
            ancestors[depth:] = [match["name"]]
    return tree


def test_the_drawing_equals_the_classes() -> None:
    classes = {
        name: (cls.__base__.__name__ if cls is not errors.EdgekitError else None, cls.exit_code)
        for name, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, errors.EdgekitError) and cls.__base__ is not None
    }
    assert drawn_tree() == classes


def test_a_missing_dependency_quotes_the_line_that_installs_it() -> None:
    error = errors.MissingDependencyError("onnxruntime", "onnx", "run ONNX bundles")
    assert str(error) == (
        "onnxruntime is needed to run ONNX bundles, and it is not installed.\n"
        'Install it with: pip install "edgekit-vision[onnx]"'
    )
    assert (error.package, error.extra, error.exit_code) == ("onnxruntime", "onnx", 3)

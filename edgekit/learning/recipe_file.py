"""Recipes: TOML files whose entries are the fields of a configuration, and checked against their types."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgekit.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class Resolved(Protocol):
    """A configuration that can be written down."""

    def to_json(self) -> dict[str, Any]:
        """A dictionary for JSON."""


def read_recipe(recipe: Path | None, overrides: dict[str, Any]) -> dict[str, Any]:
    """The recipe's entries, then ``overrides`` over them (entries that are ``None`` are not given).

    Raises:
        UsageError: the recipe is missing or is not TOML.
    """
    values: dict[str, Any] = {}
    if recipe is not None:
        try:
            values = tomllib.loads(recipe.read_text(encoding="utf-8"))
        except OSError as error:
            raise UsageError(f"recipe {recipe} cannot be read: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise UsageError(f"recipe {recipe} is not valid TOML: {error}") from error
    return values | {name: value for name, value in overrides.items() if value is not None}


def check_entries(default: DataclassInstance, values: dict[str, Any], *, where: str) -> dict[str, Any]:
    """``values`` in the types of the fields of ``default``; ``where`` names them in messages.

    A list of whole numbers becomes a tuple, and a whole number a fraction where one is expected.

    Raises:
        UsageError: an entry is no field, or of another type.
    """
    known = {field.name: field for field in fields(default)}
    unknown = sorted(values.keys() - known.keys())
    if unknown:
        raise UsageError(f"{where} has no meaning for {', '.join(unknown)}; known entries: {', '.join(known)}")
    checked: dict[str, Any] = {}
    for name, value in values.items():
        expected = type(getattr(default, name))
        if expected is tuple:
            if not isinstance(value, list | tuple) or not all(type(entry) is int for entry in value):
                raise UsageError(f"{where}: {name} must be a list of whole numbers, got {value!r}")
            value = tuple(value)
        elif expected is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        elif type(value) is not expected:
            raise UsageError(f"{where}: {name} must be {expected.__name__}, got {value!r}")
        checked[name] = value
    return checked

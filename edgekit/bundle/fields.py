"""Strict reading of untrusted JSON: every value is checked for type and range, every message names the field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from edgekit.errors import BundleError


def parse_json(data: bytes, where: str) -> Any:
    """``data`` as JSON; duplicate keys and NaN are refused.

    Raises:
        BundleError: it is anything else than one JSON document in UTF-8.
    """
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{where} is not valid JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} appears twice")
    return document


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


class Fields:
    """A JSON object whose keys are read one by one."""

    def __init__(self, value: object, where: str, known: Iterable[str] | None = None) -> None:
        """``where`` is how messages call it; with ``known``, any other key is refused."""
        if not isinstance(value, dict):
            raise BundleError(f"{where} must be an object, got {short(value)}")
        if known is not None and (unknown := sorted(set(value) - set(known))):
            raise BundleError(f"{where}: unknown key {short(unknown[0])}; the keys are {', '.join(sorted(known))}")
        self.value: dict[str, Any] = value
        self.where = where
        self.known = tuple(value if known is None else known)

    def path(self, key: str) -> str:
        """How messages call the field ``key``."""
        return f"{self.where}: {key}" if self.where.endswith(".json") else f"{self.where}.{key}"

    def get(self, key: str) -> Any:
        """The value of ``key``, which must be there."""
        if key not in self.value:
            raise BundleError(f"{self.path(key)} is missing")
        return self.value[key]

    def child(self, key: str, known: Iterable[str] | None = None) -> Fields:
        """The object at ``key``."""
        return Fields(self.get(key), self.path(key), known)

    def mapping(self, key: str) -> dict[str, Any]:
        """Any JSON object, as it is."""
        return self.child(key).value

    def items(self, key: str, *, most: int) -> list[Any]:
        """The list at ``key`` of at most ``most`` entries."""
        value = self.get(key)
        if not isinstance(value, list) or len(value) > most:
            got = f"{len(value)} entries" if isinstance(value, list) else short(value)
            raise BundleError(f"{self.path(key)} must be a list of at most {most} entries, got {got}")
        return value

    def text(self, key: str, pattern: str = r".{0,10000}", meaning: str = "text") -> str:
        """Text that matches ``pattern`` as a whole; ``meaning`` says it in words."""
        return text(self.get(key), self.path(key), pattern, meaning)

    def texts(self, key: str, *, least: int = 0, most: int = 1000) -> tuple[str, ...]:
        """A list of texts."""
        values = self.items(key, most=most)
        if len(values) < least:
            raise BundleError(f"{self.path(key)} must have at least {least} entry, got none")
        return tuple(text(value, f"{self.path(key)}[{i}]") for i, value in enumerate(values))

    def choice(self, key: str, options: Iterable[str]) -> str:
        """One of ``options``."""
        value = self.get(key)
        if not isinstance(value, str) or value not in options:
            raise BundleError(f"{self.path(key)} must be one of {', '.join(options)}, got {short(value)}")
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        """A whole number in ``low``..``high``."""
        value = self.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise BundleError(f"{self.path(key)} must be a whole number in {low}..{high}, got {short(value)}")
        return value

    def number(self, key: str, low: float, high: float) -> float:
        """A number in ``low``..``high``."""
        return number(self.get(key), self.path(key), low, high)


def text(value: object, where: str, pattern: str = r".{0,10000}", meaning: str = "text") -> str:
    """``value`` if it is text that matches ``pattern`` as a whole."""
    if not isinstance(value, str) or not re.fullmatch(pattern, value, re.DOTALL):
        raise BundleError(f"{where} must be {meaning}, got {short(value)}")
    return value


def number(value: object, where: str, low: float, high: float) -> float:
    """``value`` if it is a number in ``low``..``high``."""
    # The range check also refuses NaN and infinity, and works on whole numbers too large for a float.
    if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
        raise BundleError(f"{where} must be a number in {low:g}..{high:g}, got {short(value)}")
    return float(value)


def short(value: object) -> str:
    """``value`` as a message shows it: cut to 60 characters, however large it is."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**50:
        return "a number of more than 50 digits"
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."

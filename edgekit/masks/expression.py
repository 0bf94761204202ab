"""What ``--mask`` accepts, read by recursive descent: ``omg & roi(zones.json) | tracks``.

::

    union        = intersection, { ("|" | "+"), intersection } ;
    intersection = term, { "&", term } ;
    term         = "(", union, ")" | "roi", inside | "tcl", inside | NAME | place ;
    inside       = "(", ( place | '"', place, '"' ), ")" ;
    place        = FILE, [ ":", ( ZONE | SECONDS ) ] ;

``&`` binds tighter than ``|``; ``+`` is an older way to write ``|``. A FILE of ``roi`` ends in ``.json``; without
``roi`` it means the same. That of ``tcl`` ends in ``.edgekit`` and is looked at every so many SECONDS. What holds
``&``, ``|``, ``+`` or a parenthesis stands in ``roi("FILE:ZONE")``.

Nothing is opened or made here: :func:`edgekit.masks.sources.parse_mask_source` does that with the result.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass

from edgekit.errors import UsageError

NAMES = ("omg", "off", "motion", "tracks", "truth")

PASSING = ("motion", "tracks")
"""Sources that say where something is at the moment; what keeps still is found by the others alone."""

MAX_LENGTH = 1000
MAX_DEPTH = 20

_WORD = re.compile(r"[^&|+()\"]+")
_FILE = re.compile(r"(?P<file>.+?\.json)(?:\s*:(?P<zone>.*))?", re.IGNORECASE | re.DOTALL)
_WORDS = re.compile(r"(?P<file>.+?\.edgekit)(?:\s*:(?P<seconds>.*))?", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class Named:
    """One of ``NAMES``."""

    name: str


@dataclass(frozen=True)
class Roi:
    """The polygons of a file, or the one of them that is called ``zone``."""

    file: str
    zone: str | None = None


@dataclass(frozen=True)
class Tcl:
    """What the segmenter in the bundle ``file`` finds of its prompts, every so many ``seconds``."""

    file: str
    seconds: float | None = None


@dataclass(frozen=True)
class AnyOf:
    """A union."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class AllOf:
    """An intersection."""

    parts: tuple[Expression, ...]


Expression = Named | Roi | Tcl | AnyOf | AllOf


def parse_expression(text: str) -> Expression:
    """What ``text`` says.

    Raises:
        UsageError: it is no such expression; the message points at the column.
    """
    if len(text) > MAX_LENGTH:
        raise UsageError(f"a mask is described in at most {MAX_LENGTH} characters, got {len(text)}")
    parser = _Parser(text)
    expression = parser.union(0)
    if parser.at < len(text):
        raise parser.wrong("expected & or | before what follows" if text[parser.at] != ")" else "this ) closes nothing")
    return expression


def names_in(expression: Expression) -> frozenset[str]:
    """The names that an expression uses; ``tcl`` for a segmenter's."""
    if isinstance(expression, AnyOf | AllOf):
        return frozenset().union(*map(names_in, expression.parts))
    if isinstance(expression, Tcl):
        return frozenset({"tcl"})
    return frozenset({expression.name}) if isinstance(expression, Named) else frozenset()


def keyframe_of(expression: Expression) -> Expression | None:
    """What to look at in a keyframe: ``expression`` without what comes and goes. None means everything.

    That is without ``PASSING`` sources, or if it has none, without ``omg``: ``omg & motion`` becomes ``omg``,
    ``motion | tracks`` everything, ``omg & roi(yard.json)`` its polygons. Regions that were drawn stay.
    """
    lasting = _without(PASSING, expression)
    return _without(("omg",), expression) if lasting == expression else lasting


def _without(names: tuple[str, ...], expression: Expression) -> Expression | None:
    if isinstance(expression, Named):
        return None if expression.name in names else expression
    if isinstance(expression, Roi | Tcl):
        return expression
    parts = tuple(part for part in (_without(names, part) for part in expression.parts) if part is not None)
    if len(parts) > 1:
        return type(expression)(parts)
    return parts[0] if parts else None


class _Parser:
    """A text and the place up to which it is read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.at = 0

    def union(self, depth: int) -> Expression:
        """One or more intersections."""
        parts = [self._intersection(depth)]
        while self._take("|", "+"):
            parts.append(self._intersection(depth))
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _intersection(self, depth: int) -> Expression:
        parts = [self._term(depth)]
        while self._take("&"):
            parts.append(self._term(depth))
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def _term(self, depth: int) -> Expression:
        if depth > MAX_DEPTH:
            raise self.wrong(f"parentheses go at most {MAX_DEPTH} deep")
        if self._take("("):
            inner = self.union(depth + 1)
            self._close()
            return inner
        self._skip_blanks()
        start = self.at
        word = _WORD.match(self._text, self.at)
        if word is None:
            raise self.wrong("something is missing here: expected a mask source")
        self.at = word.end()
        name = word[0].strip()
        if name in ("roi", "tcl"):
            if not self._take("("):
                raise self.wrong(f"expected ({'FILE.json' if name == 'roi' else 'FILE.edgekit'}) after {name}")
            return self._inside(self._roi if name == "roi" else self._tcl)
        if name in NAMES:
            return Named(name)
        if _FILE.fullmatch(name):
            return self._roi(name, start)
        raise self.wrong(_unknown(name), start)

    def _inside(self, read: Callable[[str, int], Expression]) -> Expression:
        self._skip_blanks()
        start = self.at
        quoted = self._text.startswith('"', self.at)
        end = self._text.find('"' if quoted else ")", self.at + quoted)
        if end < 0:
            raise self.wrong(f"this has no closing {'quotation mark' if quoted else 'parenthesis'}", start)
        content = self._text[self.at + quoted : end]
        place = read(content.strip(), start)
        self.at = end + quoted
        self._close()
        return place

    def _roi(self, place: str, at: int) -> Roi:
        found = _FILE.fullmatch(place)
        if found is None:
            raise self.wrong("expected a file that ends in .json, or FILE.json:ZONE", at)
        zone = found["zone"]
        if zone is not None and not zone.strip():
            raise self.wrong("expected the name of a zone after the colon", at)
        return Roi(found["file"], None if zone is None else zone.strip())

    def _tcl(self, place: str, at: int) -> Tcl:
        found = _WORDS.fullmatch(place)
        if found is None:
            raise self.wrong("expected a bundle that ends in .edgekit, or FILE.edgekit:SECONDS", at)
        if found["seconds"] is None:
            return Tcl(found["file"])
        number = re.fullmatch(r"\s*(\d{1,6}(?:\.\d{1,6})?)\s*s?\s*", found["seconds"])
        if number is None:
            raise self.wrong("expected seconds after the colon, such as 2 or 0.5", at)
        return Tcl(found["file"], float(number[1]))

    def _close(self) -> None:
        if not self._take(")"):
            raise self.wrong("expected ) here")

    def _take(self, *signs: str) -> bool:
        """Read over one of ``signs`` if it comes next, and over the blanks around it."""
        self._skip_blanks()
        if not self._text.startswith(signs, self.at):
            return False
        self.at += 1
        self._skip_blanks()
        return True

    def _skip_blanks(self) -> None:
        while self.at < len(self._text) and self._text[self.at].isspace():
            self.at += 1

    def wrong(self, why: str, at: int | None = None) -> UsageError:
        """An error that points at a place of the text, by default the one up to which it is read."""
        at = self.at if at is None else at
        line = "".join(character if character.isprintable() else " " for character in self._text)
        return UsageError(
            f"the mask is wrong at column {at + 1}: {why}\n    {line}\n    {' ' * at}^\n"
            f"There are {', '.join(NAMES)}, roi(FILE.json), roi(FILE.json:ZONE), tcl(FILE.edgekit), "
            "parentheses, & (both) and | (either)."
        )


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, (*NAMES, "roi", "tcl"), n=1)
    hint = f"did you mean {near[0]!r}?" if near else "a file of polygons must end in .json"
    return f"no mask source is called {name!r}: {hint}"

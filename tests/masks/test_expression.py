"""What ``--mask`` accepts, and where messages about the rest point."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import UsageError
from edgekit.masks.expression import (
    NAMES,
    AllOf,
    AnyOf,
    Expression,
    Named,
    Roi,
    keyframe_of,
    names_in,
    parse_expression,
)
from edgekit.metrics.evaluation import uses_omg

OMG, MOTION, TRACKS, OFF = Named("omg"), Named("motion"), Named("tracks"), Named("off")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("omg", OMG),
        ("  omg ", OMG),
        ("(((omg)))", OMG),
        ("omg & roi(zones.json) | tracks", AnyOf((AllOf((OMG, Roi("zones.json"))), TRACKS))),
        ("omg & (roi(zones.json) | tracks)", AllOf((OMG, AnyOf((Roi("zones.json"), TRACKS))))),
        ("omg|motion|tracks", AnyOf((OMG, MOTION, TRACKS))),
        ("omg+tracks", AnyOf((OMG, TRACKS))),
        ("omg+tracks&motion", AnyOf((OMG, AllOf((TRACKS, MOTION))))),
        ("zones.json", Roi("zones.json")),
        ("zones.json:front door & omg", AllOf((Roi("zones.json", "front door"), OMG))),
        ("omg&my yard/zones 2.JSON", AllOf((OMG, Roi("my yard/zones 2.JSON")))),
        ("roi ( zones.json )", Roi("zones.json")),
        ("roi(zones.json:front door)", Roi("zones.json", "front door")),
        ("roi(zones.json : a:b | c & d)", Roi("zones.json", "a:b | c & d")),
        ('roi("zones (1).json")', Roi("zones (1).json")),
        ('roi( "a+b.json:(x)" ) & omg', AllOf((Roi("a+b.json", "(x)"), OMG))),
        ("roi(C:\\zones.json:door)", Roi("C:\\zones.json", "door")),
    ],
)
def test_what_is_accepted(text: str, expected: Expression) -> None:
    assert parse_expression(text) == expected


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 1, "something is missing here"),
        ("  ", 3, "something is missing here"),
        ("omg+", 5, "something is missing here"),
        ("omg & & off", 7, "something is missing here"),
        ("omg&&off", 5, "something is missing here"),
        ("| omg", 1, "something is missing here"),
        ("()", 2, "something is missing here"),
        ("omg & ogm", 7, "no mask source is called 'ogm': did you mean 'omg'?"),
        ("sun", 1, "no mask source is called 'sun': a file of polygons must end in .json"),
        ("omg off", 1, "no mask source is called 'omg off'"),
        ("(omg | off", 11, "expected ) here"),
        ("omg) & off", 4, "this ) closes nothing"),
        ("(omg) off", 7, "expected & or | before what follows"),
        ("omg (off)", 5, "expected & or | before what follows"),
        ("omg & roi", 10, "expected (FILE.json) after roi"),
        ("omg & roi(zones.json", 11, "this has no closing parenthesis"),
        ('roi("zones.json)', 5, "this has no closing quotation mark"),
        ("roi()", 5, "expected a file that ends in .json, or FILE.json:ZONE"),
        ("roi(zones.txt)", 5, "expected a file that ends in .json"),
        ("roi(zones.json:)", 5, "expected the name of a zone after the colon"),
        ('roi("zones.json" x)', 18, "expected ) here"),
        ('"zones.json"', 1, "something is missing here"),
        ("zones (1).json", 1, "no mask source is called 'zones'"),
        ("(" * 22 + "omg", 22, "parentheses go at most 20 deep"),
    ],
)
def test_errors_point_at_the_column(text: str, column: int, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"the mask is wrong at column {column}: ")) as caught:
        parse_expression(text)
    first, line, arrow, rest = str(caught.value).split("\n")
    assert message in first
    assert line[4:] == text
    assert arrow.index("^") == 4 + column - 1
    assert "There are omg, off, motion, tracks, truth, roi(FILE.json)" in rest


def test_the_length_is_limited() -> None:
    with pytest.raises(UsageError, match="at most 1000 characters, got 100003"):
        parse_expression("omg" + "+" * 100_000)


def test_a_message_holds_no_codes_that_a_terminal_obeys() -> None:
    with pytest.raises(UsageError) as caught:
        parse_expression("omg & \x1b[2J\n")
    assert "\x1b" not in str(caught.value)


def written(expression: Expression, parent: type | None = None) -> str:
    """An expression as text, with parentheses where they are needed."""
    if isinstance(expression, Named):
        return expression.name
    if isinstance(expression, Roi):
        return f"roi({expression.file}{'' if expression.zone is None else ':' + expression.zone})"
    sign = " | " if isinstance(expression, AnyOf) else " & "
    text = sign.join(written(part, type(expression)) for part in expression.parts)
    return f"({text})" if parent is not None else text


ZONE = st.text("abc:|&+(", min_size=1, max_size=5).map(str.strip).filter(bool)
LEAVES = st.sampled_from(NAMES).map(Named) | st.builds(Roi, st.just("a b/c.json"), st.none() | ZONE)
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, min_size=2, max_size=3)
        .map(tuple)
        .flatmap(lambda parts: st.sampled_from([AnyOf(parts), AllOf(parts)]))
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(EXPRESSIONS)
def test_what_is_written_is_read_again(expression: Expression) -> None:
    assert parse_expression(written(expression)) == expression


@settings(deadline=None, max_examples=500)
@given(st.text(max_size=40) | st.lists(
    st.sampled_from([*NAMES, "roi", "(", ")", "|", "&", "+", " ", '"', ":", "z.json", "roi(z.json:a)", "\n"])
).map("".join))  # fmt: skip
def test_no_text_does_more_than_be_refused(text: str) -> None:
    expression, message = None, ""
    try:
        expression = parse_expression(text)
    except UsageError as error:
        message = str(error)
    if expression is None:
        column = int(re.search(r"column (\d+)", message)[1])  # type: ignore[index]
        assert 1 <= column <= len(text) + 1
    else:
        assert parse_expression(written(expression)) == expression or '"' in text


@pytest.mark.parametrize(
    ("mask", "asked"),
    [("omg", True), ("(motion | omg) & roi(omg.json)", True), ("omg.json + off", False), ("tracks", False)],
)
def test_whether_a_mask_uses_the_network(mask: str, asked: bool) -> None:
    assert uses_omg(mask) is asked


@settings(deadline=None)
@given(EXPRESSIONS)
def test_a_keyframe_asks_nothing_that_comes_and_goes(expression: Expression) -> None:
    whole = keyframe_of(expression)
    names = frozenset() if whole is None else names_in(whole)
    assert not names & {"motion", "tracks"}
    assert names <= names_in(expression)


@pytest.mark.parametrize(
    ("text", "whole"),
    [
        ("omg & motion", "omg"),
        ("omg & motion | tracks", "omg"),
        ("motion | tracks", None),
        ("motion", None),
        ("omg", None),
        ("omg | tracks", "omg"),
        ("off", "off"),
        ("omg & roi(a.json)", "roi(a.json)"),
        ("omg & roi(a.json) & motion", "omg & roi(a.json)"),
        ("omg & motion | roi(a.json)", "omg | roi(a.json)"),
        ("roi(a.json) & (motion | tracks)", "roi(a.json)"),
        ("roi(a.json)", "roi(a.json)"),
    ],
)
def test_keyframes(text: str, whole: str | None) -> None:
    assert keyframe_of(parse_expression(text)) == (None if whole is None else parse_expression(whole))

"""The tokenizer against CLIP's own, and what it refuses."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import MissingDependencyError, UsageError
from edgekit.models.tcl import tokenizer as module
from edgekit.models.tcl.tokenizer import Tokenizer, merged

pytest.importorskip("regex", reason="comes with the extra 'segment'")


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer()


@pytest.fixture(scope="module")
def published() -> Any:
    """The tokenizer that lies beside the vocabulary, loaded without its package, which wants more."""
    specification = importlib.util.find_spec("clip")
    assert specification is not None
    assert specification.submodule_search_locations is not None
    path = Path(next(iter(specification.submodule_search_locations))) / "simple_tokenizer.py"
    own = importlib.util.spec_from_file_location("published_tokenizer", path)
    assert own is not None
    assert own.loader is not None
    theirs = importlib.util.module_from_spec(own)
    own.loader.exec_module(theirs)
    return theirs.SimpleTokenizer()


def test_the_example_of_the_publication(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("A person riding a motorcycle") == [320, 2533, 6765, 320, 10297]
    assert (tokenizer.start, tokenizer.end) == (49406, 49407)


@pytest.mark.parametrize(
    "text",
    [
        "itap of a {}.", "naïve café", "日本語の犬", "it's they'll WE'RE", "3.14 ½ ²", "a &amp;amp; b &lt;c&gt;",
        "😀👨‍👩‍👧 family", "<|startoftext|> dog <|endoftext|>", "schÃ¶n", "a\u2028b\tc\u00a0d", "\x1c\x00a",
        "İSTANBUL", "ﬁsh",
        "Z͑ͫ̓a͒l̐g̾o", "עברית", "",
    ],
)  # fmt: skip
def test_equal_to_the_published_one(tokenizer: Tokenizer, published: Any, text: str) -> None:
    assert tokenizer.encode(text) == published.encode(text)


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=30))
def test_equal_to_the_published_one_on_any_text(tokenizer: Tokenizer, published: Any, text: str) -> None:
    assert tokenizer.encode(text) == published.encode(text)


def test_rows_are_started_ended_and_filled(tokenizer: Tokenizer) -> None:
    rows = tokenizer.rows(["a dog", "hi there you"], context=6)
    assert rows.tolist() == [[49406, 320, 1929, 49407, 0, 0], [49406, 1883, 997, 592, 49407, 0]]


@pytest.mark.parametrize("text", ["", "  ", "\n\t", "\x00"])
def test_a_prompt_must_say_something(tokenizer: Tokenizer, text: str) -> None:
    with pytest.raises(UsageError, match="a prompt must name something, got"):
        tokenizer.rows([text])


def test_a_prompt_may_fill_the_context_but_no_more(tokenizer: Tokenizer) -> None:
    assert tokenizer.rows(["dog " * 75])[0, -1] == tokenizer.end
    with pytest.raises(UsageError, match=r"a prompt of at most 75 tokens is expected, got 76 in 'dog dog"):
        tokenizer.rows(["dog " * 76])


def test_a_very_long_word_is_refused_before_it_is_merged(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="got more than 75 in 'xxxx"):
        tokenizer.rows(["x" * 1_000_000])
    assert tokenizer.rows([" " * 10_000 + "dog"]).tolist() == tokenizer.rows(["dog"]).tolist()


def test_training_cuts_long_captions(tokenizer: Tokenizer) -> None:
    row = tokenizer.rows(["dog " * 200], cut=True)[0]
    assert row[-1] == tokenizer.end
    assert (row[1:-1] == 1929).all()


def test_half_a_character_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match=r"'caf' is followed by half a character"):
        tokenizer.rows(["caf\ud83d"])


def test_pairs_merge_from_the_left() -> None:
    assert merged(["a", "a", "a", "b", "a", "a"], ("a", "a")) == ["aa", "a", "b", "aa"]


def test_without_the_vocabulary_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module.read_merges.cache_clear()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"carries CLIP\'s vocabulary\)(.|\n)*edgekit-vision\[segment\]"):
        Tokenizer()
    monkeypatch.undo()
    module.read_merges.cache_clear()


@pytest.mark.parametrize("package", ["ftfy", "regex"])
def test_without_a_package_the_extra_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=rf"{package} is needed to read prompts"):
        Tokenizer().encode("dog")

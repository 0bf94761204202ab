"""CLIP's byte-pair encoding (arXiv 2103.00020, section 2.4; arXiv 1508.07909): any Unicode text -> token numbers.

The vocabulary is read from the package ``openai-clip``, which carries the published file of merges, without importing
it (its ``__init__`` wants a GPU stack). Text is repaired (ftfy), HTML entities become characters, white space runs
become one space, letters become small; then words are cut by category of character and each word's bytes are merged in
the order of the vocabulary. Equal to the published tokenizer on every text but those that it cannot take.
"""

from __future__ import annotations

import functools
import gzip
import html
import importlib.util
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import MissingDependencyError, UsageError
from edgekit.models.tcl.spec import CONTEXT

MERGES = 48_894
"""Merges of the file that are used: 49152 less the 256 bytes and two special tokens."""

WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|"
    r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)
"""What a word is: a contraction's end, letters, one digit, or a run of anything else but white space."""

LONGEST_TOKEN = 33
"""Characters, a space before it included: no token of the vocabulary is longer."""

SHOWN = 60
"""Characters of a refused text that a message shows."""


class Tokenizer:
    """Texts to rows of token numbers.

    Raises:
        MissingDependencyError: the extra ``segment`` is not installed.
    """

    def __init__(self) -> None:
        self._letters = byte_letters()
        merges = read_merges()
        single = list(self._letters.values())
        tokens = [*single, *(letter + "</w>" for letter in single), *("".join(pair) for pair in merges)]
        tokens += ["<|startoftext|>", "<|endoftext|>"]
        self._numbers = {token: number for number, token in enumerate(tokens)}
        self._ranks = {pair: rank for rank, pair in enumerate(merges)}
        self._split = _regex().compile(WORDS, _regex().IGNORECASE)
        self.start, self.end = len(tokens) - 2, len(tokens) - 1
        self._cached = functools.lru_cache(maxsize=65536)(self._word)

    def encode(self, text: str) -> list[int]:
        """The tokens of ``text``, of any length, without start and end; an empty text has none.

        Raises:
            UsageError: the text has lone surrogates, which no encoding has bytes for.
        """
        return self._tokens(clean(text))

    def _tokens(self, cleaned: str) -> list[int]:
        return [number for word in self._split.findall(cleaned) for number in self._cached(word)]

    def rows(self, texts: list[str], *, context: int = CONTEXT, cut: bool = False) -> NDArray[np.int64]:
        """[N, context]: start, the tokens, end, and zeros up to the end.

        Args:
            texts: one a row.
            context: tokens that the encoder reads.
            cut: leave out what does not fit, as training does with long captions.

        Raises:
            UsageError: a text is empty or blank, too long (unless ``cut``), or has lone surrogates.
        """
        rows = np.zeros((len(texts), context), np.int64)
        for row, text in zip(rows, texts, strict=True):
            tokens = self._fitting(text, context - 2, cut=cut)
            if not tokens:
                raise UsageError(f"a prompt must name something, got {text!r}.\nIs there a comma too many?")
            row[: len(tokens) + 2] = [self.start, *tokens, self.end]
        return rows

    def _fitting(self, text: str, most: int, *, cut: bool) -> list[int]:
        cleaned = clean(text)
        # Merging is quadratic in a word's length: what cannot fit is not tried.
        hopeless = len(cleaned) > LONGEST_TOKEN * most
        tokens = self._tokens(cleaned[: LONGEST_TOKEN * most])
        if cut:
            return tokens[:most]
        if hopeless or len(tokens) > most:
            count = f"more than {most}" if hopeless else str(len(tokens))
            shown = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
            raise UsageError(
                f"a prompt of at most {most} tokens is expected, got {count} in {shown!r}.\n"
                "Name what is to be found in a few words; several things are separate prompts"
            )
        return tokens

    def _word(self, word: str) -> tuple[int, ...]:
        """The tokens of one word."""
        if word in self._numbers and word.startswith("<|"):
            return (self._numbers[word],)
        parts = [self._letters[byte] for byte in word.encode("utf-8")]
        parts[-1] += "</w>"
        while len(parts) > 1:
            pairs = set(itertools.pairwise(parts))
            first = min(pairs, key=lambda pair: self._ranks.get(pair, len(self._ranks)))
            if first not in self._ranks:
                break
            parts = merged(parts, first)
        return tuple(self._numbers[part] for part in parts)


def merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """``parts`` with each ``pair`` of neighbours joined, from the left."""
    output, index = [], 0
    while index < len(parts):
        if tuple(parts[index : index + 2]) == pair:
            output.append("".join(pair))
            index += 2
        else:
            output.append(parts[index])
            index += 1
    return output


def clean(text: str) -> str:
    """``text`` repaired, unescaped, with single spaces and small letters."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(
            f"a prompt must be text, but {text[: error.start]!r} is followed by half a character (a lone surrogate).\n"
            "Was a file read in the wrong encoding?"
        ) from error
    try:
        import ftfy
    except ImportError as error:
        raise MissingDependencyError("ftfy", "segment", "read prompts") from error
    fixed: str = _regex().sub(r"\s+", " ", html.unescape(html.unescape(ftfy.fix_text(text))))
    return fixed.strip().lower()


def byte_letters() -> dict[int, str]:
    """For each byte the letter that stands for it in the vocabulary: itself where it is printable Latin-1."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + k) for k, byte in enumerate(others)}


@functools.cache
def read_merges() -> tuple[tuple[str, str], ...]:
    """The merges of the vocabulary, most frequent first.

    Raises:
        MissingDependencyError: no package with the vocabulary is installed.
    """
    specification = importlib.util.find_spec("clip")  # openai-clip's name; OpenAI's own repository installs it, too
    folders = specification.submodule_search_locations if specification is not None else None
    for folder in folders or ():
        path = Path(folder) / "bpe_simple_vocab_16e6.txt.gz"
        if path.is_file():
            lines = gzip.decompress(path.read_bytes()).decode("utf-8").split("\n")[1 : MERGES + 1]
            pairs = [line.split() for line in lines]
            return tuple((left, right) for left, right in pairs)
    raise MissingDependencyError("openai-clip", "segment", "read prompts (it carries CLIP's vocabulary)")


def _regex() -> Any:
    """The module that knows categories of characters, which Python's own ``re`` does not."""
    try:
        import regex
    except ImportError as error:
        raise MissingDependencyError("regex", "segment", "read prompts") from error
    return regex

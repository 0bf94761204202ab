"""Files of prompts: what is written is read, and whatever else a file may hold is refused in words."""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import PromptsError, StorageError, UsageError
from edgekit.segmentation.prompts import (
    MOST_PROMPTS,
    Prompts,
    check_names,
    decode_prompts,
    encode_prompts,
    read_prompts,
    write_prompts,
)
from edgekit.segmentation.spec import SegmenterSpec

TEXT = "5" * 64


def prompts(*names: str, depth: int = 4) -> Prompts:
    vectors = np.random.default_rng(0).normal(size=(len(names), depth))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Prompts(names=names, embeddings=vectors.astype(np.float32), model="tiny", text=TEXT, templates="photo")


def document(*names: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(encode_prompts(prompts(*names)))
    return loaded


def packed(*values: float) -> str:
    return base64.b64encode(np.array(values, "<f4").tobytes()).decode()


NAME_CHARACTERS = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"))


def is_shown(name: str) -> bool:
    return any(unicodedata.category(character)[0] in "LMNPS" for character in name)


@given(st.lists(st.text(NAME_CHARACTERS, min_size=1, max_size=20), min_size=1, max_size=9, unique=True))
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read(names: list[str]) -> None:
    kept = tuple(name for name in names if is_shown(name))
    if not kept:
        return
    before = prompts(*kept)
    after = decode_prompts(encode_prompts(before), "words.json")
    assert (after.names, after.model, after.text, after.templates) == (kept, "tiny", TEXT, "photo")
    assert np.array_equal(after.embeddings, before.embeddings)  # every bit, so that a swap equals a new export


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "words.json"
    write_prompts(path, prompts("cat"))
    write_prompts(path, prompts("cat", "dog"))
    assert read_prompts(path).names == ("cat", "dog")
    assert [file.name for file in path.parent.iterdir()] == ["words.json"]
    (tmp_path / "in_the_way").mkdir()
    with pytest.raises(StorageError, match="in_the_way cannot be written"):
        write_prompts(tmp_path / "in_the_way", prompts("cat"))
    assert not [file for file in tmp_path.iterdir() if file.name.endswith(".partial")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((), "expected 1 to 254 prompts, got 0"),
        (tuple(map(str, range(MOST_PROMPTS + 1))), "expected 1 to 254 prompts, got 255"),
        ((" ",), "a prompt has 1 to 200 characters that can be shown, got ' '"),
        (("x" * 201,), "1 to 200 characters"),
        (("red\x1b[2Jcar",), "that can be shown"),
        (("half\ud800",), "that can be shown"),
        (("Background",), "is what no prompt fits"),
        (("cat", "cat"), "'cat' comes twice"),
    ],
)
def test_names_that_are_no_prompts(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_names(names)


def test_names_of_any_script() -> None:
    check_names(("собака", "犬", "👩‍🚒", "می‌خواهم", "é", "chien d’aveugle"))


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda whole: whole.__setitem__(key, value)


def entry(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda whole: whole["prompts"][0].__setitem__(key, value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("format", "edgekit-bundle"), "format must be one of edgekit-prompts"),
        (put("version", 2), "version 2 is not known"),
        (put("extra", 1), "unknown key 'extra'"),
        (put("text", "zz"), "text must be 64 hexadecimal digits"),
        (put("model", "a b"), "model must be a model name"),
        (put("prompts", {}), "prompts must be a list"),
        (put("prompts", []), "expected 1 to 254 prompts, got 0"),
        (put("prompts", [{}] * 300), "at most 254 entries, got 300"),
        (entry("name", 3), r"prompts\[0\].name must be a name, got 3"),
        (entry("name", "dog"), "'dog' comes twice"),
        (entry("name", "a\nb"), "that can be shown"),
        (entry("extra", 3), r"prompts\[0\]: unknown key 'extra'"),
        (entry("embedding", [1, 0, 0, 0]), r"must be base64 of 32-bit numbers, got \[1"),
        (entry("embedding", "abc"), "is no base64"),
        (entry("embedding", "AAAA"), "numbers of 4 bytes, got 3 bytes"),
        (entry("embedding", packed(1, 0, 0)), "the embeddings differ in length"),
        (entry("embedding", packed(0, 0, 0, 0)), "must have the length 1, got 0"),
        (entry("embedding", packed(float("nan"), 0, 0, 0)), "must have the length 1, got nan"),
        (entry("embedding", packed(float("inf"), 0, 0, 0)), "must have the length 1, got inf"),
        (entry("embedding", packed(*[1e-3] * 5000)), "must be base64 of 32-bit"),
    ],
)
def test_a_malformed_file_is_refused_by_name(change: Callable[[dict[str, Any]], None], message: str) -> None:
    whole = document("cat", "dog")
    change(whole)
    with pytest.raises(PromptsError, match=message) as caught:
        decode_prompts(json.dumps(whole).encode(), "words.json")
    assert "words.json" in str(caught.value)
    assert "edgekit prompts CHECKPOINT" in str(caught.value)


def test_a_file_that_is_not_there_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(PromptsError, match=r"absent.json' cannot be read: No such file"):
        read_prompts(tmp_path / "absent.json")
    with pytest.raises(PromptsError, match="cannot be read"):
        read_prompts(tmp_path)
    large = tmp_path / "large.json"
    large.write_bytes(b" " * (9 << 20))
    with pytest.raises(PromptsError, match="larger than 8388608 bytes"):
        read_prompts(large)


@given(st.binary(max_size=300))
@settings(max_examples=100, deadline=None)
def test_bytes_of_any_kind_are_refused(data: bytes) -> None:
    with pytest.raises(PromptsError):
        decode_prompts(data, "words.json")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from(["format", "version", "model", "text", "templates", "prompts", "name", "embedding"]), JSON)
@settings(max_examples=200, deadline=None)
def test_a_field_of_any_kind_is_read_or_refused(key: str, value: Any) -> None:
    whole = document("cat", "dog")
    (whole["prompts"][0] if key in ("name", "embedding") else whole)[key] = value
    try:
        found = decode_prompts(json.dumps(whole).encode(), "words.json")
    except PromptsError:
        return
    assert len(found) == 2
    assert np.isfinite(found.embeddings).all()


@given(st.integers(0, 10_000), st.integers(0, 255))
@settings(max_examples=150, deadline=None)
def test_a_flipped_byte_is_read_or_refused(place: int, value: int) -> None:
    data = bytearray(encode_prompts(prompts("cat", "dog")))
    data[place % len(data)] = value
    try:
        found = decode_prompts(bytes(data), "words.json")
    except PromptsError:
        return
    assert np.allclose(np.linalg.norm(found.embeddings, axis=1), 1, atol=1e-2)


def spec(**changes: Any) -> SegmenterSpec:
    values: dict[str, Any] = {"model": "tiny", "text": TEXT, "height": 32, "width": 32, "mean": (0.0,) * 3}
    values |= {"std": (1.0,) * 3, "stretch": 1.0, "rows": 8, "columns": 8, "embedding": 4}
    return SegmenterSpec(**{**values, "sim_scale": 10.0, "sim_shift": -2.5, **changes})


@pytest.mark.parametrize("changes", [{"text": "6" * 64}, {"embedding": 5}])
def test_prompts_of_another_model_are_refused(changes: dict[str, Any]) -> None:
    assert prompts("cat").check_for(spec()).names == ("cat",)
    with pytest.raises(UsageError, match=r"words.json: made for another model, tiny .*\n.*edgekit prompts CHECKPOINT"):
        prompts("cat").check_for(spec(**changes), "words.json")


def test_some_of_the_prompts_in_another_order() -> None:
    whole = prompts("cat", "dog", "car")
    some = whole.chosen(["car", "cat"])
    assert some.names == ("car", "cat")
    assert np.array_equal(some.embeddings, whole.embeddings[[2, 0]])
    with pytest.raises(UsageError, match="lack 1 of the 2 that are asked for, first 'bus'"):
        whole.chosen(["cat", "bus"])

"""Prompts: what a segmenter looks for, as names and embeddings that a text encoder made of them, in a small JSON file.

A board has no text encoder. ``edgekit prompts`` makes the file where the checkpoint is, and it is swapped without
touching the graph. It may come from anyone, so everything in it is checked. ::

    {"format": "edgekit-prompts", "version": 1, "model": "tcl-mobilenetv2", "text": "3f...", "templates": "photo",
     "prompts": [{"name": "red car", "embedding": "<base64 of D little-endian float32>"}, ...]}

N prompts, D numbers of an embedding.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.bundle.fields import Fields, parse_json, short
from edgekit.errors import BundleError, PromptsError, StorageError, UsageError
from edgekit.segmentation.spec import SegmenterSpec

FORMAT, VERSION = "edgekit-prompts", 1

MOST_PROMPTS = 254
"""Labels are 8 bits, of which 0 is the background, and 255 in masks is not scored; COCO-Stuff has 171 classes."""

LONGEST_NAME = 200
"""In characters; a text encoder reads some 70 tokens."""

LARGEST_EMBEDDING = 4096
MAX_BYTES = 8 << 20
"""Of a file: 254 prompts of 4096 numbers are 5.6 MB."""

BACKGROUND = "background"
"""What a pixel is that no prompt fits; as a data set's first class it is no prompt."""

UNSHOWN = frozenset({"Cc", "Cs"})
"""Categories of characters that no name has: a terminal would obey them, and half a character is none."""

BREAKS = frozenset("\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2028\u2029")
"""Nor has it white space that starts a line."""

FINGERPRINT = r"[0-9a-f]{64}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompts:
    """Names of things and where they lie among embeddings."""

    names: tuple[str, ...]
    """One or more, none twice: the k-th (from 1) is the label k."""

    embeddings: NDArray[np.float32]
    """[N, D], each of length 1."""

    model: str
    """Variant that they were made for, for messages."""

    text: str
    """Fingerprint of the text encoder that made them."""

    templates: str
    """Sentences that the names were put into."""

    def __post_init__(self) -> None:
        check_names(self.names)
        if self.embeddings.shape[:1] != (len(self.names),) or self.embeddings.ndim != 2:
            raise ValueError(f"expected embeddings [{len(self.names)}, D], got {list(self.embeddings.shape)}")

    def __len__(self) -> int:
        return len(self.names)

    def check_for(self, spec: SegmenterSpec, where: str = "these prompts") -> Prompts:
        """Themselves, if the model of ``spec`` understands them.

        Raises:
            UsageError: another text encoder made them.
        """
        if self.text != spec.text or self.embeddings.shape[1] != spec.embedding:
            raise UsageError(
                f"{where}: made for another model, {self.model} with the text encoder {self.text[:12]} and embeddings "
                f"of {self.embeddings.shape[1]} numbers; this one is {spec.model} with {spec.text[:12]} and "
                f"{spec.embedding}.\n"
                "Make them with the checkpoint that the bundle was exported from: "
                'edgekit prompts CHECKPOINT "person, red car" -o words.json'
            )
        return self

    def chosen(self, names: Sequence[str]) -> Prompts:
        """Those of ``names``, in this order.

        Raises:
            UsageError: one is not there.
        """
        if missing := [name for name in names if name not in self.names]:
            raise UsageError(
                f"these prompts lack {len(missing)} of the {len(names)} that are asked for, first {missing[0]!r};"
                f" they are {', '.join(self.names[:5])}{', ...' if len(self) > 5 else ''}.\n"
                "Make those of a data set with: edgekit prompts CHECKPOINT --protocol voc -o voc.json"
            )
        rows = [self.names.index(name) for name in names]
        return replace(self, names=tuple(names), embeddings=self.embeddings[rows])


def check_names(names: Sequence[str]) -> None:
    """Raise ``UsageError`` unless ``names`` can be prompts: some, printable, not too long, none twice."""
    if not names or len(names) > MOST_PROMPTS:
        raise UsageError(f"expected 1 to {MOST_PROMPTS} prompts, got {len(names)}")
    for name in names:
        kinds = {unicodedata.category(character) for character in name if not character.isspace()}
        if not kinds - {"Cf"} or len(name) > LONGEST_NAME or kinds & UNSHOWN or set(name) & BREAKS:
            raise UsageError(f"a prompt has 1 to {LONGEST_NAME} characters that can be shown, got {short(name)}")
        if name.casefold() == BACKGROUND:
            raise UsageError(f"{name!r} is what no prompt fits, and always there; leave it out of the prompts")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"the prompt {twice!r} comes twice; a pixel can belong to one of them only")


def encode_prompts(prompts: Prompts) -> bytes:
    """The file's content: the same prompts give the same bytes, and reading gives the same numbers."""
    entries = [
        {"name": name, "embedding": base64.b64encode(vector.astype("<f4").tobytes()).decode()}
        for name, vector in zip(prompts.names, prompts.embeddings, strict=True)
    ]
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "model": prompts.model,
        "text": prompts.text,
        "templates": prompts.templates,
        "prompts": entries,
    }
    return (json.dumps(document, ensure_ascii=False, indent=1) + "\n").encode()


def decode_prompts(data: bytes, where: str) -> Prompts:
    """Read a file's content; ``where`` is how messages call it.

    Raises:
        PromptsError: anything in it is not as it should be; the message names the field.
    """
    try:
        return _decode(data, where)
    except (BundleError, UsageError) as error:
        raise PromptsError(
            f'{error}\nMake a new file with: edgekit prompts CHECKPOINT "person, red car" -o words.json'
        ) from error


def _decode(data: bytes, where: str) -> Prompts:
    if len(data) > MAX_BYTES:
        raise BundleError(f"{where} is larger than {MAX_BYTES} bytes, so it is no file of prompts")
    root = Fields(parse_json(data, where), where)
    root.choice("format", (FORMAT,))
    if root.integer("version", 1, 10**6) != VERSION:
        raise BundleError(f"{where}: version {root.value['version']} is not known; this edgekit reads {VERSION}")
    root = Fields(root.value, where, ("format", "version", "model", "text", "templates", "prompts"))
    entries = [
        Fields(entry, f"{where}: prompts[{index}]", ("name", "embedding"))
        for index, entry in enumerate(root.items("prompts", most=MOST_PROMPTS))
    ]
    vectors = [_vector(entry) for entry in entries]
    if len({vector.size for vector in vectors}) > 1:
        raise BundleError(f"{where}: the embeddings differ in length")
    try:
        return Prompts(
            names=tuple(entry.text("name", rf".{{1,{LONGEST_NAME}}}", "a name") for entry in entries),
            embeddings=np.stack(vectors) if vectors else np.zeros((0, 1), np.float32),
            model=root.text("model", r"[\w.-]{1,100}", "a model name"),
            text=root.text("text", FINGERPRINT, "64 hexadecimal digits"),
            templates=root.text("templates", r"[\w.-]{1,100}", "a name of templates"),
        )
    except UsageError as error:
        raise BundleError(f"{where}: {error}") from error


def _vector(entry: Fields) -> NDArray[np.float32]:
    """[D] finite and of length 1."""
    longest = 4 * (4 * LARGEST_EMBEDDING // 3 + 1)
    text = entry.text("embedding", rf"[A-Za-z0-9+/=]{{1,{longest}}}", "base64 of 32-bit numbers")
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise BundleError(f"{entry.path('embedding')} is no base64: {error}") from error
    if not data or len(data) % 4 or len(data) > 4 * LARGEST_EMBEDDING:
        raise BundleError(
            f"{entry.path('embedding')} must be 1 to {LARGEST_EMBEDDING} numbers of 4 bytes, got {len(data)} bytes"
        )
    values = np.frombuffer(data, "<f4").astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        length = float(np.linalg.norm(values.astype(np.float64)))
    if not abs(length - 1) < 1e-3:  # NaN and infinity are refused with the rest
        raise BundleError(f"{entry.path('embedding')} must have the length 1, got {length:g}")
    return values


def read_prompts(path: Path) -> Prompts:
    """Read a file of prompts.

    Raises:
        PromptsError: it is missing, too large, or anything in it is not as it should be.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PromptsError(
            f"the prompts {str(path)!r} cannot be read: {reason}\n"
            'Make such a file with: edgekit prompts CHECKPOINT "person, red car" -o words.json'
        ) from error
    return decode_prompts(data, path.name)


def write_prompts(path: Path, prompts: Prompts) -> None:
    """Write the file so that there is either the whole new one or what was there before.

    Raises:
        StorageError: it cannot be written; nothing is left behind.
    """
    beside = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("xb") as stream:
            stream.write(encode_prompts(prompts))
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(path)
    except OSError as error:
        raise StorageError(
            f"the prompts {path} cannot be written: {error.strerror or error}\nNothing was left behind."
        ) from error
    finally:
        beside.unlink(missing_ok=True)

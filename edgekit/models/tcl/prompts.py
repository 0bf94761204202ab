"""From names of things to text embeddings: each name in several sentences, whose embeddings are averaged."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit.errors import UsageError
from edgekit.models.tcl.masker import COSINE_EPS
from edgekit.models.tcl.model import TCL
from edgekit.models.tcl.tokenizer import Tokenizer
from edgekit.segmentation.prompts import BACKGROUND, Prompts, check_names, read_prompts

TEMPLATES: dict[str, tuple[str, ...]] = {
    # The nine that TCL is evaluated with: CLIP's seven for ImageNet (its repository's Prompt_Engineering notebook)
    # and two.
    "custom": (
        "itap of a {}.",
        "a bad photo of a {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
        "a photo of many {}.",
        "a photo of {}s.",
    ),
    "photo": ("a photo of a {}.",),
    "none": ("{}",),
}
"""Sentences by the name that ``--templates`` takes; ``{}`` stands for the name of a thing."""

MOST_ROWS = 1024
"""Sentences that are encoded at once."""


def sentences(name: str, templates: str) -> list[str]:
    """``name`` in each sentence of the set called ``templates``; raises ``UsageError`` for an unknown set."""
    if templates not in TEMPLATES:
        raise UsageError(f"no set of templates is called {templates!r}; there are: {', '.join(TEMPLATES)}")
    return [template.replace("{}", name) for template in TEMPLATES[templates]]


def parse_prompts(text: str) -> tuple[str, ...]:
    """Names separated by commas, e.g. ``person, red car``.

    Raises:
        UsageError: there is none, one is empty, or one comes twice.
    """
    names = tuple(name.strip() for name in text.split(","))
    if "" in names:
        raise UsageError(f"prompts are names separated by commas, e.g. 'person, car', got {text!r}")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UsageError(f"the prompt {twice[0]!r} comes twice in {text!r}; a pixel can belong to one of them only")
    return names


def parse_classes(text: str) -> dict[str, tuple[str, ...]]:
    """Classes separated by commas, each with its prompts, e.g. ``person, car=car|truck|delivery van``.

    A class without ``=`` is its own prompt.

    Raises:
        UsageError: there is none, a name or a prompt is empty, or one comes twice.
    """
    classes: dict[str, tuple[str, ...]] = {}
    for item in text.split(","):
        name, equals, rest = (part.strip() for part in item.partition("="))
        prompts = tuple(prompt.strip() for prompt in rest.split("|")) if equals else (name,)
        if not name or "" in prompts:
            raise UsageError(f"prompts are classes such as 'person, car=car|truck', separated by commas, got {text!r}")
        known = [prompt for others in classes.values() for prompt in others]
        twice = [prompt for prompt in prompts if [*known, *prompts].count(prompt) > 1]
        if name in classes or twice:
            raise UsageError(f"{(twice or [name])[0]!r} comes twice in {text!r}; a pixel can belong to one class only")
        classes[name] = prompts
    return classes


@torch.no_grad()
def embed_names(model: TCL, tokenizer: Tokenizer, names: tuple[str, ...], *, templates: str) -> Tensor:
    """[N, D] of length 1: of each name the mean over its sentences, of vectors that keep their own lengths.

    Raises:
        UsageError: a name is empty or too long, or the set of templates is unknown.
    """
    for name in names:
        tokenizer.rows([name], context=model.spec.text.context)  # an empty name is not empty in a sentence
    texts = [text for name in names for text in sentences(name, templates)]
    tokens = torch.from_numpy(tokenizer.rows(texts, context=model.spec.text.context))
    device = next(model.parameters()).device
    parts = [model.clip_text_encoder(rows.to(device)) for rows in torch.split(tokens, MOST_ROWS)]
    vectors = torch.cat(parts)
    means = vectors.reshape(len(names), -1, vectors.shape[-1]).mean(dim=1)
    return F.normalize(means, dim=-1, eps=COSINE_EPS)


def fingerprint(model: TCL) -> str:
    """64 hexadecimal digits that tell text encoders apart: embeddings of another one mean nothing to ``model``."""
    spec = model.spec
    digest = hashlib.sha256(json.dumps([asdict(spec.text), spec.embedding, spec.quick_gelu], sort_keys=True).encode())
    for name, value in sorted(model.clip_text_encoder.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().float().numpy().astype("<f4").tobytes())
    return digest.hexdigest()


def prompts_from(text: str, model: TCL, *, templates: str) -> Prompts:
    """Prompts from what a person typed: names separated by commas, or a file of ``edgekit prompts``.

    Raises:
        UsageError: names that cannot be prompts, or a file for another model.
        PromptsError: a malformed file.
        MissingDependencyError: the extra ``segment``, which reads names, is not installed.
    """
    path = Path(text)
    if path.suffix == ".json":
        prompts = read_prompts(path)
        if prompts.text != fingerprint(model):
            raise UsageError(
                f"{path}: made for another model, {prompts.model}.\n"
                'Make them with this checkpoint: edgekit prompts CHECKPOINT "person, red car" -o words.json'
            )
        return prompts
    names = tuple(name for name in parse_prompts(text) if name != BACKGROUND)
    return make_prompts(model, Tokenizer(), names, templates=templates)


def make_prompts(model: TCL, tokenizer: Tokenizer, names: tuple[str, ...], *, templates: str) -> Prompts:
    """What a bundle of ``model`` looks for, for a board that has no text encoder.

    Raises:
        UsageError: a name is empty, too long, not printable or there twice, or the set of templates is unknown.
    """
    check_names(names)
    embeddings = embed_names(model, tokenizer, names, templates=templates).cpu().float().numpy()
    return Prompts(
        names=names, embeddings=embeddings, model=model.spec.name, text=fingerprint(model), templates=templates
    )

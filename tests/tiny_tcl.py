"""TCL models in miniature, with every number off its start, captions' tokens for them, and one that finds things."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional as F

from edgekit.models.tcl.model import TCL
from edgekit.models.tcl.prompts import embed_names
from edgekit.models.tcl.spec import VARIANTS, MobileSpec, TclSpec, TextSpec, VitSpec
from edgekit.models.tcl.tokenizer import Tokenizer

END = 63
"""The end token of the miniature vocabulary."""


def vit_spec(**changes: object) -> TclSpec:
    """A vision transformer of three blocks that learnt from crops of 4 x 4 patches."""
    spec = TclSpec(
        name="tiny",
        text=TextSpec(width=32, layers=2, heads=4, context=12, vocabulary=END + 1),
        image=VitSpec(width=48, layers=3, heads=3, patch=8, grid=4),
        embedding=24,
        training_side=32,
    )
    return replace(spec, **changes)


def mobile_spec() -> TclSpec:
    """The shipped small variant with a narrower text encoder and neck."""
    text = TextSpec(width=16, layers=1, heads=2, context=16)
    return replace(VARIANTS["tcl-mobilenetv2"], text=text, image=MobileSpec(channels=16), embedding=16)


def shaken(spec: TclSpec, seed: int = 0) -> TCL:
    """A model whose gates, biases, norms and ``sim2mask`` are not where they start: there they hide mistakes."""
    torch.manual_seed(seed)
    model = TCL(spec).eval()
    with torch.no_grad():
        for parameter in model.masker.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, parameter in model.named_parameters():
            if name.endswith("gate.gate"):
                parameter.add_(0.7)
            elif parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.tcli_loss.logit_scale.add_(0.3)
        model.tclf_loss.logit_scale.sub_(0.3)
    return model


def captions(count: int, spec: TclSpec, seed: int = 0) -> torch.Tensor:
    """[count, context] random tokens, each row ended."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(1, END, (count, spec.text.context), generator=generator)
    for row, length in zip(rows, torch.randint(2, spec.text.context, (count,), generator=generator), strict=True):
        row[length] = END
        row[length + 1 :] = 0
    return rows


FOUND = ("red box", "blue disc")
"""What :func:`finder` finds, in the colours of :func:`drawn`."""


def drawn(
    rng: np.random.Generator, *, height: int, width: int, smallest: int, largest: int
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """A scene on noise, RGB [height, width, 3], and its labels [height, width]: 0, or 1 + the number in ``FOUND``."""
    image = rng.integers(90, 150, (height, width, 3), dtype=np.uint8)
    labels = np.zeros((height, width), np.uint8)
    for number, colour in enumerate(((220, 30, 30), (30, 60, 220)), start=1):
        if rng.random() < 0.3:
            continue
        down, across = (int(side) for side in rng.integers(smallest, largest, 2))
        top, left = int(rng.integers(0, height - down)), int(rng.integers(0, width - across))
        shape = np.zeros((height, width), np.uint8)
        if number == 1:
            shape[top : top + down, left : left + across] = 1
        else:
            cv2.ellipse(shape, (left + across // 2, top + down // 2), (across // 2, down // 2), 0, 0, 360, 1, -1)
        image[shape > 0], labels[shape > 0] = colour, number
    return image, labels


def draw_data(root: Path, *, train: int, val: int) -> Path:
    """``images/`` and ``annotations/instances_{train,val}.json`` of scenes, 128x96, with their true boxes.

    Pictures are numbered through, from 1; classes are ``FOUND``.
    """
    rng = np.random.default_rng(1)
    (root / "images").mkdir(parents=True)
    (root / "annotations").mkdir()
    categories = [{"id": number, "name": name} for number, name in enumerate(FOUND, start=1)]
    for split, numbers in (("train", range(1, train + 1)), ("val", range(train + 1, train + val + 1))):
        annotations = []
        for number in numbers:
            image, labels = drawn(rng, height=96, width=128, smallest=28, largest=48)
            Image.fromarray(image).save(root / "images" / f"{number}.png")
            for category in (1, 2):
                if (labels == category).any():
                    box = list(cv2.boundingRect((labels == category).astype(np.uint8)))
                    annotations.append(
                        {"id": len(annotations) + 1, "image_id": number, "category_id": category, "bbox": box}
                    )
        images = [{"id": number, "file_name": f"{number}.png", "height": 96, "width": 128} for number in numbers]
        document = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return root


def finder(steps: int = 120) -> TCL:
    """A miniature that finds ``FOUND`` in scenes of :func:`drawn`, shown them with their masks for four seconds.

    Captions would need hours; what is tested with it is what comes after a model that works.
    """
    torch.manual_seed(0)
    spec = TclSpec(
        name="finder",
        text=TextSpec(width=16, layers=1, heads=2, context=16),
        image=VitSpec(width=32, layers=2, heads=2, patch=16, grid=8),
        embedding=16,
        training_side=128,
    )
    model = TCL(spec)
    texts = embed_names(model, Tokenizer(), FOUND, templates="custom")
    learning = [*model.clip_image_encoder.parameters(), *model.masker.parameters()]
    for parameter in learning:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(learning, lr=3e-3)
    rng = np.random.default_rng(0)
    for _ in range(steps):
        scenes = [drawn(rng, height=128, width=128, smallest=30, largest=90) for _ in range(4)]
        images = torch.from_numpy(np.stack([image for image, _ in scenes])).permute(0, 3, 1, 2).float()
        masks = torch.from_numpy(np.stack([[labels == 1, labels == 2] for _, labels in scenes])).float()
        normalised = model.normalise(images)
        cells = model.masker.image_encoder(model.clip_image_encoder.features(normalised), *model.cells(normalised))
        logits = model.masker.logits(cells, texts)
        loss = F.binary_cross_entropy_with_logits(logits, F.interpolate(masks, size=logits.shape[-2:], mode="area"))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.requires_grad_(False).eval()

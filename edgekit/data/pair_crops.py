"""Training crops of captioned pictures: a random part of each, in one size, and the tokens of what is said of it.

A crop depends on (seed, epoch, index) alone, as everywhere here. Published TCL crops .08 to 1 of a picture's area and
adds RandAugment and erasing (timm's recipe); here colours are jittered, which few pictures bear better.

S the crop's side, K captions, L tokens.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekit.data.pairs import Pair, PairSet
from edgekit.data.resize import resize_into
from edgekit.data.training_set import SampleKey
from edgekit.errors import DataError
from edgekit.models.tcl.tokenizer import Tokenizer

KNOWN_CAPTIONS = 8
"""So many captions of a picture are compared with other pictures'; COCO has five or six."""

RATIO = 4 / 3
"""A part's sides differ by this factor at most."""

JITTER = 0.4
"""Brightness, contrast and saturation are scaled by 1 - JITTER to 1 + JITTER."""

OTHERS = 10
"""Pictures that are tried in a broken one's place before training stops."""

log = logging.getLogger("edgekit")


@dataclass(frozen=True, kw_only=True)
class PairSample:
    """One crop with its text."""

    image: NDArray[np.uint8]
    """[S, S, 3] RGB."""

    tokens: NDArray[np.int64]
    """[L] of the caption that was drawn."""

    captions: NDArray[np.int64]
    """[K, L] of the picture's captions, then rows of zeros."""


@dataclass(frozen=True, kw_only=True)
class PairCrops:
    """The crops of a set of pairs."""

    pairs: PairSet
    tokenizer: Tokenizer
    context: int
    """Tokens of a text, L."""

    seed: int
    smallest: float
    """Least share of a picture's area that a crop shows."""

    jitter: bool = True

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: SampleKey) -> PairSample:
        """The crop ``key``; a picture that cannot be read is replaced by the next, and logged.

        Raises:
            DataError: so are the ten after it.
        """
        rng = np.random.default_rng((self.seed, key.epoch, key.index))
        pair, image = self._readable(key.index)
        crop = jittered(random_crop(image, rng, side=key.size, smallest=self.smallest), rng if self.jitter else None)
        captions = self.tokenizer.rows(list(pair.captions[:KNOWN_CAPTIONS]), context=self.context, cut=True)
        known = np.zeros((KNOWN_CAPTIONS, self.context), np.int64)
        known[: len(captions)] = captions
        chosen = pair.captions[int(rng.integers(len(pair.captions)))]
        return PairSample(
            image=crop, tokens=self.tokenizer.rows([chosen], context=self.context, cut=True)[0], captions=known
        )

    def _readable(self, index: int) -> tuple[Pair, NDArray[np.uint8]]:
        for further in range(OTHERS):
            pair = self.pairs.pairs[(index + further) % len(self.pairs)]
            try:
                return pair, pair.read()
            except DataError as error:
                problem = error
                log.warning("left out: %s", error)
        raise DataError(f"{OTHERS} pictures in a row cannot be read; the last: {problem}") from problem


def random_crop(image: NDArray[np.uint8], rng: np.random.Generator, *, side: int, smallest: float) -> NDArray[np.uint8]:
    """A random part of [h, w, 3], mirrored in half of the cases, as [side, side, 3].

    Its area is ``smallest`` to 1 of the picture's, its ratio of sides 3:4 to 4:3 (arXiv 1409.4842, section 6).
    """
    height, width = image.shape[:2]
    area = height * width * rng.uniform(smallest, 1.0)
    ratio = float(np.exp(rng.uniform(-np.log(RATIO), np.log(RATIO))))
    rows, columns = min(height, round((area / ratio) ** 0.5)), min(width, round((area * ratio) ** 0.5))
    rows, columns = max(1, rows), max(1, columns)
    top, left = int(rng.integers(height - rows + 1)), int(rng.integers(width - columns + 1))
    crop = np.empty((side, side, 3), np.uint8)
    resize_into(image[top : top + rows, left : left + columns], crop)
    return crop[:, ::-1] if rng.random() < 0.5 else crop


def jittered(image: NDArray[np.uint8], rng: np.random.Generator | None) -> NDArray[np.uint8]:
    """[h, w, 3] with brightness, contrast and saturation changed; as it is without ``rng``."""
    if rng is None:
        return np.ascontiguousarray(image)
    brightness, contrast, saturation = (float(value) for value in rng.uniform(1 - JITTER, 1 + JITTER, 3))
    values = image.astype(np.float32) * brightness
    grey = values @ np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601's luma
    values = grey.mean() + contrast * (grey[..., None] + saturation * (values - grey[..., None]) - grey.mean())
    return np.asarray(np.clip(values, 0, 255), np.uint8)

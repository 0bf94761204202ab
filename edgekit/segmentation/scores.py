"""From maps of embeddings to masks: how well each cell fits each prompt (arXiv 2212.00785, section 3.2, in numpy).

N prompts, D embedding, h x w the map's size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgekit.decoding.one_stage import sigmoid
from edgekit.segmentation.enlarging import interpolation
from edgekit.segmentation.pamr import refine
from edgekit.segmentation.spec import SegmenterSpec

COSINE_EPS = 1e-6
"""Least length that a vector is divided by."""

CLIP_CENTRE, CLIP_SLOPE = 0.25, 10.0
"""Cosines of CLIP's own map become scores by sigmoid((s - .25) * 10): the branch that keeps what CLIP knew."""


def cosine_map(embedding: NDArray[np.float32], prompts: NDArray[np.float32]) -> NDArray[np.float32]:
    """[D, h, w] and [N, D] of length 1 -> cosines [N, h, w] in -1..1."""
    depth, rows, columns = embedding.shape
    cells = embedding.reshape(depth, -1)
    lengths = np.sqrt(np.einsum("dc,dc->c", cells, cells))
    cosines = (prompts @ cells) / np.maximum(lengths, np.float32(COSINE_EPS))
    return np.asarray(cosines.reshape(-1, rows, columns), np.float32)


def masks(
    spec: SegmenterSpec,
    outputs: dict[str, NDArray[np.float32]],
    prompts: NDArray[np.float32],
    image: NDArray[np.float32],
) -> NDArray[np.float32]:
    """How well each cell of the map fits each prompt.

    Args:
        spec: the model.
        outputs: the graph's, ``embedding`` [1, D, h, w] and, where ``spec.clip_share`` is not 0, ``known``.
        prompts: [N, D] of length 1.
        image: the graph's input [1, 3, H, W], whose colours masks are refined along.

    Returns:
        [N, h, w] in 0..1.
    """
    cosines = cosine_map(outputs["embedding"][0], prompts)
    found = sigmoid(cosines * np.float32(spec.sim_scale) + np.float32(spec.sim_shift))
    if spec.pamr:
        found = refine(image[0], found)
    if spec.clip_share:
        known = sigmoid((cosine_map(outputs["known"][0], prompts) - np.float32(CLIP_CENTRE)) * np.float32(CLIP_SLOPE))
        down = interpolation(spec.rows, spec.known_rows).astype(np.float32)
        across = interpolation(spec.columns, spec.known_columns).astype(np.float32).T
        found = spec.clip_share * (down @ known @ across) + (1 - spec.clip_share) * found
    return np.asarray(found, np.float32)

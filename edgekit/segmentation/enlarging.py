"""Bilinear interpolation as a matrix for each axis: a map in another size, in one product, whatever steps are between.

Along one axis every step from a map to a picture is linear (enlarge to the input, cut the bars off, enlarge to the
picture), so the steps multiply into one matrix, and nothing in between is ever made.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def interpolation(length: int, source: int) -> NDArray[np.float64]:
    """[length, source]: each row mixes the two nearest of ``source`` cells; centres of cells are what is aligned."""
    places = np.clip((np.arange(length) + 0.5) * source / length - 0.5, 0, source - 1)
    return _mix(places, source)


def corner_interpolation(length: int, source: int) -> NDArray[np.float64]:
    """[length, source], likewise, but the first and last cells of both lie on each other."""
    places = np.arange(length) * ((source - 1) / (length - 1)) if length > 1 else np.zeros(1)
    return _mix(np.clip(places, 0, source - 1), source)


def _mix(places: NDArray[np.float64], source: int) -> NDArray[np.float64]:
    first = np.floor(places).astype(int)
    second = np.minimum(first + 1, source - 1)
    share = places - first
    matrix = np.zeros((len(places), source))
    rows = np.arange(len(places))
    np.add.at(matrix, (rows, first), 1 - share)
    np.add.at(matrix, (rows, second), share)
    return matrix

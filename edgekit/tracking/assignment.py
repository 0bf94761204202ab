"""Who belongs to whom: the best one-to-one assignment, without scipy.

The Hungarian method with shortest augmenting paths (Jonker and Volgenant, Computing 38, 1987; the form with potentials
that every textbook has). scipy's ``linear_sum_assignment`` is the same algorithm, but scipy is larger than everything
that edgekit installs. Greedy assignment is not good enough: where two persons pass each other, the pair that overlaps
most may leave the other two with nobody (a test has the example).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def best_pairs(gains: NDArray[np.float32]) -> list[tuple[int, int]]:
    """The pairs (row, column) whose gains add up to the most; every row and column is in one pair at most.

    Args:
        gains: [N, M] what each pair is worth; pairs worth 0 or less are never made.

    Returns:
        At most min(N, M) pairs in the order of rows; which of equal solutions it is depends on ``gains`` alone.
    """
    wanted = gains > 0
    # Most rows of a real frame have one candidate, which wants nobody else: those pairs need no algorithm.
    alone = wanted & (wanted.sum(1, keepdims=True) == 1) & (wanted.sum(0, keepdims=True) == 1)
    pairs = [(int(row), int(column)) for row, column in zip(*np.nonzero(alone), strict=True)]
    wanted &= ~alone
    rows, columns = np.flatnonzero(wanted.any(1)), np.flatnonzero(wanted.any(0))
    if len(rows) and len(columns):
        costs = -np.where(wanted, gains, 0)[np.ix_(rows, columns)].astype(np.float64)
        swap = len(rows) > len(columns)
        for row, column in _cheapest(costs.T if swap else costs):
            pair = (column, row) if swap else (row, column)
            if wanted[rows[pair[0]], columns[pair[1]]]:
                pairs.append((int(rows[pair[0]]), int(columns[pair[1]])))
    return sorted(pairs)


def _cheapest(costs: NDArray[np.float64]) -> list[tuple[int, int]]:
    """A column for each row of ``costs`` [N, M], N <= M, so that their costs add up to the least.

    Rows and columns are counted from 1 here; column 0 stands for the row that has none yet.
    """
    rows, columns = costs.shape
    row_price, column_price = np.zeros(rows + 1), np.zeros(columns + 1)
    owner = np.zeros(columns + 1, np.int64)  # the row that has a column; 0 for nobody
    for row in range(1, rows + 1):
        owner[0], column = row, 0
        nearest, before = np.full(columns + 1, np.inf), np.zeros(columns + 1, np.int64)
        reached = np.zeros(columns + 1, np.bool_)
        while owner[column] or column == 0:  # lengthen the shortest path until it ends in a free column
            reached[column] = True
            distance = costs[owner[column] - 1] - row_price[owner[column]] - column_price[1:]
            closer = np.flatnonzero(~reached[1:] & (distance < nearest[1:])) + 1
            nearest[closer], before[closer] = distance[closer - 1], column
            column = int(np.where(reached, np.inf, nearest).argmin())
            step = nearest[column]
            row_price[owner[reached]] += step
            column_price[reached] -= step
            nearest[~reached] -= step
        while column:  # everybody on the path moves on by one column
            owner[column], column = owner[before[column]], int(before[column])
    return [(int(owner[column]) - 1, column - 1) for column in range(1, columns + 1) if owner[column]]

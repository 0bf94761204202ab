"""Assignment: held against every permutation, and against scipy."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgekit.tracking.assignment import best_pairs

GAINS = st.tuples(st.integers(0, 5), st.integers(0, 5)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.integers(-3, 6).map(float))
)


def total(gains, pairs):
    return sum(float(gains[pair]) for pair in pairs)


def best_total(gains):
    """The most that any one-to-one choice of pairs gives, by trying all."""
    wanted = np.maximum(gains, 0)
    if wanted.shape[0] > wanted.shape[1]:
        wanted = wanted.T
    rows = range(wanted.shape[0])
    orders = itertools.permutations(range(wanted.shape[1]), wanted.shape[0])
    return max((sum(float(wanted[row, order[row]]) for row in rows) for order in orders), default=0.0)


@settings(deadline=None, max_examples=300)
@given(GAINS)
def test_no_other_choice_of_pairs_gains_more(gains):
    pairs = best_pairs(gains)
    assert total(gains, pairs) == best_total(gains)
    assert all(gains[pair] > 0 for pair in pairs)
    assert pairs == sorted(pairs)
    for side in (0, 1):
        used = [pair[side] for pair in pairs]
        assert len(set(used)) == len(used)


@pytest.mark.parametrize(("rows", "columns", "share"), [(60, 60, 1.0), (40, 70, 0.3), (70, 40, 0.05), (1, 50, 1.0)])
def test_many_at_once_as_scipy_does(rows, columns, share):
    optimize = pytest.importorskip("scipy.optimize")
    random = np.random.default_rng(rows * columns)
    for _ in range(5):
        gains = random.random((rows, columns)).astype(np.float32)
        gains[random.random(gains.shape) > share] = -1
        theirs = optimize.linear_sum_assignment(np.maximum(gains, 0), maximize=True)
        assert total(gains, best_pairs(gains)) == pytest.approx(np.maximum(gains, 0)[theirs].sum(), rel=1e-5)


def test_the_greedy_choice_is_not_the_best():
    # Two persons pass each other. .6 is the best overlap, but it would leave the others with .1.
    gains = np.array([[0.6, 0.5], [0.5, 0.1]], np.float32)
    assert best_pairs(gains) == [(0, 1), (1, 0)]


def test_equal_gains_give_the_same_pairs_every_time():
    gains = np.ones((4, 4), np.float32)
    assert best_pairs(gains) == best_pairs(gains.copy())
    assert len(best_pairs(gains)) == 4


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nobody_gets_nobody(shape):
    assert best_pairs(np.zeros(shape, np.float32)) == []

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.profiling.blobs import blob_mask


@given(share=st.floats(0, 1), grid=st.tuples(st.integers(2, 40), st.integers(2, 40)), seed=st.integers(0, 2**32 - 1))
def test_a_mask_has_the_share_that_was_asked_for(share, grid, seed):
    mask = blob_mask(share, grid=grid, seed=seed)
    assert mask.shape == grid
    assert np.count_nonzero(mask) == round(share * mask.size)


def test_seeds_differ_and_repeat():
    assert (blob_mask(0.3, grid=(20, 20), seed=1) == blob_mask(0.3, grid=(20, 20), seed=1)).all()
    assert (blob_mask(0.3, grid=(20, 20), seed=1) != blob_mask(0.3, grid=(20, 20), seed=2)).any()


@pytest.mark.parametrize("seed", range(5))
def test_active_cells_hang_together(seed):
    mask = blob_mask(0.3, grid=(20, 20), seed=seed)
    padded = np.pad(mask, 1)
    neighbours = sum(np.roll(padded, shift, axis) for shift in (-1, 1) for axis in (0, 1))[1:-1, 1:-1]
    assert (neighbours[mask] > 0).mean() > 0.95

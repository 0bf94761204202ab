"""The path from a mask to a level against ``edgekit.masks.pyramid``."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from edgekit.masks.pyramid import mask_at
from edgekit.sparse.levels import Path, path_to_level


def exists(rows: int, columns: int, mask_rows: int, mask_columns: int) -> bool:
    try:
        mask_at(np.ones((mask_rows, mask_columns), np.bool_), rows=rows, columns=columns)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize("mask_rows", range(1, 8))
def test_a_path_leads_where_the_mask_does(mask_rows: int) -> None:
    for mask_columns, rows, columns in product((1, 2, 5), range(1, 16), range(1, 12)):
        path = path_to_level(mask_rows=mask_rows, mask_columns=mask_columns, rows=rows, columns=columns)
        assert (path is not None) == exists(rows, columns, mask_rows, mask_columns)


def test_the_steps_of_a_path() -> None:
    assert path_to_level(mask_rows=20, mask_columns=20, rows=3, columns=3) == Path(
        halvings=3, row_factor=1, column_factor=1
    )
    assert path_to_level(mask_rows=5, mask_columns=3, rows=10, columns=12) == Path(
        halvings=0, row_factor=2, column_factor=4
    )


@pytest.mark.parametrize("cells", range(1, 10))
def test_same_cells_means_that_sites_lie_under_active_ones(cells: int) -> None:
    """For every mask of one cell, and so for every mask: what is said is true, and what is usual is found."""
    found = set()
    for factor, coarse in product(range(1, 9), range(1, 13)):
        fine = coarse * factor
        paths = [path_to_level(mask_rows=cells, mask_columns=cells, rows=size, columns=size) for size in (fine, coarse)]
        if paths[0] is None or paths[1] is None or not paths[0].same_cells(paths[1], factor):
            continue
        found.add((coarse, factor))
        for cell in range(cells):
            mask = np.zeros((cells, cells), np.bool_)
            mask[cell, cells - 1 - cell] = True
            below, above = (mask_at(mask, rows=size, columns=size) for size in (fine, coarse))
            assert not (below & ~np.repeat(np.repeat(above, factor, axis=0), factor, axis=1)).any()
    assert {(cells, factor) for factor in range(1, 9)} <= found
    if cells % 2 == 0:
        assert {(cells // 2, factor) for factor in (2, 4, 6)} <= found


def test_a_level_that_only_looks_finer() -> None:
    """3 cells halve to 2, and 2 sites repeated three times are 6, but so are 3 cells repeated twice."""
    fine, coarse = (path_to_level(mask_rows=3, mask_columns=1, rows=rows, columns=1) for rows in (6, 2))
    assert fine is not None
    assert coarse is not None
    assert not fine.same_cells(coarse, 3)
    assert not coarse.same_cells(fine, 1)

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from edgekit.masks.pyramid import mask_at
from edgekit.models.anchors import anchor_mask
from edgekit.models.registry import find_model
from edgekit.spec import AnchorLevel

GRID = 20


@pytest.fixture(scope="module")
def spec():
    spec = find_model("mobilenetv2-ssdlite-omg").spec(("cat",), 320, 320)
    finer = AnchorLevel(rows=2 * GRID, columns=2 * GRID, sizes=((8.0, 8.0), (4.0, 8.0)))
    return dataclasses.replace(spec, anchors=(finer, *spec.anchors))


@given(mask=arrays(np.bool_, (GRID, GRID), elements=st.booleans(), fill=st.just(False)))
def test_an_anchor_is_active_where_the_pyramid_is(spec, mask):
    parts = [
        np.repeat(mask_at(mask, rows=level.rows, columns=level.columns).reshape(-1), len(level.sizes))
        for level in spec.anchors
    ]
    np.testing.assert_array_equal(anchor_mask(spec, mask), np.concatenate(parts))

"""Building networks by name."""

from __future__ import annotations

import pytest

from edgekit.errors import UsageError
from edgekit.models.registry import MODELS, build


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'mobilenetv2-ssdlite-omg'"):
        build("mobilenetv2-ssd-omg", ("person",))


def test_a_network_that_cannot_be_trained_is_refused() -> None:
    with pytest.raises(UsageError, match=r"pvanet-9\.1 can be built, but not trained yet\. These can: mobilenetv2"):
        build("pvanet-9.1", ("person",))


@pytest.mark.parametrize("size", [0, 100, -64])
def test_a_size_that_the_strides_do_not_divide_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match=f"a multiple of 64, got {size}"):
        build("mobilenetv2-ssdlite-omg", ("person",), size=size)


@pytest.mark.parametrize("name", MODELS)
def test_every_network_builds_at_its_own_size(name: str) -> None:
    assert build(name, ("person", "cat")).spec.height == MODELS[name].input_size

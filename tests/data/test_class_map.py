"""What people type after --class-map."""

from __future__ import annotations

import pytest

from edgekit.data.class_map import parse_class_map
from edgekit.errors import UsageError


def test_pairs() -> None:
    assert parse_class_map([]) == {}
    assert parse_class_map(["vehicle=car, pedestrian=person", "construction="]) == {
        "vehicle": "car",
        "pedestrian": "person",
        "construction": None,
    }


@pytest.mark.parametrize("text", ["vehicle", "=car", "vehicle=car,", ""])
def test_items_need_an_equals_sign(text: str) -> None:
    with pytest.raises(UsageError, match="expects OLD=NEW"):
        parse_class_map([text])


def test_a_name_twice() -> None:
    with pytest.raises(UsageError, match="names 'a' twice"):
        parse_class_map(["a=b", "a=c"])

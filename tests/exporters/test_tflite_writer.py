"""The TFLite container itself."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.exporters.tflite_writer import ALIGNMENT, TfliteWriter


def test_constants_are_aligned() -> None:
    writer = TfliteWriter()
    source = writer.tensor("x", (3,), "FLOAT32")
    markers = [np.full(3, value, np.float32) for value in (1234.5, 777.25, -31.125)]
    for index, marker in enumerate(markers):
        constant = writer.tensor("c" * (index + 1), (3,), "FLOAT32", data=marker)
        result = writer.tensor(f"y{index}", (3,), "FLOAT32")
        writer.operator("ADD", [source, constant], [result], options="AddOptions", fusedActivationFunction=0)
    content = writer.finish({"x": source}, {"y": result})
    assert content[4:8] == b"TFL3"
    assert [content.index(marker.tobytes()) % ALIGNMENT for marker in markers] == [0, 0, 0]


def test_an_unknown_option_is_a_programming_error() -> None:
    with pytest.raises(AttributeError, match="AddOptions of the TFLite schema has no field 'fusedActivation'"):
        TfliteWriter().operator("ADD", [], [], options="AddOptions", fusedActivation=0)

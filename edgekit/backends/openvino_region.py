"""edgekit.SparseRegion for OpenVINO in Python: what runs where the extension of ``openvino_build`` cannot be compiled.

One operator carries a whole program, so a call through Python, some 100 us, is little beside it on a small board, and
there is no binary interface to get wrong.

Inputs: ``image`` (float32 [1, C, H, W] or uint8 [1, H, W, C]), ``mask`` (float32 [1, 1, G, G]) if the program takes
one, and the bytes of the program, a constant uint8 [N]. Outputs: float32 [1, rows, columns] each.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openvino import Op, PartialShape, Type

from edgekit.errors import EngineError
from edgekit.sparse.library import PIXELS, PLANES, Region


def region_class(*, threads: int) -> type[Any]:
    """The operator's class for graphs that run on ``threads`` threads: what ``Core.add_extension`` takes."""

    class SparseRegion(Op):  # type: ignore[misc]
        """One program; OpenVINO makes copies of the operator, which share it."""

        def __init__(self, inputs: list[Any] | None = None, region: Region | None = None) -> None:
            self.region = region
            super().__init__(self, inputs)

        def validate_and_infer_types(self) -> None:
            """Load the program, once; say the shapes of the outputs."""
            if self.region is None:
                self.region = Region(_program(self), threads=threads)
            _check_inputs(self, self.region)
            self.layout = PIXELS if self.get_input_element_type(0) == Type.u8 else PLANES
            self.set_output_size(len(self.region.outputs))
            for index, (rows, columns) in enumerate(self.region.outputs.values()):
                self.set_output_type(index, Type.f32, PartialShape([1, rows, columns]))

        def clone_with_new_inputs(self, new_inputs: list[Any]) -> SparseRegion:
            """A copy in another graph."""
            return SparseRegion(new_inputs, self.region)

        def visit_attributes(self, visitor: Any) -> bool:
            """There are none."""
            return True

        def has_evaluate(self) -> bool:
            """It can run."""
            return True

        def evaluate(self, outputs: list[Any], inputs: list[Any]) -> bool:
            """Run on tensors."""
            assert self.region is not None  # validate_and_infer_types
            addresses = [_address(tensor.data) for tensor in (*inputs[:-1], *outputs)]  # all but the program
            image, mask = addresses[0], addresses[1] if self.region.mask_shape is not None else None
            self.region.run(self.layout, image, mask, addresses[len(inputs) - 1 :])
            return True

    return SparseRegion


def _address(values: Any) -> int:
    """Where an array lies; ``values.ctypes.data`` says the same in seven times as long."""
    return ctypes.addressof(ctypes.c_char.from_buffer(values))


def _program(operator: Any) -> NDArray[np.uint8]:
    """The bytes of the operator's last input."""
    source = operator.input_value(operator.get_input_size() - 1).get_node()
    if source.get_type_name() != "Constant":
        raise EngineError(f"expected a constant with the program as the last input, got a {source.get_type_name()}")
    return np.ascontiguousarray(source.data, np.uint8)


def _check_inputs(operator: Any, region: Region) -> None:
    """Refuse tensors of other types and shapes than the program has: ``evaluate`` does not look at them again."""
    height, width, channels = region.image_shape
    expected = [("image", [("f32", [1, channels, height, width]), ("u8", [1, height, width, channels])])]
    if region.mask_shape is not None:
        expected.append(("mask", [("f32", [1, 1, *region.mask_shape])]))
    if operator.get_input_size() != len(expected) + 1:
        raise EngineError(f"the program has {len(expected)} inputs, the operator {operator.get_input_size() - 1}")
    for index, (name, choices) in enumerate(expected):
        kind = operator.get_input_element_type(index).get_type_name()
        shape = operator.get_input_partial_shape(index)
        if not any(kind == choice and shape == PartialShape(size) for choice, size in choices):
            wanted = " or ".join(f"{choice} {size}" for choice, size in choices)
            raise EngineError(f"the {name} must be {wanted}, got {kind} {shape}")

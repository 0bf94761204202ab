"""A sparse program inside the file of another engine: a graph of one operator, ``SparseRegion``.

The files have the inputs and outputs of the dense graph, so they can stand in for it: ``image`` [1, C, H, W] float32,
normalised, ``mask`` [1, 1, G, G] float32, ``class_logits`` [1, A, C], ``box_offsets`` [1, A, 4]; ``objectness``
[1, 1, G, G] of an OMG program. With ``pixels`` the image is the picture itself instead, uint8 [1, H, W, C]: nobody has
to normalise what will not be looked at. TFLite has four dimensions in the order [1, H, W, C], as in dense files.

The bytes of the program travel

* in ONNX as the attribute ``program`` of the node (domain ``edgekit``);
* in TFLite as the custom options of the operator;
* in OpenVINO as a constant, the operator's last input, in the ``.bin`` file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgekit.backends.adapters import DOMAIN, OPERATOR
from edgekit.errors import ExportError
from edgekit.exporters.dependencies import load
from edgekit.exporters.onnx_build import IR_VERSION, OPSET, save_model
from edgekit.exporters.tflite_writer import TfliteWriter
from edgekit.sparse.format import read_program
from edgekit.sparse.program import Kind, Program

DOMAIN_VERSION = 1


def to_region(sparse_path: Path, out_path: Path, *, pixels: bool = False) -> None:
    """Write ``out_path``, in the format that its suffix says, around the program in ``sparse_path``.

    Args:
        sparse_path: a ``.sparse`` file.
        out_path: ``.onnx``, ``.tflite`` or ``.xml`` (which gets a ``.bin`` beside it); its folder is made if it is
            missing.
        pixels: take the picture as uint8 pixels instead of normalised floats.

    Raises:
        ExportError: no such program, or another suffix.
        SparseProgramError: the program is damaged.
        EngineError: (OpenVINO) ``libedgekit.so`` is absent or cannot load the program.
        MissingDependencyError: the engine's tools are not installed.
    """
    if out_path.suffix not in WRITERS:
        raise ExportError(f"expected a file that ends in {', '.join(WRITERS)}, got {out_path.name!r}")
    try:
        data = sparse_path.read_bytes()
    except OSError as error:
        raise ExportError(f"there is no sparse program at {sparse_path}: {error.strerror or error}") from error
    out_path.parent.mkdir(parents=True, exist_ok=True)
    WRITERS[out_path.suffix](data, out_path, pixels)


def _write_onnx(data: bytes, out_path: Path, pixels: bool) -> None:
    onnx = load("onnx", package="onnx", purpose="write an ONNX graph")
    helper, kinds = onnx.helper, onnx.TensorProto
    program = read_program(data)
    height, width, channels = _image_shape(program)
    shape = [1, height, width, channels] if pixels else [1, channels, height, width]
    inputs = [helper.make_tensor_value_info("image", kinds.UINT8 if pixels else kinds.FLOAT, shape)]
    if program.mask_rows:
        inputs.append(
            helper.make_tensor_value_info("mask", kinds.FLOAT, [1, 1, program.mask_rows, program.mask_columns])
        )
    nodes, constants, outputs, results = [], [], [], []
    for index, output in enumerate(program.outputs):
        final = _output_shape(program, index)
        results.append(output.name)
        outputs.append(helper.make_tensor_value_info(output.name, kinds.FLOAT, final))
        if len(final) == 4:  # the operator gives [1, rows, columns]
            results[-1] = f"{output.name}_rows"
            constants.append(onnx.numpy_helper.from_array(np.array(final, np.int64), f"{output.name}_shape"))
            nodes.append(helper.make_node("Reshape", [results[-1], constants[-1].name], [output.name]))
    region = onnx_region(data, [value.name for value in inputs], results)
    graph = helper.make_graph([region, *nodes], "edgekit", inputs, outputs, constants)
    model = helper.make_model(
        graph,
        producer_name="edgekit",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)],
    )
    onnx.checker.check_model(model)
    save_model(model, out_path)


def onnx_region(data: bytes, inputs: list[str], outputs: list[str]) -> Any:
    """The node that runs the program ``data`` between named tensors; each output is [1, rows, columns]."""
    helper = load("onnx.helper", package="onnx", purpose="write an ONNX graph")
    return helper.make_node(OPERATOR, inputs, outputs, name=f"region_{outputs[0]}", domain=DOMAIN, program=data)


def _write_tflite(data: bytes, out_path: Path, pixels: bool) -> None:
    program = read_program(data)
    writer = TfliteWriter()
    inputs = {"image": writer.tensor("image", [1, *_image_shape(program)], "UINT8" if pixels else "FLOAT32")}
    if program.mask_rows:
        inputs["mask"] = writer.tensor("mask", [1, program.mask_rows, program.mask_columns, 1], "FLOAT32")
    outputs = {}
    for index, output in enumerate(program.outputs):
        shape = _output_shape(program, index)
        nhwc = [shape[0], *shape[2:], shape[1]] if len(shape) == 4 else shape
        outputs[output.name] = writer.tensor(output.name, nhwc, "FLOAT32")
    writer.custom_operator(OPERATOR, list(inputs.values()), list(outputs.values()), data)
    out_path.write_bytes(writer.finish(inputs, outputs))


def _write_openvino(data: bytes, out_path: Path, pixels: bool) -> None:
    openvino = load("openvino", package="openvino", purpose="write OpenVINO graphs")
    from edgekit.backends.openvino_region import region_class  # it needs openvino

    program = read_program(data)
    height, width, channels = _image_shape(program)
    operations = openvino.opset8
    inputs = [
        operations.parameter([1, height, width, channels], openvino.Type.u8, name="image")
        if pixels
        else operations.parameter([1, channels, height, width], openvino.Type.f32, name="image")
    ]
    if program.mask_rows:
        shape = [1, 1, program.mask_rows, program.mask_columns]
        inputs.append(operations.parameter(shape, openvino.Type.f32, name="mask"))
    for parameter in inputs:
        parameter.output(0).set_names({parameter.get_friendly_name()})
    constant = operations.constant(np.frombuffer(data, np.uint8), name="program")
    region = region_class(threads=1)([*inputs, constant])
    region.set_friendly_name("region")
    results = []
    for index, output in enumerate(program.outputs):
        port, final = region.output(index), _output_shape(program, index)
        if len(final) == 4:
            size = operations.constant(np.array(final, np.int64), name=f"{output.name}_shape")
            port = operations.reshape(port, size, special_zero=False, name=f"{output.name}_map").output(0)
        port.set_names({output.name})
        results.append(operations.result(port, name=output.name))
    openvino.save_model(openvino.Model(results, inputs, "edgekit"), str(out_path), compress_to_fp16=False)


WRITERS: dict[str, Callable[[bytes, Path, bool], None]] = {
    ".onnx": _write_onnx,
    ".tflite": _write_tflite,
    ".xml": _write_openvino,
}
"""Suffix -> function(content of the ``.sparse`` file, out_path, pixels)."""


def _image_shape(program: Program) -> tuple[int, int, int]:
    """Rows, columns and channels."""
    tensor = program.tensors[program.operations[0].output]
    level = program.levels[tensor.level]
    return level.rows, level.columns, tensor.channels


def _output_shape(program: Program, index: int) -> list[int]:
    """[1, rows, columns], or [1, 1, G, G] for the map of cells that an OMG program gives."""
    output = program.outputs[index]
    if output.name != "objectness":
        return [1, output.rows, output.columns]
    writes = [o for o in program.operations if o.kind is Kind.OUTPUT and o.output == index]
    assert writes[0].input is not None  # the checks of a program
    level = program.levels[program.tensors[writes[0].input].level]
    return [1, output.columns, level.rows, level.columns]

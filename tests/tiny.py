"""A detector of two convolutions, in every graph format, and bundles of it: milliseconds to make and to run.

Input 64x64, a mask of 4x4 cells, one anchor of 16x16 pixels a cell and one of 32x32 a 2x2 cell. Bright cells are
objects; red ones are class 0, blue ones class 1. The box is the anchor, moved by a fixed offset.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.backends import Engine, Tensors
from edgekit.bundle import BundleWriter
from edgekit.bundle.golden import write_golden
from edgekit.bundle.manifest import GRAPH_FORMATS
from edgekit.exporters import converter
from edgekit.exporters.sparse_region import to_region
from edgekit.masks.sources import omg
from edgekit.spec import AnchorLevel, DetectorSpec

SPEC = DetectorSpec(
    model="tiny",
    classes=("red", "blue"),
    height=64,
    width=64,
    anchors=(
        AnchorLevel(rows=4, columns=4, sizes=((16.0, 16.0),)),
        AnchorLevel(rows=2, columns=2, sizes=((32.0, 32.0),)),
    ),
    mask_grid=(4, 4),
    vote_iou=1.0,  # scores come out as they are drawn
)
OMG_WEIGHTS = np.array([[4.0, 0.0, 4.0]], np.float32)  # [1, 3]
OMG_BIAS = np.array([-4.0], np.float32)
HEADS = {
    "class_logits": (np.array([[8, 0, -4], [-4, 0, 8]], np.float32), np.array([-2, -2], np.float32)),
    "box_offsets": (np.zeros((4, 3), np.float32), np.array([0.5, -0.5, 0.25, 0.0], np.float32)),
}
"""Output -> (weights [outputs, 3], bias) of the 1x1 convolution that makes it."""


class Counting:
    """An engine that counts its runs."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.name, self.takes_pixels, self.runs = engine, engine.name, engine.takes_pixels, 0

    def run(self, inputs: Tensors) -> Tensors:
        self.runs += 1
        return self.engine.run(inputs)


def picture(height: int = 64, width: int = 64) -> NDArray[np.uint8]:
    """Grey, with a red block in the second cell of the first row and a blue one in the last cell."""
    image = np.full((height, width, 3), 128, np.uint8)
    image[: height // 4, width // 4 : width // 2] = (255, 128, 128)
    image[height * 3 // 4 :, width * 3 // 4 :] = (128, 128, 255)
    return image


def onnx_omg(path: Path, *, nan: bool = False) -> Path:
    """image [1,3,64,64] -> objectness [1,1,4,4]."""
    bias = np.full_like(OMG_BIAS, np.nan) if nan else OMG_BIAS
    nodes = [_node("AveragePool", ["image"], "cells", kernel_shape=[16, 16], strides=[16, 16])]
    nodes.append(_node("Conv", ["cells", "weights", "bias"], "objectness"))
    constants = {"weights": OMG_WEIGHTS[..., None, None], "bias": bias}
    return _save(path, nodes, constants, {"image": [1, 3, 64, 64]}, {"objectness": [1, 1, 4, 4]})


def onnx_detector(path: Path) -> Path:
    """image [1,3,64,64], mask [1,1,4,4] -> class_logits [1,20,2], box_offsets [1,20,4]; zero at inactive anchors."""
    constants: dict[str, Any] = {"scales": np.array([1, 1, 16, 16], np.float32)}
    nodes = [
        _node("Resize", ["mask", "", "scales"], "mask_64", mode="nearest", nearest_mode="floor",
              coordinate_transformation_mode="asymmetric"),
        _node("Mul", ["image", "mask_64"], "masked"),
        _node("AveragePool", ["masked"], "cells_4", kernel_shape=[16, 16], strides=[16, 16]),
        _node("AveragePool", ["cells_4"], "cells_2", kernel_shape=[2, 2], strides=[2, 2]),
        _node("MaxPool", ["mask"], "mask_2", kernel_shape=[2, 2], strides=[2, 2]),
    ]  # fmt: skip
    for output, (weights, bias) in HEADS.items():
        constants |= {f"{output}_w": weights[..., None, None], f"{output}_b": bias}
        constants[f"{output}_shape"] = np.array([1, -1, len(weights)])
        for cells, mask in (("4", "mask"), ("2", "mask_2")):
            name = f"{output}_{cells}"
            nodes.append(_node("Conv", [f"cells_{cells}", f"{output}_w", f"{output}_b"], f"{name}_raw"))
            nodes.append(_node("Mul", [f"{name}_raw", mask], f"{name}_masked"))
            nodes.append(_node("Transpose", [f"{name}_masked"], f"{name}_last", perm=[0, 2, 3, 1]))
            nodes.append(_node("Reshape", [f"{name}_last", f"{output}_shape"], f"{name}_flat"))
        nodes.append(_node("Concat", [f"{output}_4_flat", f"{output}_2_flat"], output, axis=1))
    outputs = {"class_logits": [1, 20, 2], "box_offsets": [1, 20, 4]}
    return _save(path, nodes, constants, {"image": [1, 3, 64, 64], "mask": [1, 1, 4, 4]}, outputs)


def openvino_graph(onnx_path: Path, path: Path) -> Path:
    """The same graph as OpenVINO IR; its weights go beside it."""
    import openvino

    # read_model, not convert_model: that one reports to its makers, and without a network waits for seconds.
    openvino.save_model(openvino.Core().read_model(str(onnx_path)), str(path), compress_to_fp16=False)
    return path


def graphs(folder: Path, graph_format: str) -> dict[str, str]:
    """Write both graphs into ``folder``; name -> file name."""
    onnx_files = {"omg": onnx_omg(folder / "omg.onnx"), "detector": onnx_detector(folder / "detector.onnx")}
    if graph_format == "onnx":
        return {name: path.name for name, path in onnx_files.items()}
    suffix, _ = GRAPH_FORMATS[graph_format]
    for name, path in onnx_files.items():
        if graph_format == "openvino":
            openvino_graph(path, folder / f"{name}.xml")
        else:
            converter(graph_format, SPEC)(path, folder / f"{name}{suffix}", "fp32")
        path.unlink()
    return {name: name + suffix for name in onnx_files}


def manifest(graph_format: str = "onnx", **changes: Any) -> dict[str, Any]:
    """What an exporter would say about a bundle of the tiny graphs, without its golden section."""
    suffix, engines = GRAPH_FORMATS[graph_format]
    return {
        "name": "tiny",
        "task": "detection",
        "spec": SPEC.to_json(),
        "target": None,
        "graph_format": graph_format,
        "precision": "fp32",
        "engines": list(engines),
        "threads": 1,
        "graphs": {"omg": f"omg{suffix}", "detector": f"detector{suffix}"},
        "engine_options": {},
        "calibration": None,
        "macs": {"dense": 360, "omg": 48},
        "parameters": 22,
        "accuracy": None,
        "kept_float": [],
        "parity": {},
        "provenance": {"training_data": "none", "starting_weights": "none"},
        "tool_versions": {},
        **changes,
    }


def write_bundle(
    path: Path,
    graph_format: str = "onnx",
    *,
    zipped: bool = False,
    image: NDArray[np.uint8] | None = None,
    programs: bool = False,
    break_even: dict[str, Any] | None = None,
    **changes: Any,
) -> Path:
    """A bundle of the tiny graphs with what they make of ``image``; ``changes`` replace manifest fields.

    With ``programs`` it has sparse programs beside the dense graphs, and their ``break_even``.
    """
    image = picture() if image is None else image
    with BundleWriter(path, zipped=zipped) as writer:
        files = graphs(writer.folder, graph_format)
        pipeline = _pipeline(GRAPH_FORMATS[graph_format][1][0], writer, files)
        sections: dict[str, Any] = {"golden": write_golden(writer, pipeline, image, precision="fp32")}
        if programs:
            sections["sparse"] = {**_sparse_part(writer, graph_format, image), "break_even": break_even}
        writer.finish(manifest(graph_format, **{**sections, **changes}))
    return path


def _sparse_part(writer: BundleWriter, graph_format: str, image: NDArray[np.uint8]) -> dict[str, Any]:
    """Write programs, graphs around them and what they make of ``image``; the manifest's section but for break_even."""
    with tempfile.TemporaryDirectory() as folder:
        programs = graphs(Path(folder), "sparse")
        regions = {name: f"{file}{GRAPH_FORMATS[graph_format][0]}" for name, file in programs.items()}
        for name, file in programs.items():
            writer.add_file(file, Path(folder) / file)
            to_region(writer.path(file), writer.path(regions[name]), pixels=True)
    golden = write_golden(
        writer, _pipeline("native", writer, programs), image, precision="fp32", output="golden_output_sparse.json"
    )
    return {"programs": programs, "regions": regions, "golden": golden, "parity": {}, "accuracy": None}


def _pipeline(engine: str, writer: BundleWriter, files: dict[str, str]) -> Any:
    from edgekit.backends import load_engine
    from edgekit.pipeline import Pipeline

    omg_graph, detector = (load_engine(engine, writer.path(files[name]), threads=1) for name in ("omg", "detector"))
    return Pipeline(SPEC, omg_graph, detector, omg)


def _node(kind: str, inputs: list[str], output: str, **attributes: Any) -> Any:
    import onnx

    return onnx.helper.make_node(kind, inputs, [output], name=output, **attributes)


def _save(
    path: Path,
    nodes: list[Any],
    constants: dict[str, Any],
    inputs: dict[str, list[int]],
    outputs: dict[str, list[int]],
) -> Path:
    import onnx

    def value(name: str, shape: list[int]) -> Any:
        return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)

    graph = onnx.helper.make_graph(
        nodes,
        "tiny",
        [value(*item) for item in inputs.items()],
        [value(*item) for item in outputs.items()],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path

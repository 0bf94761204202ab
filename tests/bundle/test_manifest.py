"""bundle.json: every field is checked and every message names the field."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.bundle import read_manifest
from edgekit.bundle.fields import parse_json
from edgekit.bundle.sparse_part import BreakEven
from edgekit.errors import BundleError, BundleIntegrityError, BundlePathError
from edgekit.spec import DetectorSpec


@pytest.fixture
def document(good: Path) -> dict[str, Any]:
    """A good ``bundle.json``."""
    loaded: dict[str, Any] = json.loads((good / "bundle.json").read_text())
    return loaded


def put(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change: the field at ``path``, keys and indices between slashes, becomes ``value``."""

    def change(document: Any) -> None:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]
        for part in parents:
            document = document[part]
        document[last] = value

    return change


def test_a_good_manifest(document: dict[str, Any], tiny: ModuleType) -> None:
    manifest = read_manifest(document)
    assert manifest.spec == tiny.SPEC
    assert hash(manifest.spec) == hash(tiny.SPEC)
    assert manifest.engines == ("onnxruntime", "openvino")
    assert manifest.target is None
    assert manifest.macs == {"dense": 360, "omg": 48}
    assert set(manifest.files) == {"omg.onnx", "detector.onnx", "golden_input.png", "golden_output.json"}
    assert manifest.golden.tolerance.box_px == 0.25
    assert manifest.document["provenance"]["training_data"] == "none"


def test_optional_fields(document: dict[str, Any]) -> None:
    document["calibration"] = {"images": 100, "sha256": "0" * 64}
    document["accuracy"] = {"ap50_before": 0.6, "ap50_after": 0.59, "images": 500, "max_drop": 1.0}
    document["target"] = "raspberry-pi-4"
    document["layers"] = [{"name": "x"}]
    assert read_manifest(document).target == "raspberry-pi-4"


TWO_STAGE = {"before_nms": 100, "proposals": 10, "nms_iou": 0.7, "smallest": 16.0}

NUMBERS: list[tuple[str, Any]] = [
    *[(f"spec/{name}", bad) for name in ("height", "width", "max_detections") for bad in (0, -1, 1.5)],
    *[("spec/mask_grid", bad) for bad in (0, -1, [2, 1025], [0, 2])],
    ("spec/width_multiplier", 0),
    *[(f"spec/{name}", bad) for name in ("std", "centre_variance", "size_variance") for bad in (0, -1, 10**400)],
    *[
        (f"spec/{name}", bad)
        for name in ("score_threshold", "nms_iou", "vote_iou", "mask_threshold")
        for bad in (-0.1, 1.1)
    ],
    *[("spec/mask_threshold_exponent", bad) for bad in (-1, 101)],
    ("spec/mean", 1e7),
    ("spec/mask_dilation", -1),
    ("threads", 0),
    ("parameters", -1),
    ("golden/tolerance/score", 2),
    ("golden/tolerance/mask_cells", 0.5),
    ("macs/dense", -1),
    ("files/omg.onnx/bytes", -1),
]


@pytest.mark.parametrize(("path", "value"), NUMBERS)
def test_numbers_out_of_range(document: dict[str, Any], path: str, value: Any) -> None:
    put(path, value)(document)
    field = re.escape(path.rpartition("/")[2])
    with pytest.raises(BundleError, match=rf"{field} must be a (whole )?number in .*, got "):
        read_manifest(document)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("format", "zip"), "bundle.json: format must be one of edgekit-bundle, got 'zip'"),
        (put("version", 2), "version 2 is not known; this edgekit reads version 1.\nThe bundle comes from a newer"),
        (put("version", True), "version must be a whole number"),
        (put("extra", 1), "unknown key 'extra'"),
        (put("task", "classification"), "task must be one of detection, segmentation"),
        (put("name", "../x"), "name must be a name of letters, digits"),
        (put("target", 3), "target must be text, got 3"),
        (put("graph_format", "coreml"), "graph_format must be one of onnx, tflite, openvino, sparse, got 'coreml'"),
        (put("graph_format", ["onnx"]), "graph_format must be one of"),
        (put("precision", "int4"), "precision must be one of fp32, fp16, int8"),
        (put("engines", []), "engines must have at least 1 entry, got none"),
        (put("engines", ["tflite"]), "engines: 'tflite' does not run onnx graphs; onnxruntime, openvino can"),
        (put("engines", ["openvino", "openvino"]), "engines: 'openvino' appears twice"),
        (put("engines", "openvino"), "engines must be a list of at most 10 entries, got 'openvino'"),
        (put("graphs", []), "graphs must be an object, got []"),
        (put("graphs/neck", "x"), "graphs: unknown key 'neck'"),
        (put("graphs/omg", "golden_input.png"), "graphs.omg must end in .onnx"),
        (put("engine_options/openvino", 1), "engine_options.openvino must be an object"),
        (put("golden/tolerance", None), "golden.tolerance must be an object"),
        (put("calibration", {"images": 0, "sha256": ""}), "calibration.images must be a whole number"),
        (put("calibration", {"images": 1, "sha256": "x"}), "calibration.sha256 must be 64 hexadecimal digits"),
        (put("accuracy", 1), "accuracy must be an object"),
        (put("accuracy", {"ap50": float("inf")}), "holds an infinite number"),
        (put("kept_float", [1]), "kept_float[0] must be text, got 1"),
        (put("layers", {}), "layers must be a list"),
        (put("provenance", {}), "provenance.training_data is missing"),
        (put("macs", {"dense": 1}), "macs.omg is missing"),
        (put("files/omg.onnx/sha256", "F" * 64), "files.omg.onnx.sha256 must be 64 hexadecimal digits"),
        (put("files/omg.onnx/bytes", 1 << 31), "bytes in all; a bundle has at most"),
        (put("files", {f"f{i}": {} for i in range(65)}), "lists 65 files; a bundle has at most 64"),
        (put("spec", None), "spec must be an object"),
        (put("spec/colour", 1), "spec: unknown key 'colour'"),
        (put("spec/classes", []), "spec.classes must have at least 1 entry"),
        (put("spec/classes", ["a", "a"]), "spec.classes: the name 'a' appears twice"),
        (put("spec/model", "a b"), "spec.model must be a model name"),
        (put("spec/mask_grid", 1.5), "spec.mask_grid must be [rows, columns], got 1.5"),
        (put("spec/mask_grid", [2]), "spec.mask_grid must be [rows, columns], got [2]"),
        (put("spec/two_stage", 1), "spec.two_stage must be an object"),
        (put("spec/two_stage", {"before_nms": 1}), "spec.two_stage.proposals is missing"),
        (put("spec/two_stage", {**TWO_STAGE, "proposals": 0}), "spec.two_stage.proposals must be a whole number"),
        (put("spec/two_stage", TWO_STAGE), "and mask_grid the same"),
        (put("spec/anchors", []), "spec.anchors must have at least one anchor, got none"),
        (put("spec/anchors/0", 1), "spec.anchors[0] must be an object"),
        (put("spec/anchors/0/rows", 3), "spec.anchors[0] does not fit mask_grid: a mask of 2x2 cells has no level"),
        (put("spec/anchors/1/sizes/0", [1]), "spec.anchors[1].sizes[0] must be [width, height], got [1]"),
        (put("spec/anchors/1/sizes/0", [0, 1]), "spec.anchors[1].sizes[0] must be a number in"),
        (put("spec/anchors/0", {"rows": 8192, "columns": 8192, "sizes": [[1, 1]]}), "are more than 1000000 in all"),
    ],
)
def test_malformed_fields(document: dict[str, Any], change: Callable[[Any], None], message: str) -> None:
    change(document)
    with pytest.raises(BundleError, match=re.escape(message)):
        read_manifest(document)


@pytest.mark.parametrize("path", ["../x.onnx", "/x.onnx", "a\\x.onnx", "C:x.onnx"])
@pytest.mark.parametrize("field", ["graphs/omg", "golden/input"])
def test_paths_that_lead_outside(document: dict[str, Any], field: str, path: str) -> None:
    put(field, path)(document)
    with pytest.raises(BundlePathError, match=field.replace("/", r"\.")):
        read_manifest(document)


def test_a_listed_path_that_leads_outside(document: dict[str, Any]) -> None:
    document["files"]["../../evil"] = {"sha256": "0" * 64, "bytes": 1}
    with pytest.raises(BundlePathError, match=r"bundle\.json: files: the path '\.\./\.\./evil' leads outside"):
        read_manifest(document)


def test_the_manifest_cannot_list_itself(document: dict[str, Any]) -> None:
    document["files"]["Bundle.json"] = {"sha256": "0" * 64, "bytes": 1}
    with pytest.raises(BundlePathError, match=r"'Bundle\.json' and 'bundle\.json' are the same file"):
        read_manifest(document)


def test_a_graph_that_is_not_listed(document: dict[str, Any]) -> None:
    document["graphs"]["omg"] = "other.onnx"
    with pytest.raises(BundleIntegrityError, match=r"graphs\.omg names 'other\.onnx', which is not listed in files"):
        read_manifest(document)


def test_openvino_graphs_need_their_weights_listed(document: dict[str, Any]) -> None:
    document |= {"graph_format": "openvino", "engines": ["openvino"]}
    document["graphs"] = {"omg": "omg.xml", "detector": "omg.xml"}
    document["files"]["omg.xml"] = {"sha256": "0" * 64, "bytes": 1}
    with pytest.raises(BundleIntegrityError, match=r"graphs\.omg: its weights 'omg\.bin' are not listed"):
        read_manifest(document)


def test_every_field_is_required(document: dict[str, Any]) -> None:
    for key in document:
        less = {name: value for name, value in document.items() if name != key}
        with pytest.raises(BundleError, match=rf"bundle\.json: {key} is missing"):
            read_manifest(less)


# Sparse programs beside the dense graphs


@pytest.fixture
def with_programs(both: Path) -> dict[str, Any]:
    """A good ``bundle.json`` with the section ``sparse``."""
    loaded: dict[str, Any] = json.loads((both / "bundle.json").read_text())
    return loaded


def test_a_good_section_for_sparse_programs(with_programs: dict[str, Any]) -> None:
    manifest = read_manifest(with_programs)
    assert manifest.sparse is not None
    assert manifest.sparse.break_even == BreakEven(cpu="AMD EPYC", threads=2, engine="onnxruntime", share=0.83)
    assert manifest.choices == ("native", "onnxruntime", "openvino", "onnxruntime-sparse")
    assert manifest.graphs_of("openvino") == {"omg": "omg.onnx", "detector": "detector.onnx"}
    assert manifest.graphs_of("native") == {"omg": "omg.sparse", "detector": "detector.sparse"}
    assert manifest.graphs_of("onnxruntime-sparse")["omg"] == "omg.sparse.onnx"
    assert manifest.golden_of("openvino") == manifest.golden
    assert manifest.golden_of("onnxruntime-sparse").output == "golden_output_sparse.json"
    with_programs["sparse"]["break_even"] = None
    with_programs["precision"] = "fp16"
    manifest = read_manifest(with_programs)
    assert manifest.sparse is not None
    assert manifest.sparse.break_even is None
    assert [manifest.precision_of(name) for name in manifest.choices] == ["fp32", "fp16", "fp16", "fp32"]


def test_a_bundle_without_programs_has_its_engines_only(document: dict[str, Any]) -> None:
    manifest = read_manifest(document)
    assert manifest.sparse is None
    assert manifest.choices == manifest.engines
    assert manifest.graphs_of("onnxruntime") == manifest.graphs
    assert manifest.golden_of("onnxruntime") == manifest.golden


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("sparse", None), "sparse must be an object, got None"),
        (put("sparse/extra", 1), "sparse: unknown key 'extra'"),
        (put("sparse/parity", None), "sparse.parity must be an object"),
        (put("sparse/accuracy", 1), "sparse.accuracy must be an object"),
        (put("sparse/programs/omg", "omg.onnx"), "sparse.programs.omg must end in .sparse, got 'omg.onnx'"),
        (put("sparse/programs/neck", "x"), "sparse.programs: unknown key 'neck'"),
        (
            put("sparse/regions/detector", "detector.onnx"),
            ".sparse.onnx, got 'detector.onnx'",
        ),
        (
            put("sparse/regions/detector", "detector.sparse"),
            ".sparse.onnx, got 'detector.sparse'",
        ),
        (put("sparse/golden/tolerance/score", 2), "sparse.golden.tolerance.score must be a number in 0..1, got 2"),
        (put("sparse/golden/extra", 2), "sparse.golden: unknown key 'extra'"),
        (put("sparse/break_even", 0.8), "sparse.break_even must be an object, got 0.8"),
        (put("sparse/break_even/share", 1.01), "sparse.break_even.share must be a number in 0..1, got 1.01"),
        (put("sparse/break_even/share", -0.1), "sparse.break_even.share must be a number in 0..1, got -0.1"),
        (put("sparse/break_even/share", "0.5"), "sparse.break_even.share must be a number in 0..1"),
        (put("sparse/break_even/threads", 0), "sparse.break_even.threads must be a whole number in 1..1024, got 0"),
        (put("sparse/break_even/cpu", ""), "sparse.break_even.cpu must be the name of a processor, got ''"),
        (put("sparse/break_even/engine", "native"), "engine must be one of onnxruntime, openvino, got 'native'"),
        (put("sparse/break_even/engine", "tflite"), "engine must be one of onnxruntime, openvino, got 'tflite'"),
        (put("sparse/break_even/when", 1), "sparse.break_even: unknown key 'when'"),
    ],
)
def test_a_malformed_section(with_programs: dict[str, Any], change: Callable[[Any], None], message: str) -> None:
    change(with_programs)
    with pytest.raises(BundleError, match=re.escape(message)):
        read_manifest(with_programs)


@pytest.mark.parametrize("key", ["programs", "regions", "golden", "break_even", "parity", "accuracy"])
def test_every_field_of_the_section_is_required(with_programs: dict[str, Any], key: str) -> None:
    del with_programs["sparse"][key]
    with pytest.raises(BundleError, match=rf"sparse\.{key} is missing"):
        read_manifest(with_programs)


@pytest.mark.parametrize("field", ["programs/omg", "regions/omg", "golden/output"])
def test_files_of_the_section(with_programs: dict[str, Any], field: str) -> None:
    put(f"sparse/{field}", "../omg.sparse")(with_programs)
    with pytest.raises(BundlePathError, match=field.replace("/", r"\.")):
        read_manifest(with_programs)
    put(f"sparse/{field}", "other.sparse.onnx")(with_programs)
    with pytest.raises(BundleIntegrityError, match=r"names 'other\.sparse\.onnx', which is not listed in files"):
        read_manifest(with_programs)


def test_openvino_regions_need_their_weights_listed(with_programs: dict[str, Any]) -> None:
    with_programs |= {"graph_format": "openvino", "engines": ["openvino"]}
    empty = {"sha256": "0" * 64, "bytes": 1}
    with_programs["files"] |= {f"{name}.{suffix}": empty for name in ("omg", "detector") for suffix in ("xml", "bin")}
    with_programs["files"] |= {f"{name}.sparse.xml": empty for name in ("omg", "detector")}
    with_programs["graphs"] = {"omg": "omg.xml", "detector": "detector.xml"}
    with_programs["sparse"]["regions"] = {"omg": "omg.sparse.xml", "detector": "detector.sparse.xml"}
    with pytest.raises(BundleIntegrityError, match=r"sparse\.regions\.omg: its weights 'omg\.sparse\.bin' are not"):
        read_manifest(with_programs)


def test_sparse_graphs_have_no_programs_beside_them(with_programs: dict[str, Any]) -> None:
    with_programs |= {"graph_format": "sparse", "engines": ["native"], "graphs": with_programs["sparse"]["programs"]}
    with pytest.raises(BundleError, match="sparse: the graphs are sparse already, so there can be no other programs"):
        read_manifest(with_programs)


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(DetectorSpec)])
def test_every_field_of_the_spec_is_required_and_checked(document: dict[str, Any], key: str) -> None:
    del document["spec"][key]
    if key in ("two_stage", "detr", "width_multiplier"):  # younger than the format
        assert getattr(read_manifest(document).spec, key) == getattr(DetectorSpec, key)
        document["spec"][key] = {"no": "such value"}
        with pytest.raises(BundleError, match=rf"spec(\.(two_stage|detr): unknown key 'no'|\.{key} must be)"):
            read_manifest(document)
        return
    with pytest.raises(BundleError, match=rf"spec\.{key} is missing"):
        read_manifest(document)
    document["spec"][key] = {"no": "such value"}
    with pytest.raises(BundleError, match=rf"spec\.{key} must be"):
        read_manifest(document)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": 1, "a": 2}', "the key 'a' appears twice"),
        (b"1" * 5000, "is not valid JSON"),
    ],
)
def test_text_that_is_no_json(text: bytes, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        parse_json(text, "bundle.json")


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_a_document_that_is_no_object(value: Any) -> None:
    with pytest.raises(BundleError, match=r"bundle\.json must be an object"):
        read_manifest(value)


TEXT = st.text(st.sampled_from("abx0/.\\:\0 é"), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.just(10**400),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", ["good", "both"])
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_manifest_breaks_the_reader(name: str, request: pytest.FixtureRequest, data: st.DataObject) -> None:
    """Whatever a field becomes, the answer is a manifest or a BundleError."""
    document = json.loads((request.getfixturevalue(name) / "bundle.json").read_text())
    for _ in range(data.draw(st.integers(1, 3))):
        place: Any = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and place[key] and data.draw(st.booleans()):
                place = place[key]
                continue
            if data.draw(st.integers(0, 4)) == 0:
                del place[key]
            else:
                place[key] = data.draw(JSON)
            break
    with contextlib.suppress(BundleError):
        read_manifest(document)

"""Bundles of small TCL models: they pass the gate and their own self-test, and their prompts can be swapped."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")
pytest.importorskip("onnx", reason="every format is made from ONNX")

import edgekit  # noqa: E402
from edgekit.backends import engine_problem  # noqa: E402
from edgekit.bundle import open_any_bundle, open_bundle, open_segmentation_bundle  # noqa: E402
from edgekit.bundle.segmentation_golden import verify_segmentation  # noqa: E402
from edgekit.data.segmentation import LabelledPicture, SegmentationDataset  # noqa: E402
from edgekit.errors import (  # noqa: E402
    BundleError,
    BundleIntegrityError,
    ExportError,
    GateError,
    PromptsError,
    UsageError,
)
from edgekit.exporters import tcl_gate  # noqa: E402
from edgekit.exporters.plan import plan_export  # noqa: E402
from edgekit.exporters.sensitivity import KeepFloat  # noqa: E402
from edgekit.exporters.tcl_build import export_segmenter  # noqa: E402
from edgekit.exporters.tcl_evidence import SegmentationEvidence, segmentation_calibration  # noqa: E402
from edgekit.exporters.tcl_onnx import segmenter_spec  # noqa: E402
from edgekit.exporters.tcl_reference import reference_segmenter  # noqa: E402
from edgekit.models.tcl.checkpoint import TclCheckpoint  # noqa: E402
from edgekit.models.tcl.prompts import fingerprint  # noqa: E402
from edgekit.models.tcl.segmenter import SMALL_OPTIONS, changed  # noqa: E402
from edgekit.segmentation.fitting import fit  # noqa: E402
from edgekit.segmentation.pipeline import open_segmenter  # noqa: E402
from edgekit.segmentation.prompts import Prompts, write_prompts  # noqa: E402
from edgekit.segmentation.spec import SegmenterSpec  # noqa: E402

ROOT = Path(edgekit.__file__).resolve().parent.parent
FORMATS = ("onnx", "openvino", "tflite")
OPTIONS = changed(SMALL_OPTIONS, background=0.4)


def pictures(count: int, seed: int = 0) -> tuple[Any, ...]:
    """Blocks of colours [48, 64, 3]."""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 6, 8, 3))
    return tuple(blocks.repeat(8, 1).repeat(8, 2).astype(np.uint8))


def asked(checkpoint: TclCheckpoint, *names: str, seed: int = 0) -> Prompts:
    """Prompts that some cell of a picture fits: directions that the model's own maps have."""
    model = checkpoint.model
    with torch.no_grad():
        image = torch.from_numpy(pictures(1, seed)[0]).permute(2, 0, 1)[None].float()
        encoder = model.clip_image_encoder
        features = encoder.features(model.normalise(image))
        maps = model.masker.image_encoder(features, *model.cells(image))[0].flatten(1)  # [D, cells]
    vectors = maps[:, torch.linspace(0, maps.shape[1] - 1, len(names)).long()].T.numpy()
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return Prompts(
        names=names, embeddings=vectors.astype(np.float32), model=model.spec.name, text=fingerprint(model),
        templates="photo",
    )  # fmt: skip


@pytest.fixture(scope="module")
def mobile(tiny_tcl: ModuleType) -> TclCheckpoint:
    return TclCheckpoint(model=tiny_tcl.shaken(tiny_tcl.mobile_spec()), provenance={"training_data": "drawings"})


@pytest.fixture(scope="module")
def vit(tiny_tcl: ModuleType) -> TclCheckpoint:
    return TclCheckpoint(model=tiny_tcl.shaken(tiny_tcl.vit_spec()))


def export(
    checkpoint: TclCheckpoint,
    path: Path,
    *,
    graph_format: str = "onnx",
    precision: str = "fp32",
    prompts: Prompts | None = None,
    clip_share: float = 0.0,
    size: tuple[int, int] = (48, 64),
    **evidence: Any,
) -> Any:
    plan = plan_export(None, graph_format=graph_format, precision=precision, calibrated=True)
    if all(engine_problem(name) is not None for name in plan.engines):
        pytest.skip(f"no engine for {graph_format} is installed")
    spec = segmenter_spec(checkpoint.model, changed(OPTIONS, clip_share=clip_share), height=size[0], width=size[1])
    keep = evidence.pop("keep_float", None)
    known = SegmentationEvidence(**{"pictures": pictures(4), **evidence})
    wanted = prompts or asked(checkpoint, "a", "b", "c")
    return export_segmenter(checkpoint, spec, wanted, plan, path, evidence=known, keep_float=keep, threads=1)


@pytest.fixture(scope="module")
def bundle(mobile: TclCheckpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good bundle; do not change it."""
    path: Path = export(mobile, tmp_path_factory.mktemp("bundle") / "words.edgekit").path
    return path


@pytest.mark.parametrize("precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("graph_format", ["onnx", "openvino", "tflite"])
@pytest.mark.parametrize(("kind", "clip_share"), [("mobile", 0.0), ("vit", 0.3)])
def test_every_format_passes_where_it_was_made(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, clip_share: float, graph_format: str, precision: str
) -> None:
    checkpoint: TclCheckpoint = request.getfixturevalue(kind)
    result = export(
        checkpoint, tmp_path / "a.edgekit", graph_format=graph_format, precision=precision, clip_share=clip_share
    )
    assert result.report.passed
    assert result.report.parity.iou >= 0.99
    assert result.manifest.document["parity"]["iou"] == result.report.parity.iou
    report = verify_segmentation(open_segmentation_bundle(result.path))
    assert report.passed, report
    assert report.labelled > 0.1
    pipeline = open_segmenter(result.path)
    seen = [pipeline.process(picture).labels for picture in pictures(4)]
    assert len(np.unique(seen)) > 1, "pictures of one thing test nothing"
    if precision == "fp32":
        reference = reference_segmenter(checkpoint.model, pipeline.spec, pipeline.prompts, threads=1)
        picture = pictures(1, seed=5)[0]
        assert (pipeline.process(picture).labels == reference.process(picture).labels).mean() > 0.99
    assert "Check it on the board with: edgekit verify" in "\n".join(result.lines())
    assert json.loads(json.dumps(result.to_json()))["gate"]["passed"]


def test_what_the_bundle_says(bundle: Path, mobile: TclCheckpoint) -> None:
    opened = open_any_bundle(bundle)
    document = opened.manifest.document
    assert document["task"] == "segmentation"
    assert document["provenance"] == {"training_data": "drawings", "starting_weights": "unknown"}
    assert document["accuracy"] is None
    assert set(document["files"]) == {
        "segmenter.onnx", "prompts.json", "golden_input.png", "golden_output.json",
    }  # fmt: skip
    side = sum(value.numel() for value in mobile.model.clip_image_encoder.trunk.parameters())
    assert side * 0.95 < document["parameters"] < side * 1.05  # batch norms folded; neck and decoder are tiny
    assert document["macs"]["dense"] > 48 * 64 * 500


@pytest.mark.parametrize("graph_format", ["onnx", pytest.param("tflite", marks=pytest.mark.slow)])
def test_swapped_prompts_equal_a_new_export(mobile: TclCheckpoint, tmp_path: Path, graph_format: str) -> None:
    first, second = asked(mobile, "a", "b"), asked(mobile, "x", "y", "z", seed=3)
    one = export(mobile, tmp_path / "one.edgekit", prompts=first, graph_format=graph_format).path
    two = export(mobile, tmp_path / "two.edgekit", prompts=second, graph_format=graph_format).path
    write_prompts(tmp_path / "second.json", second)
    swapped, fresh = open_segmenter(one, prompts=tmp_path / "second.json"), open_segmenter(two)
    assert swapped.names == fresh.names == ("x", "y", "z")
    picture = pictures(1, seed=7)[0]
    here, there = swapped.process(picture), fresh.process(picture)
    assert np.array_equal(here.masks, there.masks)
    assert np.array_equal(here.labels, there.labels)
    assert len(np.unique(here.labels)) > 1
    assert not np.array_equal(here.masks[:2], open_segmenter(one).process(picture).masks)


def test_prompts_of_another_model_are_refused(bundle: Path, vit: TclCheckpoint, tmp_path: Path) -> None:
    write_prompts(tmp_path / "words.json", asked(vit, "a"))
    with pytest.raises(UsageError, match=r"words.json: made for another model, tiny "):
        open_segmenter(bundle, prompts=tmp_path / "words.json")


def test_each_kind_of_bundle_is_refused_where_the_other_is_needed(
    bundle: Path, tiny: ModuleType, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"segments pictures by words.*needs a detector.\nSee what it is with"):
        open_bundle(bundle)
    detector = tiny.write_bundle(tmp_path / "tiny.edgekit")
    with pytest.raises(UsageError, match=r"detects objects.*\nMake one with: edgekit export tcl.pt --prompts"):
        open_segmenter(detector)
    with pytest.raises(UsageError, match="which 'native' does not run; its engines are: onnxruntime, openvino"):
        open_segmenter(bundle, engine="native")


def labelled(tmp_path: Path, reference: Any, count: int = 6) -> SegmentationDataset:
    """Pictures whose masks are what ``reference`` says of them."""
    from PIL import Image

    entries = []
    for index, picture in enumerate(pictures(count, seed=11)):
        image, mask = tmp_path / f"{index}.png", tmp_path / f"{index}.mask.png"
        Image.fromarray(picture).save(image)
        Image.fromarray(reference.process(picture).labels).save(mask)
        entries.append(LabelledPicture(image_path=image, mask_path=mask, shifted=False, classes=4))
    return SegmentationDataset(name="drawings", classes=("background", "a", "b", "c"), pictures=tuple(entries))


def calibrated(tmp_path: Path, spec: SegmenterSpec) -> Any:
    from PIL import Image

    (tmp_path / "calib").mkdir()
    paths = [tmp_path / "calib" / f"{index}.png" for index in range(100)]
    for path, picture in zip(paths, pictures(100, seed=21), strict=True):
        Image.fromarray(picture).save(path)
    return segmentation_calibration(paths, spec, 100)


@pytest.mark.parametrize("graph_format", [pytest.param(name, marks=pytest.mark.slow) for name in FORMATS])
def test_int8_is_held_against_masks(vit: TclCheckpoint, tmp_path: Path, graph_format: str) -> None:
    """The float model's own labels are the truth, so that it scores 1, and int8 what it kept of them."""
    spec = segmenter_spec(vit.model, OPTIONS, height=48, width=64)
    prompts = asked(vit, "a", "b", "c")
    dataset = labelled(tmp_path, reference_segmenter(vit.model, spec, prompts, threads=1))
    evidence = {
        "calibration": calibrated(tmp_path, spec), "dataset": dataset, "dataset_prompts": prompts, "max_drop": 15.0,
    }  # fmt: skip
    result = export(vit, tmp_path / "a.edgekit", graph_format=graph_format, precision="int8", **evidence)
    accuracy = result.report.accuracy
    assert accuracy.miou_before == pytest.approx(1)
    assert 0.85 <= accuracy.miou_after < 1, "int8 that changes nothing was not int8"
    document = result.manifest.document
    assert document["accuracy"]["drop"] == pytest.approx(100 * (accuracy.miou_before - accuracy.miou_after))
    assert document["calibration"]["images"] == 100
    assert verify_segmentation(open_segmentation_bundle(result.path)).passed

    with pytest.raises(GateError) as caught:
        export(
            vit, tmp_path / "b.edgekit", graph_format=graph_format, precision="int8",
            **{**evidence, "max_drop": accuracy.drop / 2},
        )  # fmt: skip
    message = str(caught.value)
    assert "mIoU on drawings (6 pictures): expected at least" in message
    assert "segmenter.ups.0.conv" in message
    assert "--keep-float worst:" in message
    assert not (tmp_path / "b.edgekit").exists()
    assert not list(tmp_path.glob(".b.edgekit*"))


@pytest.mark.slow
def test_layers_may_be_kept_in_float(vit: TclCheckpoint, tmp_path: Path) -> None:
    spec = segmenter_spec(vit.model, OPTIONS, height=48, width=64)
    calibration = calibrated(tmp_path, spec)
    kept = export(vit, tmp_path / "a.edgekit", precision="int8", calibration=calibration, keep_float=KeepFloat(worst=2))
    assert len(kept.kept_float) == 2
    assert kept.manifest.document["kept_float"] == list(kept.kept_float)
    with pytest.raises(ExportError, match="only makes sense for int8, but the precision is fp32"):
        export(vit, tmp_path / "b.edgekit", keep_float=KeepFloat(worst=2))


def test_how_sure_a_pixel_is(mobile: TclCheckpoint) -> None:
    spec = segmenter_spec(mobile.model, OPTIONS, height=32, width=32)
    found = np.stack([np.full((8, 8), score, np.float32) for score in (0.1, 0.7, 0.55)])
    fitted = fit(pictures(1)[0], spec)
    for several, lead in ((found, 0.15), (found[:2], 0.3), (found[:1], 0.3)):
        leads = tcl_gate.leads(several, fitted, spec, height=5, width=7)
        assert leads.shape == (5, 7)
        assert leads == pytest.approx(np.full((5, 7), lead), abs=1e-6)


def test_a_conversion_that_went_wrong_is_refused(
    mobile: TclCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine whose channels are mixed up."""
    whole = tcl_gate.SegmentationPipeline.run

    def mixed(self: Any, image: Any) -> Any:
        outputs = whole(self, image)
        return outputs if "torch" in self.engine_name else {k: v[:, ::-1] for k, v in outputs.items()}

    monkeypatch.setattr(tcl_gate.SegmentationPipeline, "run", mixed)
    with pytest.raises(GateError, match=r"embeddings: expected a cosine of at least(.|\n)*labels: expected a mean IoU"):
        export(mobile, tmp_path / "a.edgekit")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("size", "near"), [((50, 64), "64x64"), ((48, 8), "48x16"), ((9000, 64), "8192x64")])
def test_sizes_that_the_model_cannot_take(mobile: TclCheckpoint, size: tuple[int, int], near: str) -> None:
    with pytest.raises(UsageError, match=f"multiples of 16 up to 8192, got {size[0]}x{size[1]}; try {near}"):
        segmenter_spec(mobile.model, OPTIONS, height=size[0], width=size[1])


def test_sparse_programs_are_refused(mobile: TclCheckpoint, tmp_path: Path) -> None:
    spec = segmenter_spec(mobile.model, OPTIONS, height=48, width=64)
    plan = plan_export(None, graph_format="sparse", calibrated=False)
    with pytest.raises(UsageError, match="a segmenter looks everywhere"):
        export_segmenter(
            mobile, spec, asked(mobile, "a"), plan, tmp_path / "a.edgekit",
            evidence=SegmentationEvidence(pictures=pictures(1)),
        )  # fmt: skip


def test_too_few_pictures_to_calibrate_on(mobile: TclCheckpoint, tmp_path: Path) -> None:
    spec = segmenter_spec(mobile.model, OPTIONS, height=48, width=64)
    with pytest.raises(ExportError, match=r"at least 100 pictures, got 3 \(200 asked for, 3 there\)"):
        segmentation_calibration([tmp_path / str(index) for index in range(3)], spec, 200)


def test_a_zip_works_as_the_folder_does(mobile: TclCheckpoint, bundle: Path, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "a"), "zip", bundle)
    picture = pictures(1)[0]
    zipped, folder = open_segmenter(tmp_path / "a.zip"), open_segmenter(bundle)
    assert np.array_equal(zipped.process(picture).masks, folder.process(picture).masks)


def rewrite(bundle: Path, name: str, change: Callable[[Any], Any]) -> None:
    """Change a JSON file of a bundle, and its hash in the manifest."""
    import hashlib

    document = json.loads((bundle / name).read_text())
    change(document)
    data = json.dumps(document).encode()
    (bundle / name).write_bytes(data)
    if name != "bundle.json":
        entry = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        rewrite(bundle, "bundle.json", lambda manifest: manifest["files"].__setitem__(name, entry))


def put(*keys: Any, value: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("spec", "height"), 0, "height must be a whole number in 1..8192"),
        (("spec", "text"), "no", "text must be 64 hexadecimal digits"),
        (("spec", "mean"), [1, 2], "mean must be three numbers"),
        (("spec", "std"), [1, 0, 1], r"std\[1\] must be a number in"),
        (("spec", "pamr"), 1, "pamr must be true or false"),
        (("spec", "clip_share"), 0.3, "go with a clip_share over 0"),
        (("spec", "embedding"), 10**9, "embedding must be a whole number in 1..4096"),
        (("spec", "anchors"), [], "unknown key 'anchors'"),
        (("graphs",), {"detector": "segmenter.onnx"}, "unknown key 'detector'"),
        (("graphs", "segmenter"), "prompts.json", "must end in .onnx"),
        (("golden", "tolerance", "pixels"), 2, "pixels must be a number in 0..1"),
        (("macs",), {"dense": 1, "omg": 1}, "unknown key 'omg'"),
        (("engines",), ["native"], "does not run onnx graphs"),
        (("sparse",), {}, "unknown key 'sparse'"),
        (("parameters",), -1, "parameters must be a whole number"),
    ],
)
def test_malformed_manifests(bundle: Path, tmp_path: Path, keys: tuple[Any, ...], value: Any, message: str) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "a.edgekit"))
    rewrite(copy, "bundle.json", put(*keys, value=value))
    with pytest.raises(BundleError, match=message):
        open_any_bundle(copy)


def test_files_that_are_not_what_the_manifest_says(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "a.edgekit"))
    rewrite(copy, "bundle.json", put("prompts", value="absent.json"))
    with pytest.raises(BundleIntegrityError, match=r"'absent.json', which is not listed in files"):
        open_any_bundle(copy)
    rewrite(copy, "bundle.json", put("prompts", value="golden_output.json"))
    with pytest.raises(PromptsError, match=r"golden_output.json: format is missing"):
        open_segmenter(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("masks", value=[]), "masks must be 3 masks, got 0"),
        (put("masks", 1, value="AAAA"), r"masks\[1\] must be base64 of 12x16 numbers of 2 bytes"),
        (put("masks", 1, value=7), r"masks\[1\] must be base64"),
        (put("more", value=7), "unknown key 'more'"),
    ],
)
def test_malformed_golden_outputs(bundle: Path, tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "a.edgekit"))
    rewrite(copy, "golden_output.json", change)
    with pytest.raises(BundleError, match=message):
        verify_segmentation(open_segmentation_bundle(copy))


def test_another_output_fails_the_self_test(bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(bundle, tmp_path / "a.edgekit"))
    rewrite(copy, "golden_output.json", lambda document: document["masks"].reverse())
    report = verify_segmentation(open_segmentation_bundle(copy))
    assert not report.passed
    assert report.checks[0].status == "failed"
    assert report.checks[0].score > report.tolerance.score


def test_a_board_needs_no_pytorch(bundle: Path) -> None:
    code = f"""
import sys
for name in ("torch", "onnx", "ftfy", "regex"):
    sys.modules[name] = None  # an import of it fails
import numpy as np
from edgekit.segmentation.pipeline import open_segmenter
result = open_segmenter({str(bundle)!r}, engine="onnxruntime").process(np.zeros((48, 64, 3), np.uint8))
assert result.labels.shape == (48, 64)
from edgekit.bundle import open_segmentation_bundle
from edgekit.bundle.segmentation_golden import verify_segmentation
assert verify_segmentation(open_segmentation_bundle({str(bundle)!r}), "onnxruntime").passed
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_spec_survives_json(bundle: Path) -> None:
    spec = open_segmentation_bundle(bundle).manifest.spec
    assert SegmenterSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert replace(spec, clip_share=0.5, known_rows=3, known_columns=4).outputs["known"] == (1, 16, 3, 4)

"""Bundles that segment, as a person makes, checks, measures and describes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

torch = pytest.importorskip("torch", reason="networks are PyTorch modules")
pytest.importorskip("regex", reason="comes with the extra 'segment'")
pytest.importorskip("onnx", reason="comes with the extra 'export'")
pytest.importorskip("onnxruntime", reason="comes with the extra 'onnx'")

from edgekit.cli import main  # noqa: E402
from edgekit.models.tcl.checkpoint import TclCheckpoint, save_tcl  # noqa: E402
from edgekit.segmentation.prompts import read_prompts  # noqa: E402


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tiny_tcl: ModuleType) -> Path:
    path = tmp_path_factory.mktemp("tcl") / "best.pt"
    provenance = {"training_data": "drawings", "starting_weights": "none"}
    save_tcl(path, TclCheckpoint(model=tiny_tcl.shaken(tiny_tcl.mobile_spec()), provenance=provenance))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures with masks."""
    root = tmp_path_factory.mktemp("data")
    for folder in ("images", "masks"):
        (root / folder).mkdir()
    generator = np.random.default_rng(0)
    for index in range(3):
        image = generator.integers(0, 256, (40, 56, 3), dtype=np.uint8)
        Image.fromarray(image).save(root / "images" / f"{index}.png")
        labels = generator.choice([0, 3, 255], size=(40, 56)).astype(np.uint8)
        Image.fromarray(labels).save(root / "masks" / f"{index}.png")
    return root


SMALL = ("--imgsz", "48x64", "--background", "0.3")


@pytest.fixture(scope="module")
def bundle(checkpoint: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good bundle; do not change it."""
    path = tmp_path_factory.mktemp("bundle") / "words.edgekit"
    result = call("export", checkpoint, "--prompts", "person, red car", *SMALL, "--data", data, "-o", path)
    assert result.exit_code == 0, result.output
    assert "mean IoU of labels 1.0000" in result.stdout
    assert "on 3 pictures of" in result.stdout
    assert f"edgekit verify {path}" in result.stdout
    return path


def test_the_part_is_found_by_its_option_and_by_its_name(checkpoint: Path, tmp_path: Path) -> None:
    for arguments in (["export", checkpoint, "--prompts=a"], ["export", "tcl", checkpoint, "--prompts", "a"]):
        result = call(*arguments, *SMALL, "-o", tmp_path / "a.edgekit", "--json", "--overwrite", "--zip")
        assert result.exit_code == 0, result.output
        assert json.loads(result.stdout)["gate"]["passed"]
    assert "Usage: main export tcl " in call("export", "tcl", "--help").output
    assert "edgekit export tcl --help" in " ".join(call("export", "--help").output.split())


def test_verify(bundle: Path, checkpoint: Path, data: Path, tmp_path: Path) -> None:
    result = call("verify", bundle)
    assert result.exit_code == 0, result.output
    assert "onnxruntime         passed" in result.stdout
    assert json.loads(call("verify", bundle, "--json", "--engine", "onnxruntime").stdout)["passed"]
    against = ("--against", checkpoint, "--source", data / "images", "--frames", 2, "--engine", "onnxruntime")
    result = call("verify", bundle, *against)
    assert result.exit_code == 0, result.output
    assert "2 pictures: mean IoU of labels 1.0000" in result.stdout
    damaged = Path(shutil.copytree(bundle, tmp_path / "a.edgekit"))
    (damaged / "prompts.json").write_bytes(b"{}")
    result = call("verify", damaged)
    assert result.exit_code == 1
    assert "prompts.json has 2 bytes where bundle.json says" in result.output


def test_verify_against_another_checkpoint(bundle: Path, data: Path, tmp_path: Path, tiny_tcl: ModuleType) -> None:
    other = tiny_tcl.shaken(tiny_tcl.mobile_spec(), seed=1)
    save_tcl(tmp_path / "other.pt", TclCheckpoint(model=other))
    result = call("verify", bundle, "--against", tmp_path / "other.pt", "--source", data / "images")
    assert result.exit_code == 2
    assert "reads text otherwise than the model that the bundle was exported from" in result.output
    with torch.no_grad():
        twin = tiny_tcl.shaken(tiny_tcl.mobile_spec())
        twin.masker.image_encoder.backbone.neck.weight.mul_(-1)
    save_tcl(tmp_path / "twin.pt", TclCheckpoint(model=twin))
    result = call(
        "verify", bundle, "--against", tmp_path / "twin.pt", "--source", data / "images", "--engine", "onnxruntime"
    )
    assert result.exit_code == 5
    assert "do not agree:" in result.output
    assert "labels: expected a mean IoU of at least 0.99" in result.output


def test_info(bundle: Path) -> None:
    result = call("info", bundle)
    assert result.exit_code == 0, result.output
    for text in ("tcl-mobilenetv2", "2: person, red car", "64x48 RGB", "training data     drawings", "miou_before"):
        assert text in result.stdout
    document = json.loads(call("info", bundle, "--json").stdout)
    assert document["prompt_names"] == ["person", "red car"]
    assert document["task"] == "segmentation"


def test_profile(bundle: Path) -> None:
    options = ("--iterations", 2, "--warmup", 0)
    result = call("profile", bundle, *options, "--engine", "onnxruntime", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert set(document["engines"][0]["stages"]) == {"fit", "graph", "masks", "labels", "total"}
    result = call("profile", bundle, *options)
    assert result.exit_code == 0, result.output
    assert "MMAC a picture" in result.stdout
    assert "in the graph," in result.stdout
    assert json.loads(call("profile", bundle, "--macs", "--json").stdout)["macs"] == document["macs"]
    result = call("profile", bundle, "--active", 0.3)
    assert result.exit_code == 2
    assert "a segmenter looks everywhere" in result.output


def test_other_words(bundle: Path, checkpoint: Path, data: Path, tmp_path: Path) -> None:
    result = call("val", "tcl", bundle, "--data", data)
    assert result.exit_code == 2
    assert "edgekit prompts CHECKPOINT --protocol voc" in result.output
    result = call("prompts", checkpoint, "--protocol", "voc", "-o", tmp_path / "voc.json")
    assert result.exit_code == 0, result.output
    assert len(read_prompts(tmp_path / "voc.json")) == 20
    scored = call("val", "tcl", bundle, "--data", data, "--prompts", tmp_path / "voc.json", "--json", "--limit", 2)
    assert scored.exit_code == 0, scored.output
    document = json.loads(scored.stdout)
    assert document["images"] == 2
    assert document["engine"].startswith("onnxruntime")
    assert 0 <= document["miou"] <= 1
    assert document["background"] == 0.3
    result = call("val", "tcl", bundle, "--data", data, "--prompts", tmp_path / "voc.json", "--templates", "none")
    assert result.exit_code == 2
    assert "--templates cannot be changed in a bundle" in result.output
    result = call("val", "tcl", checkpoint, "--data", data, "--prompts", tmp_path / "voc.json")
    assert result.exit_code == 2
    assert "--prompts and --engine are for bundles" in result.output


def test_a_file_of_prompts_makes_the_same_bundle_as_its_names(bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    words = tmp_path / "words.json"
    result = call("prompts", checkpoint, "person, red car", "-o", words, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["names"] == ["person", "red car"]
    assert words.read_bytes() == (bundle / "prompts.json").read_bytes()
    result = call("export", checkpoint, "--prompts", words, *SMALL, "-o", tmp_path / "b.edgekit")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "b.edgekit" / "prompts.json").read_bytes() == words.read_bytes()
    assert (tmp_path / "b.edgekit" / "segmenter.onnx").read_bytes() == (bundle / "segmenter.onnx").read_bytes()


@pytest.mark.parametrize("prompt", ["собака", "犬", "👩‍🚒", "é ü", "<b>&amp;", "a" * 9])
def test_prompts_in_any_script(checkpoint: Path, tmp_path: Path, prompt: str) -> None:
    result = call("prompts", checkpoint, prompt, "-o", tmp_path / "words.json")
    assert result.exit_code == 0, result.output
    assert read_prompts(tmp_path / "words.json").names == (prompt,)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("", "prompts are names separated by commas"),
        ("a,,b", "prompts are names separated by commas"),
        ("a,a", "comes twice"),
        ("\u200b", "characters that can be shown"),
        ("dog " * 40, "a prompt of at most 14 tokens is expected, got"),
        ("half\ud800", "characters that can be shown"),
        ("background", "expected 1 to 254 prompts, got 0"),
        ("red\x07car", "characters that can be shown"),
    ],
)
@pytest.mark.parametrize("verb", ["prompts", "export"])
def test_prompts_that_are_none(checkpoint: Path, tmp_path: Path, names: str, message: str, verb: str) -> None:
    given = (names,) if verb == "prompts" else ("--prompts", names, *SMALL)
    result = call(verb, checkpoint, *given, "-o", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


def test_what_an_export_refuses(checkpoint: Path, tmp_path: Path) -> None:
    cases: tuple[tuple[tuple[object, ...], int, str], ...] = (
        (("--imgsz", "50"), 2, "takes sides that are multiples of 16"),
        (("--format", "sparse"), 2, "'sparse' is not one of 'onnx', 'tflite', 'openvino'"),
        (("--int8",), 2, "int8 needs at least 100 pictures"),
        (("--int8", "--half"), 2, "contradict each other"),
        (("--int8", "--calib", checkpoint.parent), 1, "holds no picture"),
        (("--data", tmp_path, "--protocol", "vok"), 2, "no protocol is called 'vok'; did you mean 'voc'?"),
    )
    for options, code, message in cases:
        result = call("export", checkpoint, "--prompts", "a", "-o", tmp_path / "a.edgekit", *options)
        assert result.exit_code == code, result.output
        assert message in " ".join(result.output.split())
    assert not list(tmp_path.iterdir())


def test_detectors_verbs_say_that_it_is_none(bundle: Path, data: Path, tmp_path: Path, tiny: ModuleType) -> None:
    for arguments in (("val", bundle, "--data", data), ("bench", "sparse", bundle)):
        result = call(*arguments)
        assert result.exit_code == 2, result.output
        assert "segments pictures by words; what is asked for here needs a detector" in result.output
    detector = tiny.write_bundle(tmp_path / "tiny.edgekit")
    result = call("val", "tcl", detector, "--data", data)
    assert result.exit_code == 2
    assert "detects objects; what is asked for here needs a bundle that segments by words" in result.output


def test_a_tcl_checkpoint_without_prompts(checkpoint: Path, tmp_path: Path) -> None:
    result = call("export", checkpoint, "-o", tmp_path / "a.edgekit")
    assert result.exit_code != 0
    assert 'edgekit export best.pt --prompts "person, car"' in result.output

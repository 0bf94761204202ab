"""``edgekit run`` as a process: data on stdout, words on stderr, files complete however it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from edgekit.bundle import BundleWriter
from edgekit.bundle.golden import write_golden
from edgekit.cameras import open_source
from edgekit.cli import load_program
from edgekit.masks.sources import off
from edgekit.models.default import default_bundle
from edgekit.pipeline import Pipeline
from edgekit.spec import AnchorLevel, DetectorSpec

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "runtime" / "run.py"

Run = Callable[..., Result]


def write_graphs(folder: Path) -> None:
    """A detector that sees a person of score 0.8 at every active anchor, behind a mask of the brighter cells."""
    onnx = pytest.importorskip("onnx", reason="the tiny bundle is made with onnx, which the extra [export] brings")
    helper, numpy_helper, floats = onnx.helper, onnx.numpy_helper, onnx.TensorProto.FLOAT

    def save(
        name: str, nodes: list[Any], inputs: dict[str, list[int]], outputs: dict[str, list[int]], **weights: Any
    ) -> None:
        values = [
            [helper.make_tensor_value_info(key, floats, shape) for key, shape in group.items()]
            for group in (inputs, outputs)
        ]
        constants = [numpy_helper.from_array(np.asarray(value), key) for key, value in weights.items()]
        graph = helper.make_graph(nodes, name, *values, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, str(folder / f"{name}.onnx"))

    node, image = helper.make_node, {"image": [1, 3, 64, 64]}
    brightness = np.full((1, 3, 16, 16), 8 / 768, np.float32)
    save(
        "omg",
        [node("Conv", ["image", "weight"], ["objectness"], strides=[16, 16])],
        image,
        {"objectness": [1, 1, 4, 4]},
        weight=brightness,
    )
    logits = np.array([np.log(4), -9], np.float32)
    save(
        "detector",
        [
            node("Conv", ["image", "zero", "bias"], ["site"], strides=[16, 16]),
            node("Mul", ["site", "mask"], ["masked"]),
            node("Transpose", ["masked"], ["last"], perm=[0, 2, 3, 1]),
            node("Reshape", ["last", "by_anchor"], ["all"]),
            node("Split", ["all", "sizes"], ["class_logits", "box_offsets"], axis=2),
        ],
        {**image, "mask": [1, 1, 4, 4]},
        {"class_logits": [1, 16, 2], "box_offsets": [1, 16, 4]},
        zero=np.zeros((6, 3, 16, 16), np.float32),
        bias=np.concatenate([logits, np.zeros(4, np.float32)]),
        by_anchor=np.array([1, 16, 6], np.int64),
        sizes=np.array([2, 4], np.int64),
    )


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of a few kilobytes that runs on onnxruntime."""
    pytest.importorskip("onnxruntime", reason="the tiny bundle runs on onnxruntime, which the extra [onnx] brings")
    from edgekit.backends import load_engine

    folder = tmp_path_factory.mktemp("tiny")
    write_graphs(folder)
    level = AnchorLevel(rows=4, columns=4, sizes=((16.0, 16.0),))
    spec = DetectorSpec(
        model="tiny",
        classes=("person", "cat"),
        height=64,
        width=64,
        anchors=(level,),
        mask_grid=(4, 4),
        mask_threshold=0.5,
        vote_iou=1.0,
    )
    omg, detector = (load_engine("onnxruntime", folder / f"{name}.onnx", threads=1) for name in ("omg", "detector"))
    with BundleWriter(folder / "tiny.edgekit") as writer:
        for name in ("omg.onnx", "detector.onnx"):
            writer.add_file(name, folder / name)
        pipeline = Pipeline(spec, omg, detector, off)
        golden = write_golden(writer, pipeline, np.full((64, 64, 3), 90, np.uint8), precision="fp32")
        writer.finish(
            {
                "name": "tiny",
                "task": "detection",
                "spec": spec.to_json(),
                "target": None,
                "graph_format": "onnx",
                "precision": "fp32",
                "engines": ["onnxruntime"],
                "threads": 1,
                "graphs": {"omg": "omg.onnx", "detector": "detector.onnx"},
                "engine_options": {},
                "golden": golden,
                "calibration": None,
                "macs": {"dense": 0, "omg": 0},
                "parameters": 0,
                "accuracy": None,
                "kept_float": [],
                "parity": {},
                "provenance": {"training_data": "none", "starting_weights": "none"},
                "tool_versions": {},
            }
        )
    return folder / "tiny.edgekit"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the program in an empty folder, to its end."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object, check: int = 0) -> Result:
        done = CliRunner().invoke(load_program("run"), [str(argument) for argument in arguments])
        assert done.exit_code == check, done.stderr
        return done

    return call


def start(*arguments: object, folder: Path) -> subprocess.Popen[str]:
    """Run the program as a process of its own, as a person does."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Black on the left, white on the right, 128 wide, 128 high."""
    image = np.zeros((128, 128, 3), np.uint8)
    image[:, 64:] = 255
    cv2.imwrite(str(tmp_path / "picture.png"), image)
    return tmp_path / "picture.png"


def lines(done: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_json_lines_on_stdout(run: Run, tiny_bundle: Path, picture: Path) -> None:
    done = run(tiny_bundle, "--source", picture)
    (line,) = lines(done)
    assert set(line) == {"frame", "time", "source", "detections", "active_share", "age_ms", "ms"}
    assert (line["frame"], line["source"], line["active_share"]) == (0, str(picture), 0.5)
    assert set(line["ms"]) == {"letterbox", "mask", "detector", "decode", "total"}
    assert len(line["detections"]) == 8  # one an active cell
    for found in line["detections"]:
        assert found["class"] == "person"
        assert found["score"] == pytest.approx(0.8, abs=1e-3)
        assert found["box_xyxy"][0] >= 64
    assert "onnxruntime" in done.stderr
    assert "1 frames in" in done.stderr
    assert "active share 0.500" in done.stderr


def test_mask_off_conf_and_iou(run: Run, tiny_bundle: Path, picture: Path) -> None:
    (everywhere,) = lines(run(tiny_bundle, "--source", picture, "--mask", "off"))
    assert everywhere["active_share"] == 1.0
    assert len(everywhere["detections"]) == 16
    (none,) = lines(run(tiny_bundle, "--source", picture, "--conf", "0.81"))
    assert none["detections"] == []
    (same,) = lines(run(tiny_bundle, "--source", picture, "--iou", "0"))
    assert len(same["detections"]) == 8  # anchors of neighbouring cells touch but do not overlap


def test_mask_from_a_file(run: Run, tiny_bundle: Path, picture: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    done = run(tiny_bundle, "--source", picture, "--mask", "bad.json", check=2)
    assert "bad.json" in done.stderr
    assert done.stdout == ""


def test_demo_with_video_and_recall(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="the demo's photographs come with the extra [demo]")
    done = run(tiny_bundle, "--source", "demo", "--save", "demo.mp4", "--max-frames", "40", "--jsonl", "out.jsonl")
    assert done.stdout == ""
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 40
    assert "saved demo.mp4: 40 frames" in done.stderr
    assert "40 frames in" in done.stderr
    assert "objects found" in done.stderr
    assert "p50/p95" in done.stderr
    with open_source(str(tmp_path / "demo.mp4")) as video:
        assert video.fps == pytest.approx(15)
        assert len(list(video)) == 40


def test_the_argument_may_be_a_source(run: Run) -> None:
    assert "no camera 97" in run("97", check=4).stderr


def test_loop_and_jsonl_off(run: Run, tiny_bundle: Path, picture: Path) -> None:
    done = run("-m", tiny_bundle, "--source", picture, "--loop", "--max-frames", "5", "--jsonl", "off")
    assert done.stdout == ""
    assert "5 frames in" in done.stderr


def test_pictures_of_many_sizes_make_one_video(run: Run, tiny_bundle: Path, picture: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((50, 301, 3), np.uint8))
    run(tiny_bundle, "--source", f"{tmp_path}/*.png", "--save", "out.mp4")
    with open_source(str(tmp_path / "out.mp4")) as video:
        assert video.fps == pytest.approx(2)
        assert len(list(video)) == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "no source was given"),
        (["--source", "a=demo", "--source", "a=demo"], 2, "two sources are called 'a'"),
        (["--source", "demo", "--source", "demo", "--save", "x.mp4"], 2, "{camera}-x.mp4"),
        (["a", "-m", "b", "--source", "demo"], 2, "two models were given"),
        (["--source", "demo", "--conf", "1.5"], 2, "0<=x<=1"),
        (["--source", "demo", "--max-frame", "3"], 2, "--max-frames"),
        (["--source", "gopher://x"], 2, "no source begins with gopher://"),
        (["--source", "rtsp://x/", "--loop"], 2, "live source"),
        (["--camera", "97"], 4, "no camera 97: /dev/video97 does not exist"),
        (["--source", "nothing.mp4"], 4, "there is no file nothing.mp4"),
        (["--source", "notes.mp4"], 4, 'notes.mp4 is not a video: it looks like a text file that begins with "hello"'),
        (["--source", "empty"], 4, "no picture in the folder empty: it is empty"),
        (["--source", "no*.png"], 4, "no picture matches no*.png"),
    ],
)
def test_bad_input(run: Run, tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    (tmp_path / "notes.mp4").write_text("hello\nworld\n" * 100)
    (tmp_path / "empty").mkdir()
    done = run(*arguments, check=code)
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_bad_output(run: Run, tiny_bundle: Path, picture: Path, tmp_path: Path) -> None:
    begin = (tiny_bundle, "--source", picture)
    assert "saved as .mp4" in run(*begin, "--save", "out.gif", check=2).stderr
    assert "cannot be written to no/out.mp4" in run(*begin, "--save", "no/out.mp4", check=1).stderr
    assert "cannot be written to no/out" in run(*begin, "--jsonl", "no/out", check=1).stderr
    if os.path.exists("/dev/full"):
        assert "No space left" in run(*begin, "--jsonl", "/dev/full", "--save", "out.mp4", check=1).stderr
    assert "'abacus'" in run(*begin, "--engine", "abacus", check=2).stderr


def test_the_source_is_not_overwritten(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"precious")
    done = run(tiny_bundle, "--source", "clip.mp4", "--save", "../" + tmp_path.name + "/clip.mp4", check=2)
    assert "is the source itself" in done.stderr
    assert (tmp_path / "clip.mp4").read_bytes() == b"precious"


def test_an_unreadable_picture_ends_the_run_but_keeps_the_video(
    run: Run, tiny_bundle: Path, picture: Path, tmp_path: Path
) -> None:
    (tmp_path / "z.png").write_text("no picture")
    done = run(tiny_bundle, "--source", f"{tmp_path}/*.png", "--save", "out.mp4", check=4)
    assert "z.png cannot be read as a picture" in done.stderr
    assert len(lines(done)) == 1
    with open_source(str(tmp_path / "out.mp4")) as video:
        assert len(list(video)) == 1


@pytest.mark.parametrize(
    ("number", "code", "times"), [(signal.SIGINT, 130, 1), (signal.SIGINT, 130, 3), (signal.SIGTERM, 143, 1)]
)
def test_a_signal_ends_it_and_completes_its_files(
    tiny_bundle: Path, picture: Path, tmp_path: Path, number: signal.Signals, code: int, times: int
) -> None:
    arguments = (tiny_bundle, "--source", picture, "--loop", "--save", "out.mp4", "--jsonl", "out.jsonl")
    with start(*arguments, folder=tmp_path) as process:
        output, deadline = tmp_path / "out.jsonl", time.monotonic() + 60
        while not (output.exists() and output.read_text().count("\n") > 20) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        for _ in range(times):
            process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    written = [json.loads(line) for line in output.read_text().splitlines()]
    assert [line["frame"] for line in written] == list(range(len(written)))
    assert "Traceback" not in said
    assert "frames in" in said
    with open_source(str(tmp_path / "out.mp4")) as video:
        assert abs(len(list(video)) - len(written)) <= 1  # the signal may fall between the two files
    assert {path.name for path in tmp_path.iterdir()} == {"out.mp4", "out.jsonl", "picture.png"}


def test_a_reader_that_goes_away(tiny_bundle: Path, picture: Path, tmp_path: Path) -> None:
    with start(tiny_bundle, "--source", picture, "--loop", "--save", "out.mp4", folder=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["frame"] == 0
        process.stdout.close()
        said = process.stderr.read()
        assert process.wait(timeout=60) == 1
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    with open_source(str(tmp_path / "out.mp4")) as video:
        assert list(islice(video, 1))


def test_the_default_finds_the_photographs(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("skimage", reason="the demo's photographs come with the extra [demo]")
    if not default_bundle().exists():
        pytest.skip("needs the default bundle, which this checkout does not have")
    done = run("demo", "--save", "demo.mp4")
    assert len(lines(done)) == 150
    recall = float(done.stderr.partition("recall ")[2].partition(":")[0])
    assert recall >= 0.6
    seen = {found["class"] for line in lines(done) for found in line["detections"]}
    assert {"person", "cat"} <= seen


@pytest.fixture
def red(tmp_path: Path) -> Path:
    """A red box on noise, 160 wide, 120 high."""
    image = np.random.default_rng(3).integers(90, 150, (120, 160, 3), dtype=np.uint8)
    image[30:80, 20:70] = (30, 30, 220)  # BGR
    cv2.imwrite(str(tmp_path / "red.png"), image)
    return tmp_path / "red.png"


def test_a_segmenter_finds_colours_and_follows_what_words_name(run: Run, word_bundle: Path, red: Path) -> None:
    for number in range(2):
        red.with_name(f"again{number}.png").hardlink_to(red)
    done = run(word_bundle, "--source", "*.png", "--save", "out.mp4", "--track")
    *_, line = lines(done)
    assert set(line["segments"]) == {"red box"}
    assert line["segments"]["red box"]["share"] == pytest.approx(50 * 50 / (120 * 160), rel=0.4)
    assert 0.5 < line["segments"]["red box"]["score"] <= 1
    (found,) = line["detections"]
    assert found["class"] == "red box"
    assert found["box_xyxy"] == pytest.approx([20, 30, 70, 80], abs=12)
    assert [track["class"] for track in line["tracks"]] == ["red box"]
    assert "looks for red box, blue disc" in done.stderr
    capture = cv2.VideoCapture("out.mp4")
    drawn = capture.read()[1]
    capture.release()
    assert drawn.shape == (120, 160, 3)
    assert int(drawn[55, 45, 1]) > 80  # green: the box is mixed with the colour of its class


def test_prompts_are_swapped_without_another_export(
    run: Run, word_bundle: Path, finder_checkpoint: Path, red: Path, tmp_path: Path
) -> None:
    done = CliRunner().invoke(
        load_program("prompts"), [str(finder_checkpoint), "red box", "-o", str(tmp_path / "other.json")]
    )
    assert done.exit_code == 0, done.output
    (line,) = lines(run(word_bundle, "--source", red, "--prompts", "other.json"))
    assert set(line["segments"]) == {"red box"}
    assert "red box, blue" not in done.stderr
    (tmp_path / "broken.json").write_text("{")
    assert "broken.json" in run(word_bundle, "--source", red, "--prompts", "broken.json", check=1).stderr


def test_what_a_segmenter_is_not_asked(run: Run, word_bundle: Path, tiny_bundle: Path, red: Path) -> None:
    for options in (["--mask", "motion"], ["--mask-every", "2"], ["--budget", "30%"], ["--iou", "0.5"]):
        assert "detector" in run(word_bundle, "--source", red, *options, check=2).stderr
    assert "segments by words" in run(tiny_bundle, "--source", red, "--prompts", "x.json", check=2).stderr


def test_words_are_the_mask_of_a_detector(run: Run, word_bundle: Path, tiny_bundle: Path, red: Path) -> None:
    (line,) = lines(run(tiny_bundle, "--source", red, "--mask", f"tcl({word_bundle})"))
    assert 0 < line["active_share"] < 0.8  # the column at the right is left out
    assert "segments" not in line

"""OpenCV is an extra: pictures do without it, and what needs it says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from edgekit.cli import main
from edgekit.errors import MissingDependencyError
from edgekit.opencv import require_opencv


@pytest.fixture
def _no_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)).save(path)
    return path


@pytest.mark.usefixtures("_no_opencv")
@pytest.mark.parametrize(
    ("arguments", "purpose", "extra"),
    [
        (["--camera", "0"], "read a camera", "camera"),
        (["--source", "rtsp://localhost/a"], "read a stream", "camera"),
        (["--source", __file__], "read a video", "camera"),
        (["--source", "demo"], "paint the demo", "demo"),
    ],
)
def test_what_needs_it_says_so(arguments: list[str], purpose: str, extra: str) -> None:
    result = CliRunner().invoke(main, ["run", *arguments])
    assert result.exit_code == 3
    assert f"OpenCV is needed to {purpose}, and it is not installed" in result.output
    assert f'pip install "edgekit-vision[{extra}]"' in result.output


@pytest.mark.usefixtures("_no_opencv")
def test_a_video_cannot_be_written(photo: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["run", "--source", str(photo), "--save", str(tmp_path / "a.mp4")])
    assert result.exit_code == 3
    assert "OpenCV is needed to write a video" in result.output
    assert not (tmp_path / "a.mp4").exists()


def test_a_broken_one_is_not_called_absent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cv2.py").write_text("import numpy_of_another_age")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    with pytest.raises(ModuleNotFoundError, match="numpy_of_another_age") as caught:
        require_opencv("read a camera")
    assert not isinstance(caught.value, MissingDependencyError)


def test_pictures_do_without(photo: Path) -> None:
    # In a process of its own: here OpenCV has been imported long ago.
    code = "import sys; sys.modules['cv2'] = None; from edgekit.cli import main; main()"
    run, verify = (
        subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
        for arguments in (["run", "--source", str(photo), "--jsonl", "-"], ["verify", "default"])
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["frame"] == 0
    assert verify.returncode == 0, verify.stderr

"""Pictures that are drawn here, and a video of numbered frames."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image


def draw(path: Path, rng: np.random.Generator, *, disc: bool) -> None:
    """A red box or a blue disc on noise, 72 x 96 pixels."""
    picture = rng.integers(90, 150, (72, 96, 3)).astype(np.uint8)
    left, top = int(rng.integers(0, 40)), int(rng.integers(0, 20))
    if disc:
        cv2.ellipse(picture, (left + 24, top + 24), (24, 20), 0, 0, 360, (30, 60, 220), -1)
    else:
        picture[top : top + 40, left : left + 48] = (220, 30, 30)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train/`` and ``val/`` with the folders box and disc, of 12 pictures each."""
    root = tmp_path_factory.mktemp("drawings")
    rng = np.random.default_rng(7)
    for split, count in (("train", 12), ("val", 12)):
        for index in range(count):
            for name in ("box", "disc"):
                draw(root / split / name / f"{index}.png", rng, disc=name == "disc")
    return root


@pytest.fixture(scope="session")
def make_video() -> Callable[[Path, int], None]:
    """Writes a video of so many frames, ten a second; frame k has the grey level 8 k."""

    def write(path: Path, frames: int) -> None:
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
        for index in range(frames):
            writer.write(np.full((48, 64, 3), 8 * index, np.uint8))
        writer.release()

    return write

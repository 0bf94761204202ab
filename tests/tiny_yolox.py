"""A YOLOX in miniature, written as the ncnn files that a teacher is read from."""

from __future__ import annotations

from pathlib import Path

import numpy as np

FEATURES, CLASSES = 6, 3
"""Channels of a tower, and classes unless told otherwise."""


def write(folder: Path, *, levels: int = 3, classes: int = CLASSES) -> Path:
    """A YOLOX in miniature: strides 8, 16 and 32, towers of six channels."""
    generator = np.random.default_rng(0)
    lines, raw = ["Input images 0 1 images"], b""

    def convolution(name: str, source: str, result: str, inputs: int, outputs: int, kernel: int, stride: int = 1,
                    activation: int = 0) -> None:  # fmt: skip
        nonlocal raw
        count = inputs * outputs * kernel * kernel
        lines.append(f"Convolution {name} 1 1 {source} {result} 0={outputs} 1={kernel} 3={stride} 4={kernel // 2} 5=1 "
                     f"6={count} 9={activation}")  # fmt: skip
        weight = generator.normal(size=count, scale=(inputs * kernel * kernel) ** -0.5).astype(np.float32)
        raw += bytes(4) + weight.tobytes() + np.zeros(outputs, np.float32).tobytes()

    convolution("down_a", "images", "half", 3, FEATURES, 3, 2)
    convolution("down_b", "half", "quarter", FEATURES, FEATURES, 3, 2)
    trunk = "quarter"
    for level in range(levels):
        convolution(f"down_{level}", trunk, f"trunk_{level}", FEATURES, FEATURES, 3, 2)
        lines.append(f"Split fork_{level} 1 3 trunk_{level} next_{level} to_box_{level} to_class_{level}")
        trunk = f"next_{level}"
        for tower in ("box", "class"):
            convolution(f"{tower}_{level}", f"to_{tower}_{level}", f"{tower}_pre_{level}", FEATURES, FEATURES, 3)
            lines.append(f"Swish {tower}_act_{level} 1 1 {tower}_pre_{level} {tower}_tower_{level}")
        lines.append(f"Split pair_{level} 1 2 box_tower_{level} for_box_{level} for_object_{level}")
        convolution(f"predict_box_{level}", f"for_box_{level}", f"p_box_{level}", FEATURES, 4, 1)
        convolution(f"predict_object_{level}", f"for_object_{level}", f"p_object_{level}", FEATURES, 1, 1, 1, 4)
        convolution(f"predict_class_{level}", f"class_tower_{level}", f"p_class_{level}", FEATURES, classes, 1, 1, 4)
        lines.append(f"Concat concat_{level} 3 1 p_box_{level} p_object_{level} p_class_{level} prediction_{level}")
    path = folder / "tiny-yolox.param"
    path.write_text("\n".join(["7767517", "0 0", *lines, ""]))
    path.with_suffix(".bin").write_bytes(raw)
    return path

"""What an export was made with."""

from __future__ import annotations

import importlib.metadata
import platform

TOOLS = ("edgekit-vision", "numpy", "opencv-python-headless", "torch", "onnx", "onnxruntime", "openvino",
         "ai-edge-litert")  # fmt: skip
"""Distributions whose versions a bundle records."""


def tool_versions() -> dict[str, str]:
    """Python and every installed one of :data:`TOOLS`."""
    versions = {"python": platform.python_version()}
    for name in TOOLS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions

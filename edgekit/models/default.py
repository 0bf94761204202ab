"""Where the detector that edgekit ships lies: ``default`` on the command line. Importing this costs nothing."""

from __future__ import annotations

from pathlib import Path

ASSETS = Path(__file__).resolve().parent.parent / "assets"


def default_bundle() -> Path:
    """The bundle that ``edgekit run default`` runs."""
    return ASSETS / "default.edgekit"


def default_checkpoint() -> Path:
    """The same model's float16 weights, which ``edgekit export default`` starts from."""
    return ASSETS / "default.pt"

"""The program that measures masks on video, on a few frames."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "measure_video.py"


@pytest.mark.slow
def test_every_mask_gets_a_row(shared: Path, pets09: Path, tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    out = tmp_path / "video.json"
    subprocess.run([sys.executable, SCRIPT, "--shared", shared, "--limit", "12", "-o", out], check=True)
    document = json.loads(out.read_text())
    rows = {row[0]: dict(zip(document["columns"], row, strict=True)) for row in document["rows"]}
    assert rows["`off`"]["active"] == "100.0 %"
    assert rows["`omg & motion`"]["keyframe"] == "2 s"
    macs = {mask: int(row["executed MACs"].removesuffix(" M")) for mask, row in rows.items()}
    assert macs["`omg & motion`"] < macs["`omg`"] < macs["`off`"]
    assert "12 frames" in document["note"]

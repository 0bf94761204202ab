"""README and the model card say what the code and the results say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit.exporters.parity_limits import PARITY_LIMITS

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = ROOT / "scripts" / "readme_tables.py"
README = (ROOT / "README.md").read_text()
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "docs/model-card.md", "docs/outputs.md"]


def test_tables_are_fresh() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_result_has_a_place() -> None:
    text = "".join((ROOT / name).read_text() for name in DOCUMENTS)
    for path in (ROOT / "docs" / "results").glob("*.json"):
        if "columns" in json.loads(path.read_text()):
            assert f"<!-- table:{path.stem} -->" in text, f"{path.name} is shown nowhere"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_to_files_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", (ROOT / name).read_text()):
        assert (ROOT / name).parent.joinpath(target).exists(), f"{name} links to {target}"


def test_the_two_commands_of_a_fresh_machine_are_at_the_top() -> None:
    block = re.search(r"```bash\n(.*?)```", README, re.DOTALL)
    assert block is not None
    first, second = (line for line in block[1].splitlines() if line and not line.startswith("#"))
    assert first.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert second == '.venv/bin/pip install -e ".[test]" && .venv/bin/python -m pytest'


def test_every_instruction_set_is_listed() -> None:
    sources = "".join(path.read_text() for path in sorted((ROOT / "edgekit" / "native").glob("isa_*")))
    names = re.findall(r'(?:table\.name =|_NAME) "([\w-]+)"', sources)
    table = README.split("| instruction set | where |")[1].split("\n\n")[0]
    assert sorted(re.findall(r"^\| `([\w-]+)` \|", table, re.MULTILINE)) == sorted(names)


def test_the_stated_tolerances_are_the_gates() -> None:
    rows = dict(
        re.findall(r"^\| (fp32|fp16|int8) \| ([\d.]+ \| [\d.]+ \| [\d.]+ % \| [\d.]+ %) \|$", README, re.MULTILINE)
    )
    assert rows == {
        precision: f"{one.box_px:g} | {one.score:g} | {100 * one.disagreeing_share:g} % | {100 * one.mask_share:g} %"
        for precision, one in PARITY_LIMITS.items()
    }

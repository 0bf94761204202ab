"""Many processes compute TCL's losses and gradients as one does (double precision)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import importlib.util, json, sys
import torch
from edgekit.learning import distributed
from edgekit.learning.tcl_losses import TclWeights, find_matches, tcl_losses
from edgekit.models.tcl.masker import logistic_noise

specification = importlib.util.spec_from_file_location("tiny_tcl", sys.argv[1])
tiny_tcl = importlib.util.module_from_spec(specification)
specification.loader.exec_module(tiny_tcl)
distributed.start(torch.device("cpu"))
rank, processes = distributed.rank(), distributed.world_size()
spec = tiny_tcl.vit_spec()
model = tiny_tcl.shaken(spec).double()
model.phase("masker")
torch.manual_seed(0)
pictures, noise = torch.rand(4, 3, 32, 32).double() * 255, logistic_noise(torch.empty(4, 4, 16, 16).double())
tokens = tiny_tcl.captions(4, spec)
tokens[3] = tokens[0]
captions = torch.stack([tokens, tokens.roll(1, dims=0)], dim=1)
captions[1] = 0
mine = [part.chunk(processes)[rank] for part in (pictures, tokens, captions, noise)]
# Absolute values of means over a process's own pictures are not those over all.
weights = TclWeights(area=0.0)
losses = tcl_losses(model, mine[0], mine[1], weights=weights, matches=find_matches(mine[1], mine[2]), noise=mine[3])
total = torch.stack(list(losses.values())).sum() / processes
total.backward()
learning = [value for _, value in model.learning() if value.grad is not None]
distributed.sum_gradients(learning)
total = distributed.sum_over_processes(total)
if rank == 0:
    print(json.dumps([total.item(), [value.grad.flatten().tolist() for value in learning]]))
distributed.stop()
"""


def run(command: list[str]) -> list[object]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    result: list[object] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


@pytest.mark.slow
def test_two_processes_are_as_good_as_one(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="runs many processes of it")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    tiny = str(Path(__file__).resolve().parent.parent / "tiny_tcl.py")
    one = run([sys.executable, str(program), tiny])
    two = run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program), tiny]
    )
    assert two[0] == pytest.approx(one[0], rel=1e-9)
    for theirs, ours in zip(two[1], one[1], strict=True):  # type: ignore[call-overload]
        assert theirs == pytest.approx(ours, rel=1e-6, abs=1e-12)

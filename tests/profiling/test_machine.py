"""The description of machines imitated by a folder, and of this one."""

from __future__ import annotations

import json
import platform
from pathlib import Path

from edgekit.profiling.machine import describe_machine, inference_flags, package_version

ZEN3 = "vendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx avx2 fma\n"
A76 = "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\nCPU part\t: 0xd0b\n"


def imitate(root: Path, cpuinfo: str, model: str = "") -> Path:
    (root / "proc/device-tree").mkdir(parents=True)
    (root / "proc/cpuinfo").write_text(cpuinfo)
    (root / "proc/meminfo").write_text("MemTotal:        4000000 kB\nMemFree:          100 kB\n")
    if model:
        (root / "proc/device-tree/model").write_bytes(model.encode() + b"\0")
    return root


def test_a_pc(tmp_path: Path) -> None:
    machine = describe_machine(imitate(tmp_path, ZEN3))
    assert machine.cpu == "AMD EPYC"
    assert machine.flags == ("avx2", "fma")
    assert machine.memory_mb == 3906
    assert machine.board == "desktop"


def test_a_raspberry_pi(tmp_path: Path) -> None:
    machine = describe_machine(imitate(tmp_path, A76, "Raspberry Pi 5 Model B Rev 1.0"))
    assert machine.cpu == "Raspberry Pi 5 Model B Rev 1.0"
    assert machine.flags == ("neon", "fp16", "dotprod")
    assert machine.board == "raspberry-pi-5"


def test_vnni_has_two_names(tmp_path: Path) -> None:
    assert "vnni" in inference_flags(imitate(tmp_path / "a", "flags : avx2 avx_vnni\n"))
    assert "vnni" in inference_flags(imitate(tmp_path / "b", "flags : avx512f avx512_vnni\n"))


def test_without_proc(tmp_path: Path) -> None:
    machine = describe_machine(tmp_path)
    assert machine.memory_mb is None
    assert machine.flags == ()
    assert machine.cpu


def test_this_machine_is_json_and_does_not_name_its_host() -> None:
    text = json.dumps(describe_machine().to_json())
    assert '"numpy"' in text
    if len(platform.node()) > 3:
        assert platform.node() not in text


def test_versions() -> None:
    assert package_version("numpy") is not None
    assert package_version("no-such-distribution") is None

"""The unit file of a service."""

from __future__ import annotations

import os
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import StorageError, UsageError
from edgekit.service import quoted, unit_path, unit_text, write_unit


def text_of(*command: str, **changes: object) -> str:
    settings = {"name": "gate", "folder": Path("/srv"), "user": None, "watchdog_s": 60, "for_user": False} | changes
    return unit_text(command, **settings)  # type: ignore[arg-type]


@given(st.lists(st.text(st.characters(blacklist_categories=["Cs", "Cc"])), min_size=1, max_size=5))
def test_every_argument_stays_one_word(arguments: list[str]) -> None:
    # Systemd's quotes and backslashes are the shell's; it fills in % and $ besides.
    words = shlex.split(" ".join(map(quoted, arguments)))
    assert [word.replace("%%", "%").replace("$$", "$") for word in words] == arguments


def test_a_line_break_would_be_another_directive() -> None:
    with pytest.raises(UsageError, match="line break"):
        text_of("edgekit", "a\nExecStartPre=/bin/evil")


@pytest.mark.parametrize("name", ["", "../x", "a/b", "-x", "a b", "x" * 200])
def test_names_that_are_no_service_s(name: str) -> None:
    with pytest.raises(UsageError, match="cannot be called"):
        unit_path(name, for_user=True)


def test_systemd_understands_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    path = tmp_path / "gate.service"
    arguments = ["--source", "rtsp://h/a%20b", "--mask", 'omg & roi("a b.json")', "--jsonl", "$HOME"]
    path.write_text(text_of(sys.executable, "-m", "edgekit.cli", "run", *arguments, folder=tmp_path, user="root"))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True)
    assert [line for line in done.stderr.splitlines() if "gate.service" in line] == []


def test_a_password_is_for_its_owner_alone(tmp_path: Path) -> None:
    open_path, closed_path = tmp_path / "a" / "open.service", tmp_path / "closed.service"
    write_unit(open_path, text_of("edgekit", "--source", "rtsp://h/stream"))
    write_unit(closed_path, text_of("edgekit", "--source", "rtsp://me:secret@h/stream"))
    assert stat.S_IMODE(open_path.stat().st_mode) == 0o644
    assert stat.S_IMODE(closed_path.stat().st_mode) == 0o600
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "closed.service"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="--user"):
        write_unit(tmp_path / "file" / "x.service", "")


def edgekit(*arguments: object, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgekit.cli", "service", *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, "HOME": str(home)}, cwd=home, capture_output=True, text=True)


def test_install_and_uninstall(tmp_path: Path) -> None:
    done = edgekit("install", "--user", "--name", "gate", "--no-start", "--", "--source", "demo", home=tmp_path)
    assert done.returncode == 0, done.stderr
    path = unit_path("gate", for_user=True, home=tmp_path)
    lines = path.read_text().splitlines()
    assert f"ExecStart={sys.executable} -m edgekit.cli run --source demo" in lines
    assert f"WorkingDirectory={tmp_path}" in lines
    assert "WatchdogSec=60" in lines
    again = edgekit("uninstall", "--user", "--name", "gate", home=tmp_path)
    assert again.returncode == 0, again.stderr
    assert not path.exists()
    assert edgekit("uninstall", "--user", "--name", "gate", home=tmp_path).returncode == 2


def test_a_command_that_run_would_refuse_is_refused_now(tmp_path: Path) -> None:
    done = edgekit("install", "--user", "--", "--sauce", "demo", home=tmp_path)
    assert done.returncode == 2
    assert "--sauce" in done.stderr
    assert not (tmp_path / ".config").exists()

"""``edgekit run`` as a service of systemd: the text of its unit file, and where that belongs.

Restarted for ever, and by the watchdog when frames stop (``edgekit.live.watchdog``). Directives:
https://www.freedesktop.org/software/systemd/man/systemd.service.html.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from edgekit.errors import StorageError, UsageError

SYSTEM_UNITS = Path("/etc/systemd/system")

UNIT = """\
[Unit]
Description=edgekit: objects in a camera ({name})
Wants=network-online.target
After=network-online.target
# A camera that is away for a night is no reason to give up.
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={command}
WorkingDirectory={folder}
{user}Restart=always
RestartSec=5
# A run tells systemd that frames are fresh; this long without news, and it is started again.
WatchdogSec={watchdog_s}
TimeoutStartSec=300
TimeoutStopSec=10
SuccessExitStatus=143
NoNewPrivileges=yes

[Install]
WantedBy={target}
"""


def unit_text(
    command: Sequence[str], *, name: str, folder: Path, user: str | None, watchdog_s: int, for_user: bool
) -> str:
    """The unit file of a service.

    Args:
        command: program and arguments.
        name: of the service, without ``.service``.
        folder: that it runs in; absolute.
        user: that it runs as, who also gets the group ``video``; ``None`` is whoever runs the service manager.
        watchdog_s: seconds without a fresh frame after which it is started again; at least 5.
        for_user: whether it is for a user's service manager instead of the system's.

    Raises:
        UsageError: an argument has a line break, which no unit file can hold, or another argument is no good.
    """
    check_name(name)
    if watchdog_s < 5:
        raise UsageError(
            f"the watchdog needs at least 5 seconds, as a camera may take some to come back; got {watchdog_s}"
        )
    return UNIT.format(
        name=name,
        command=" ".join(map(quoted, command)),
        folder=_as_it_is(str(folder)),
        user=f"User={user}\nSupplementaryGroups=video\n" if user else "",
        watchdog_s=watchdog_s,
        target="default.target" if for_user else "multi-user.target",
    )


def quoted(argument: str) -> str:
    """``argument`` as one word of ``ExecStart``: systemd would split it at blanks, and fill in ``%`` and ``$``.

    Raises:
        UsageError: it has a line break.
    """
    text = _as_it_is(argument).replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", text, re.ASCII):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def unit_path(name: str, *, for_user: bool, home: Path | None = None) -> Path:
    """Where the unit file of service ``name`` belongs."""
    check_name(name)
    folder = (home or Path.home()) / ".config" / "systemd" / "user" if for_user else SYSTEM_UNITS
    return folder / f"{name}.service"


def check_name(name: str) -> None:
    """Raises :class:`UsageError` unless ``name`` can be a service's."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}", name):
        raise UsageError(
            f"a service cannot be called {name!r}: expected letters, digits, '-', '_' and '.', as in edgekit-gate"
        )


def write_unit(path: Path, text: str) -> None:
    """Write a unit file at once; only its owner may read one that has a password in it.

    Raises:
        StorageError: it cannot be written.
    """
    mode = 0o600 if re.search(r"://[^/\s@]*:[^/\s@]*@", text) else 0o644
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            file.write(text)
            os.fchmod(file.fileno(), mode)
        Path(file.name).replace(path)
    except OSError as error:
        raise StorageError(
            f"the unit file {path} cannot be written: {error.strerror or error}.\n"
            "A service of the system needs root: sudo ...; one of your own does not: --user"
        ) from error


def _as_it_is(text: str) -> str:
    if "\n" in text or "\r" in text:
        raise UsageError(f"a service's command cannot have a line break: {text!r}")
    return text.replace("%", "%%")

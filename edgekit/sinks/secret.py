"""Passwords and keys: from a file or the environment, so that they are not in the list of processes or in a log."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from edgekit.errors import UsageError

LARGEST_BYTES = 4096


def read_secret(variable: str, file: Path | None = None) -> str | None:
    """The secret in ``file``, or in the file that ``VARIABLE_FILE`` names, or in ``VARIABLE``; None if there is none.

    A line break at the end of a file does not belong to it. Files are what systemd's ``LoadCredential`` and Docker's
    secrets give.

    Raises:
        UsageError: the file cannot be read, or holds no secret.
    """
    named = os.environ.get(f"{variable}_FILE")
    path = file or (Path(named) if named else None)
    if path is None:
        return os.environ.get(variable) or None
    try:
        with path.open("rb") as opened:
            content = opened.read(LARGEST_BYTES + 1)
        secret = content.decode().rstrip("\r\n")
    except OSError as error:
        raise UsageError(f"the secret in {path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise UsageError(f"the secret in {path} must be text in UTF-8") from None  # its words would quote the secret
    if not secret or len(content) > LARGEST_BYTES or "\n" in secret:
        raise UsageError(f"{path} must hold one secret on one line of at most {LARGEST_BYTES} bytes")
    return secret


def without_secrets(url: str) -> str:
    """``url`` as it may be shown: scheme, host and port. Paths and queries of webhooks are secrets too."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or "?"
        port = f":{parts.port}" if parts.port is not None else ""
    except ValueError:
        return "an unreadable address"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{'/...' if parts.path.strip('/') else ''}"

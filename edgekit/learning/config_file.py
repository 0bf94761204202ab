"""The resolved configuration of a run, written beside its checkpoints."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from edgekit.errors import StorageError


def save_config_file(values: dict[str, Any], output: Path) -> None:
    """Write ``values`` as ``output/config.json``.

    Raises:
        StorageError: disk full or no permission; what was there is untouched.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        temporary = output / f".config.{os.getpid()}.tmp"
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        temporary.replace(output / "config.json")
    except OSError as error:
        raise StorageError(f"the output folder {output} cannot be written: {error.strerror}") from error

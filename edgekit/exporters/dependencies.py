"""The packages that conversion needs, imported on use; an absent one is an error that names the extra."""

from __future__ import annotations

import importlib
from typing import Any

from edgekit.errors import MissingDependencyError

EXTRA = "export"


def load(module: str, *, package: str, purpose: str) -> Any:
    """Import ``module``, which the distribution ``package`` brings; ``purpose`` completes "is needed to ...".

    Raises:
        MissingDependencyError: it is not installed. A package that is there but broken raises its own error.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise MissingDependencyError(package, EXTRA, purpose) from error

"""The browser page of a run and what else it serves over HTTP: picture, charts, zones editor, metrics, health.

=================== ================================================================================================
file                what is in it
=================== ================================================================================================
address.py          ``[HOST]:PORT``
access.py           who may read and write: token, cookie, Host and Origin
connections.py      how many may be connected, and for how long without a request
pictures.py         the newest frame of each camera as JPEG, made only while somebody watches
routes.py           what each path answers
server.py           the thread, its event loop, and the sink that the loop writes to
static/             the page: HTML, CSS and JavaScript without anything from elsewhere
=================== ================================================================================================
"""

from __future__ import annotations

import importlib

from edgekit.errors import MissingDependencyError


def require_aiohttp(purpose: str) -> None:
    """Call before importing from this folder; ``purpose`` completes "is needed to ...".

    Raises:
        MissingDependencyError: there is no aiohttp. One that is there but broken raises its own error.
    """
    try:
        importlib.import_module("aiohttp")
    except ModuleNotFoundError as error:
        if error.name != "aiohttp":
            raise
        raise MissingDependencyError("aiohttp", "view", purpose) from error

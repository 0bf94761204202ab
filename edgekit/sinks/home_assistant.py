"""Home Assistant's MQTT discovery (https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery).

Each camera becomes a device with a binary sensor of occupancy for every class, a count of all objects, and frame rate
and active share as diagnostics. All read the camera's retained status topic.
"""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

from edgekit.sinks.camera_name import slug

DISCOVERY_PREFIX = "homeassistant"

OPEN = "{{ 'online' if value_json.state == 'open' else 'offline' }}"
"""A camera that delivers nothing sees nobody; that is not the same as an empty yard."""


def discovery(
    prefix: str, camera: str, classes: tuple[str, ...], *, model: str, discovery_prefix: str = DISCOVERY_PREFIX
) -> dict[str, dict[str, Any]]:
    """Topic -> configuration; each is to be published retained, as JSON.

    Args:
        prefix: of the topics; ``PREFIX/status`` says whether edgekit runs, ``PREFIX/CAMERA/status`` holds the values.
        camera: as in the topics.
        classes: of the detector.
        model: what Home Assistant shows as the device's model.
    """
    device = f"{slug(prefix)}_{camera}"
    common: dict[str, Any] = {
        "state_topic": f"{prefix}/{camera}/status",
        "availability": [
            {"topic": f"{prefix}/status"},
            {"topic": f"{prefix}/{camera}/status", "value_template": OPEN},
        ],
        "availability_mode": "all",
        "device": {"identifiers": [device], "name": camera, "manufacturer": "edgekit", "model": model},
        "origin": {"name": "edgekit", "sw_version": _version()},
    }
    entities: dict[str, dict[str, Any]] = {
        f"binary_sensor/{device}/{slug(name)}": {
            "name": name,
            "device_class": "occupancy",
            "value_template": f"{{{{ value_json.occupancy[{json.dumps(name)}] }}}}",
        }
        for name in classes
    }
    entities[f"sensor/{device}/count"] = {
        "name": "Count",
        "state_class": "measurement",
        "icon": "mdi:counter",
        "value_template": "{{ value_json.count }}",
        "json_attributes_topic": f"{prefix}/{camera}/status",
        "json_attributes_template": "{{ value_json.counts | tojson }}",
    }
    entities[f"sensor/{device}/fps"] = {
        "name": "Frame rate",
        "state_class": "measurement",
        "unit_of_measurement": "fps",
        "entity_category": "diagnostic",
        "value_template": "{{ value_json.fps }}",
    }
    entities[f"sensor/{device}/active_share"] = {
        "name": "Active share",
        "state_class": "measurement",
        "unit_of_measurement": "%",
        "entity_category": "diagnostic",
        "value_template": "{{ (100 * value_json.active_share) | round(1) }}",
    }
    return {
        f"{discovery_prefix}/{path}/config": {"unique_id": path.replace("/", "_"), **common, **entity}
        for path, entity in entities.items()
    }


def _version() -> str:
    try:
        return importlib.metadata.version("edgekit-vision")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"

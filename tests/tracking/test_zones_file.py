"""A zones file that changes while it is used."""

from __future__ import annotations

import json
import logging
import os

import numpy as np
import pytest

from edgekit.errors import StorageError, UsageError
from edgekit.tracking.zones import Line, Zone, Zones, read_zones
from edgekit.tracking.zones_file import ZonesFile, save_zones

TRIANGLE = [[0, 0], [1, 0], [1, 1]]


def zones(*names, lines=()):
    return Zones(zones=tuple(Zone(name=name, corners=np.array(TRIANGLE, float)) for name in names), lines=lines)


def names(file):
    return [zone.name for zone in file.zones.zones]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "zones.json"
    save_zones(path, zones("old"))
    return path


def test_it_is_read_again_only_when_it_was_changed(path):
    file = ZonesFile(path)
    assert names(file) == ["old"]
    assert not file.refresh()
    save_zones(path, zones("new", "other"))
    assert file.refresh()
    assert names(file) == ["new", "other"]
    assert not file.refresh()


def test_a_change_of_the_same_length_within_a_tick_of_the_clock_is_seen(path):
    file = ZonesFile(path)
    stamp = path.stat()
    save_zones(path, zones("new"))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert path.stat().st_size == stamp.st_size
    assert file.refresh()
    assert names(file) == ["new"]


def test_a_broken_file_leaves_the_zones_and_is_said_once(path, caplog):
    file = ZonesFile(path)
    path.write_text('{"polygons": [')
    with caplog.at_level(logging.WARNING, "edgekit"):
        assert not any(file.refresh() for _ in range(5))
    assert names(file) == ["old"]
    (record,) = caplog.records
    assert "the zones stay as they were" in record.message
    assert "\n" not in record.message
    save_zones(path, zones("mended"))
    assert file.refresh()
    assert names(file) == ["mended"]


def test_a_file_that_is_gone_leaves_the_zones_and_may_come_back(path, caplog):
    file = ZonesFile(path)
    path.unlink()
    assert not any(file.refresh() for _ in range(3))
    assert len(caplog.records) == 1
    assert names(file) == ["old"]
    save_zones(path, zones("back"))
    assert file.refresh()
    assert names(file) == ["back"]


def test_of_several_users_of_a_file_one_complains(path, caplog):
    caplog.set_level(logging.WARNING, logger="edgekit")
    mask, events = ZonesFile(path), ZonesFile(path)
    for state in ("{", "[", '{"polygons": 1}'):
        path.write_text(state)
        mask.refresh()
        events.refresh()
    assert len(caplog.records) == 3
    path.unlink()
    mask.refresh()
    events.refresh()
    assert len(caplog.records) == 4
    save_zones(path, zones("back"))
    assert mask.refresh()
    assert events.refresh()
    path.unlink()
    mask.refresh()
    assert len(caplog.records) == 5


def test_at_the_start_it_must_be_there(tmp_path):
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        ZonesFile(tmp_path / "absent.json")


def test_saving_replaces_in_one_step_and_keeps_permissions(path):
    path.chmod(0o640)
    before = path.open("rb")  # a reader in the middle of the old file
    line = Line(name="gate", start=(0, 0.5), end=(1, 0.5))
    save_zones(path, zones("new", lines=(line,)))
    with before:
        assert json.loads(before.read())["names"] == ["old"]
    assert read_zones(path).lines == (line,)
    assert path.stat().st_mode & 0o777 == 0o640
    assert [entry.name for entry in path.parent.iterdir()] == ["zones.json"]


def test_a_new_file_may_be_read_by_others(tmp_path):
    save_zones(tmp_path / "new.json", zones())
    assert (tmp_path / "new.json").stat().st_mode & 0o777 == 0o644


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StorageError, match=r"cannot be written: No such file(.|\n)*as it was before"):
        save_zones(tmp_path / "absent" / "zones.json", zones())


def test_what_cannot_be_replaced_leaves_nothing_behind(tmp_path):
    folder = tmp_path / "zones.json"
    (folder / "inside").mkdir(parents=True)
    with pytest.raises(StorageError, match="cannot be written"):
        save_zones(folder, zones())
    assert [entry.name for entry in tmp_path.iterdir()] == ["zones.json"]

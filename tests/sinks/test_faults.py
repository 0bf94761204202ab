"""Faults: counted all, logged seldom, on one line."""

from __future__ import annotations

import pytest

from edgekit.sinks.faults import LONGEST_DETAIL, MOST_KINDS, Faults, one_line


def test_the_same_fault_is_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults(quiet_s=3600)
    for _ in range(5):
        faults.report("mqtt", "refused", "no connection:\nNot authorized\x1b[31m")
    faults.report("mqtt", "lost", "gone")
    assert caplog.messages == ["mqtt: no connection: Not authorized [31m", "mqtt: gone"]
    assert faults.counts() == {("mqtt", "refused"): 5, ("mqtt", "lost"): 1}


def test_what_was_not_logged_is_told_later(caplog: pytest.LogCaptureFixture) -> None:
    faults = Faults(quiet_s=0.0)
    faults.report("a", "b", "c")
    faults._quiet_s = 3600
    faults.report("a", "b", "c")
    faults._quiet_s = 0.0
    faults.report("a", "b", "c")
    assert caplog.messages == ["a: c", "a: c (1 more before)"]


def test_kinds_are_bounded() -> None:
    faults = Faults(quiet_s=3600)
    for number in range(10 * MOST_KINDS):
        faults.report("http", f"reason {number}", "")
    faults.report("new", "thing", "")
    counts = faults.counts()
    assert len(counts) <= MOST_KINDS + 2
    assert sum(counts.values()) == 10 * MOST_KINDS + 1
    assert counts["other", "other"] == 1


def test_lines_are_bounded() -> None:
    assert len(one_line("x" * 10_000)) == LONGEST_DETAIL

"""The status line: one line on terminals, nothing elsewhere."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from edgekit.sinks.status import CLEAR_LINE, StatusLine, describe

if TYPE_CHECKING:
    from conftest import MakeFrame, MakeResult

CLASSES = ("person", "cat")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_words(make_frame: MakeFrame, make_result: MakeResult) -> None:
    result = make_result([[0, 0, 5, 5]] * 3, [1, 0, 0])
    line = describe(make_frame(41), result, CLASSES, fps=14.93)
    assert line == "frame 41  14.9 fps  5.0 ms  active 50 %  person 2, cat 1"
    assert describe(make_frame(0), make_result([]), CLASSES, fps=None) == "frame 0  5.0 ms  active 50 %  nothing"


def test_terminal(make_frame: MakeFrame, make_result: MakeResult) -> None:
    terminal = Terminal()
    status = StatusLine(terminal, CLASSES)
    for index in range(5):  # faster than the line is redrawn
        status.write(make_frame(index), make_result())
    text = terminal.getvalue()
    assert text.startswith(f"{CLEAR_LINE}frame 0")
    assert text.count("frame") == 1
    assert "\n" not in text
    status.close()
    assert terminal.getvalue().endswith(CLEAR_LINE)


def test_file(make_frame: MakeFrame, make_result: MakeResult) -> None:
    stream = io.StringIO()
    status = StatusLine(stream, CLASSES)
    status.write(make_frame(), make_result())
    status.close()
    assert stream.getvalue() == ""

"""A Ctrl-C that something swallowed is found by the next check."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgekit import interruption
from edgekit.bundle.writing import BundleWriter


@pytest.fixture(autouse=True)
def usual_ctrl_c() -> Iterator[None]:
    """Python's own handler; what a shell starts in its background begins with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def swallowed() -> None:
    """Ctrl-C where everything is caught, as in ``copyreg._slotnames``."""
    with contextlib.suppress(BaseException):
        signal.raise_signal(signal.SIGINT)


def test_it_is_raised_again_at_the_next_check() -> None:
    with interruption.remember():
        interruption.check()
        swallowed()
        with pytest.raises(KeyboardInterrupt):
            interruption.check()
    interruption.check()  # the next command starts afresh
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_bundle_is_not_written_after_it(tmp_path: Path) -> None:
    with interruption.remember(), BundleWriter(tmp_path / "x.edgekit") as writer:
        writer.add_bytes("notes.txt", b"")
        swallowed()
        with pytest.raises(KeyboardInterrupt):
            writer.add_bytes("more.txt", b"")
    assert list(tmp_path.iterdir()) == []


def test_other_handlers_and_other_threads_are_left_alone() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruption.remember():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)

    seen = []

    def run() -> None:
        with interruption.remember():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler]


def test_a_folder_that_was_just_made_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "chmod", interrupted)
    with pytest.raises(KeyboardInterrupt), BundleWriter(tmp_path / "x.edgekit"):
        pass
    assert list(tmp_path.iterdir()) == []

"""Any sink on a thread of its own: a slow or dead one never slows the loop.

What a sink's error does:

==================== ================================================================================================
error                consequence
==================== ================================================================================================
``BrokenPipeError``  the next ``write`` raises it: who reads our output has gone, and the run ends as it always did
``StorageError``     this sink stops (a full disk does not empty itself), the others go on; one line, one fault
anything else        the frame counts as failed, and the sink is tried again after a pause that doubles up to 30 s
any, ``essential``   the next ``write``, or ``close``, raises it: a run without any output is of no use
==================== ================================================================================================
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgekit.errors import EdgekitError, StorageError
from edgekit.sinks import Sink
from edgekit.sinks.faults import Faults
from edgekit.sinks.outbox import Counts, Outbox, WhenFull

if TYPE_CHECKING:
    from edgekit.cameras import Frame
    from edgekit.pipeline import FrameResult

CAPACITY = 8
"""Frames: at 15 a second half a second, which outlasts a disk's hiccup; more would only hold memory."""

CLOSING_S = 1.5
"""A service that was told to stop is killed by the hard way soon after."""

GRACE_S = 0.2
"""For sinks that close just in time to say so."""

DRAINING_SHARE = 0.6
"""Of the time for closing; the rest is for the sink's own end, such as the index of a video."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 30.0


class Queued:
    """Runs ``sink`` on its own thread behind a bounded queue; itself a sink.

    Args:
        sink: is used by the thread alone from now on, and closed by it.
        name: in logs and metrics, e.g. ``jsonl``.
        capacity: the most frames that wait.
        when_full: ``oldest`` (a live picture or status: the newest matters), ``newest`` (a log: what is in it stays
            without gaps before the drop), or ``wait`` for sources that have no clock, such as a video file, all of
            whose frames belong into the output.
        essential: an error ends the run; for the only output.
        faults: where errors are counted.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        name: str,
        capacity: int = CAPACITY,
        when_full: WhenFull = "oldest",
        essential: bool = False,
        faults: Faults | None = None,
    ) -> None:
        self.name = name
        self._sink, self._essential, self._when_full = sink, essential, when_full
        self._faults = faults or Faults()
        self._outbox: Outbox[tuple[Frame, FrameResult]] = Outbox(capacity, when_full=when_full)
        self._error: BaseException | None = None
        self._stopped = False
        self._drain_until_s = self._deadline_s = float("inf")
        self._thread = threading.Thread(target=self._run, name=f"sink {name}", daemon=True)
        self._thread.start()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Hand over one frame; returns at once, unless the queue waits when full.

        Raises:
            BrokenPipeError: the reader of the sink's output went away.
            EdgekitError, OSError...: whatever the sink raised, if it is essential.
        """
        self._raise_error()
        self._outbox.offer((frame, result))

    def counts(self) -> Counts:
        """What became of the frames so far."""
        return self._outbox.counts()

    @property
    def stopped(self) -> bool:
        """Whether an error has ended this sink for good."""
        return self._stopped

    def begin_closing(self, within_s: float | None) -> None:
        """Take no more frames, and finish those that wait; what is left after ``within_s`` seconds is dropped."""
        if within_s is not None:
            now = time.monotonic()
            self._drain_until_s, self._deadline_s = now + DRAINING_SHARE * within_s, now + within_s
        self._outbox.close()

    def close(self, *, within_s: float | None = None) -> None:
        """Finish what waits, and close the sink.

        Args:
            within_s: what is left after so many seconds is dropped and counted, and a sink that hangs is left behind.
                The default is 1.5 s, and no limit where the source waited for the sink.

        Raises:
            EdgekitError, OSError...: whatever the sink raised, if it is essential.
        """
        if within_s is None and self._when_full != "wait":
            within_s = CLOSING_S
        if not self._outbox.closed:
            self.begin_closing(within_s)
        left_s = self._deadline_s - time.monotonic()
        self._thread.join(None if left_s == float("inf") else max(0.0, left_s))
        if self._thread.is_alive():
            self._outbox.drop_all()
            self._faults.report(self.name, "hangs", "did not finish in time; what it had not written yet is lost")
        self._raise_error()

    def _raise_error(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None  # once: the stack that unwinds closes this sink too
            raise error

    def _run(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            taken = self._outbox.take(timeout_s=60.0)
            if taken is None:
                if self._outbox.closed:
                    break
                continue
            if time.monotonic() > self._drain_until_s:
                self._outbox.put_back([taken])
                self._outbox.drop_all()
                break
            try:
                self._sink.write(*taken)
            except Exception as error:
                self._outbox.failed()
                if self._ends(error):
                    break
                self._outbox.rest(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                self._outbox.written()
                pause_s = FIRST_PAUSE_S
            finally:
                del taken  # a picture is not held while nothing comes
        self._close_sink()

    def _ends(self, error: Exception) -> bool:
        """Note an error of the sink; whether it was its last."""
        if isinstance(error, BrokenPipeError) or self._essential:
            self._error = error
        else:
            self._faults.report(self.name, _reason(error), _words(error))
        if isinstance(error, BrokenPipeError | StorageError) or self._essential:
            self._stopped = True
            self._outbox.close()
            self._outbox.fail_all()
        return self._stopped

    def _close_sink(self) -> None:
        try:
            self._sink.close()
        except Exception as error:
            self._stopped = True
            if self._essential:
                self._error = self._error or error
            else:
                self._faults.report(self.name, _reason(error), _words(error))


def close_together(sinks: Iterable[Sink], *, within_s: float | None = CLOSING_S) -> None:
    """Close all sinks of a run in one span of time, each on a thread of its own.

    Args:
        within_s: the time that all have; what hangs is left behind. None waits for everything, as after the last frame
            of a file, all of which belongs into the outputs.

    Raises:
        EdgekitError, OSError...: the first error, after all are closed.
    """
    waiting = list(sinks)
    for sink in waiting:
        if isinstance(sink, Queued):
            sink.begin_closing(within_s)
    errors: list[Exception] = []
    threads = [threading.Thread(target=_close, args=(sink, errors), daemon=True) for sink in waiting]
    for thread in threads:
        thread.start()
    end_s = None if within_s is None else time.monotonic() + within_s + GRACE_S
    for thread in threads:
        thread.join(None if end_s is None else max(0.0, end_s - time.monotonic()))
    if errors:
        raise errors[0]


def _close(sink: Sink, errors: list[Exception]) -> None:
    try:
        sink.close()
    except Exception as error:
        errors.append(error)


def _reason(error: Exception) -> str:
    if isinstance(error, StorageError):
        return "storage"
    return "failed" if isinstance(error, EdgekitError | OSError) else "unexpected"


def _words(error: Exception) -> str:
    text = str(error) if isinstance(error, EdgekitError) else f"{type(error).__name__}: {error}"
    return text.partition("\n")[0] if isinstance(error, StorageError) else text

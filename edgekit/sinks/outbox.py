"""A bounded queue between the loop, which must not wait, and a thread that delivers; its counts always add up."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

Item = TypeVar("Item")

WhenFull = Literal["oldest", "newest", "wait"]
"""What gives way when the queue is full: its oldest item, the new one, or the caller, who waits."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What became of the items: ``offered == written + dropped + failed + waiting``, at any moment."""

    offered: int = 0
    written: int = 0
    dropped: int = 0
    """Gave way to others, came after the end, or were left when the time for closing was over."""

    failed: int = 0
    """The receiver would not have them."""

    waiting: int = 0
    """In the queue or just being delivered."""


class Outbox(Generic[Item]):
    """A queue for one delivering thread; any thread may offer.

    An item that was taken is *in hand*: it still counts as waiting until the thread says what became of it.

    Args:
        capacity: the most items that wait, those in hand included.
        when_full: what gives way. Items in hand never do; if there are no others, the new one does.
    """

    def __init__(self, capacity: int, *, when_full: WhenFull = "oldest") -> None:
        """Raises ``ValueError`` unless ``capacity`` is at least 1."""
        if capacity < 1:
            raise ValueError(f"a queue holds at least 1 item, got a capacity of {capacity}")
        self._capacity, self._when_full = capacity, when_full
        self._items: deque[Item] = deque()
        self._in_hand = 0
        self._offered = self._written = self._dropped = self._failed = 0
        self._closed = False
        self._changed = threading.Condition()

    def offer(self, item: Item) -> bool:
        """Add an item; whether it is in the queue now. Waits only with ``when_full="wait"``."""
        with self._changed:
            self._offered += 1
            if self._when_full == "wait":
                self._changed.wait_for(lambda: self._closed or self._waiting() < self._capacity)
            if self._closed:
                self._dropped += 1
                return False
            if self._waiting() >= self._capacity:
                self._dropped += 1
                if self._when_full != "oldest" or not self._items:
                    return False
                self._items.popleft()
            self._items.append(item)
            self._changed.notify_all()
            return True

    def take(self, *, timeout_s: float = 0.0) -> Item | None:
        """The oldest item, which is in hand from now on; None when none comes in time or the outbox closes."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout_s)
            if not self._items:
                return None
            self._in_hand += 1
            return self._items.popleft()

    def written(self, number: int = 1) -> None:
        """So many items in hand have been delivered."""
        with self._changed:
            self._let_go(number)
            self._written += number

    def failed(self, number: int = 1) -> None:
        """So many items in hand will never be delivered."""
        with self._changed:
            self._let_go(number)
            self._failed += number

    def put_back(self, items: Iterable[Item]) -> None:
        """Items in hand, oldest first, that are to be delivered again before all others."""
        with self._changed:
            back = list(items)
            self._let_go(len(back))
            self._items.extendleft(reversed(back))

    def fail_all(self) -> None:
        """Everything in the queue will never be delivered."""
        with self._changed:
            self._failed += len(self._items)
            self._items.clear()
            self._changed.notify_all()

    def drop_all(self) -> int:
        """Empty the queue; how many were in it."""
        with self._changed:
            number = len(self._items)
            self._dropped += number
            self._items.clear()
            self._changed.notify_all()
            return number

    def close(self) -> None:
        """Take no more: what is offered from now on is dropped, and nobody waits. What is inside stays to be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def wait_until_empty(self, timeout_s: float) -> bool:
        """Wait until nothing waits any more; whether that came in time."""
        with self._changed:
            return self._changed.wait_for(lambda: self._waiting() == 0, timeout_s)

    def rest(self, seconds: float) -> None:
        """Sleep, unless the outbox is or gets closed."""
        end_s = time.monotonic() + seconds
        with self._changed:
            while not self._closed and (left := end_s - time.monotonic()) > 0:
                self._changed.wait(left)

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._closed

    def counts(self) -> Counts:
        """What became of all items so far."""
        with self._changed:
            return Counts(
                offered=self._offered,
                written=self._written,
                dropped=self._dropped,
                failed=self._failed,
                waiting=self._waiting(),
            )

    def _waiting(self) -> int:
        return len(self._items) + self._in_hand

    def _let_go(self, number: int) -> None:
        assert 0 <= number <= self._in_hand, (number, self._in_hand)
        self._in_hand -= number
        self._changed.notify_all()

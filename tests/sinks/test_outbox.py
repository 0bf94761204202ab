"""The bounded queue: what gives way, and that the counts add up whatever happens."""

from __future__ import annotations

import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.sinks.outbox import Counts, Outbox, WhenFull


def adds_up(counts: Counts) -> bool:
    return counts.offered == counts.written + counts.dropped + counts.failed + counts.waiting


def rest_of(outbox: Outbox[int]) -> list[int]:
    items = []
    while (item := outbox.take()) is not None:
        items.append(item)
    return items


@pytest.mark.parametrize(("when_full", "left"), [("oldest", [2, 3, 4]), ("newest", [0, 1, 2])])
def test_who_gives_way(when_full: WhenFull, left: list[int]) -> None:
    outbox: Outbox[int] = Outbox(3, when_full=when_full)
    for number in range(5):
        outbox.offer(number)
    assert outbox.counts() == Counts(offered=5, dropped=2, waiting=3)
    assert rest_of(outbox) == left


def test_items_in_hand_never_give_way() -> None:
    outbox: Outbox[int] = Outbox(2)
    outbox.offer(0)
    outbox.offer(1)
    assert (outbox.take(), outbox.take()) == (0, 1)
    assert not outbox.offer(2)
    outbox.put_back([0, 1])
    assert rest_of(outbox) == [0, 1]
    assert outbox.counts() == Counts(offered=3, dropped=1, waiting=2)


def test_waiting_ends_with_room_and_with_the_end() -> None:
    outbox: Outbox[int] = Outbox(1, when_full="wait")
    assert outbox.offer(0)
    answers: list[bool] = []
    caller = threading.Thread(target=lambda: answers.extend((outbox.offer(1), outbox.offer(2))))
    caller.start()
    assert outbox.take(timeout_s=5) == 0
    assert not answers  # 0 is in hand and still takes the place
    outbox.written()
    assert outbox.take(timeout_s=5) == 1
    outbox.close()
    caller.join(5)
    assert answers == [True, False]
    outbox.written()
    assert outbox.counts() == Counts(offered=3, written=2, dropped=1)


def test_rest_is_cut_short_by_the_end() -> None:
    outbox: Outbox[int] = Outbox(1)
    threading.Timer(0.05, outbox.close).start()
    start_s = time.monotonic()
    outbox.rest(30)
    assert time.monotonic() - start_s < 5


def test_a_queue_holds_something() -> None:
    with pytest.raises(ValueError, match="at least 1 item, got a capacity of 0"):
        Outbox(0)


ACTIONS = ("offer", "take", "written", "failed", "put_back", "fail_all", "drop_all", "close")


@given(
    capacity=st.integers(1, 5),
    when_full=st.sampled_from(["oldest", "newest"]),
    actions=st.lists(st.sampled_from(ACTIONS), max_size=60),
)
def test_counts_always_add_up_and_order_stays(capacity: int, when_full: WhenFull, actions: list[str]) -> None:
    outbox: Outbox[int] = Outbox(capacity, when_full=when_full)
    hand: list[int] = []
    done: list[int] = []
    for number, action in enumerate(actions):
        if action == "offer":
            outbox.offer(number)
        elif action == "take":
            if (item := outbox.take()) is not None:
                hand.append(item)
        elif action in ("written", "failed"):
            if hand:
                done.append(hand.pop(0))
                getattr(outbox, action)()
        elif action == "put_back":
            outbox.put_back(hand)
            hand.clear()
        else:
            getattr(outbox, action)()
        assert adds_up(outbox.counts())
        assert outbox.counts().waiting <= capacity
    everything = done + hand + rest_of(outbox)
    assert everything == sorted(everything)
    assert len(set(everything)) == len(everything)

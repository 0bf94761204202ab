"""The published plateau schedule, on losses written down here."""

from __future__ import annotations

from edgekit.learning.plateau import LossPlateau


def drops(losses: list[float], windows: tuple[int, ...]) -> list[int]:
    plateau, counts = LossPlateau(windows), []
    for loss in losses:
        plateau.step(loss)
        counts.append(plateau.drops)
    return counts


def test_a_flat_loss_drops_the_rate_after_each_window_and_no_more() -> None:
    counts = drops([1.0] * 40, (5, 10))
    # The first step is a minimum; a drop is an event too, and starts the next window.
    assert [counts.index(1), counts.index(2)] == [5, 15]
    assert counts[-1] == 2


def test_a_falling_loss_never_drops_it() -> None:
    assert drops([1.0 / (step + 1) for step in range(500)], (5,))[-1] == 0


def test_one_low_loss_is_no_event() -> None:
    # Each is lower than the one before it, and the average of a hundred steps rises.
    noisy = [0.5 - 1e-3 * step if step % 10 == 0 else 1.0 + 1e-2 * step for step in range(200)]
    assert drops(noisy, (150,)).index(1) == 150


def test_it_goes_on_where_it_stopped() -> None:
    losses = [2.0 - 0.01 * min(step, 70) for step in range(300)]
    whole, first = LossPlateau((40, 60)), LossPlateau((40, 60))
    for step, loss in enumerate(losses):
        whole.step(loss)
        if step < 130:
            first.step(loss)
    second = LossPlateau((40, 60))
    second.load_state(first.state())
    for loss in losses[130:]:
        second.step(loss)
    assert whole.state() == second.state()
    assert whole.drops > 0

import pytest

from edgekit.profiling.interleaved import interleave


def test_rivals_take_turns_and_the_first_run_of_a_turn_does_not_count():
    calls = []
    times = interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2, burst=3)
    assert "".join(calls) == "aaaabbbb" * 2
    assert {name: len(samples) for name, samples in times.items()} == {"a": 6, "b": 6}
    assert all(sample >= 0 for samples in times.values() for sample in samples)


@pytest.mark.parametrize(("rounds", "burst"), [(0, 1), (1, 0)])
def test_nothing_to_measure(rounds, burst):
    with pytest.raises(ValueError, match="at least one round and one run"):
        interleave({}, rounds=rounds, burst=burst)

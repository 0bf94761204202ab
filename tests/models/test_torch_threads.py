"""PyTorch's threads, and what is said where it is not installed."""

from __future__ import annotations

import sys

import pytest

from edgekit.errors import MissingDependencyError
from edgekit.models.torch_threads import use_threads


def test_threads_are_set_or_left() -> None:
    torch = pytest.importorskip("torch", reason="its threads are counted")
    before = torch.get_num_threads()
    use_threads(None)
    assert torch.get_num_threads() == before
    use_threads(before + 1)
    assert torch.get_num_threads() == before + 1
    torch.set_num_threads(before)


def test_without_pytorch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"torch is needed to segment pictures by words(.|\n)*\[segment\]"):
        use_threads(1)

"""PyTorch modules behind the engine protocol."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import EngineError

torch = pytest.importorskip("torch", reason="needs torch")

from edgekit.backends.torch import TorchEngine, load_pair  # noqa: E402
from edgekit.models.registry import build  # noqa: E402

IMAGE = np.zeros((1, 3, 64, 64), np.float32)


def engine_of(module: torch.nn.Module, threads: int = 1) -> TorchEngine:
    return TorchEngine(module, "omg", inputs=("image",), outputs=("objectness",), threads=threads)


def test_the_pair_of_a_model() -> None:
    model = build("mobilenetv2-ssdlite-omg", ("a", "b"), size=64).eval()
    omg, detector = load_pair(model, threads=1)
    assert omg.name == f"torch {torch.__version__} CPU"
    assert omg.run({"image": IMAGE})["objectness"].shape == (1, 1, 4, 4)
    outputs = detector.run({"image": IMAGE, "mask": np.zeros((1, 1, 4, 4), np.float32)})
    assert list(outputs) == ["class_logits", "box_offsets"]
    assert not outputs["class_logits"].any()


def test_a_model_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="the omg module is in training mode"):
        load_pair(build("mobilenetv2-ssdlite-omg", ("a",), size=64), threads=1)


def test_threads_are_the_caller_s_afterwards() -> None:
    before = torch.get_num_threads()
    seen = []
    module = torch.nn.Conv2d(3, 1, 1).eval()
    module.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
    engine_of(module, threads=before + 1).run({"image": IMAGE})
    assert seen == [before + 1]
    assert torch.get_num_threads() == before


def test_a_failure_inside_torch() -> None:
    with pytest.raises(EngineError, match="torch could not run omg: Given groups=1, weight of size"):
        engine_of(torch.nn.Conv2d(4, 1, 1).eval()).run({"image": IMAGE})


def test_nan_weights_are_named() -> None:
    module = torch.nn.Conv2d(3, 1, 1).eval()
    torch.nn.init.constant_(module.weight, float("nan"))
    with pytest.raises(EngineError, match="the output 'objectness' of omg holds NaN or infinity"):
        engine_of(module).run({"image": IMAGE})

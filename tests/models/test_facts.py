"""The generated table of parameters and MACs against the networks themselves."""

from __future__ import annotations

import pytest

from edgekit.errors import UsageError
from edgekit.models.facts import STAGES, ModelFacts, count_facts, find_facts, load_facts
from edgekit.models.registry import MODELS, build


def by_stage(facts: ModelFacts) -> dict[str, tuple[int, int]]:
    return {stage.name: (stage.parameters, stage.macs) for stage in facts.stages}


@pytest.mark.parametrize("name", MODELS)
def test_the_table_is_fresh(name: str) -> None:
    pytest.importorskip("torch", reason="counting needs PyTorch: pip install 'edgekit-vision[train]'")
    assert find_facts(name) == count_facts(name), "run: python scripts/model_facts.py"


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_belongs_to_one_stage(name: str) -> None:
    torch = pytest.importorskip("torch", reason="counting needs PyTorch: pip install 'edgekit-vision[train]'")
    with torch.device("meta"):
        model = build(name, ("one", "two"))
    staged = [id(item) for modules in STAGES[name](model).values() for part in modules for item in part.parameters()]
    assert sorted(staged) == sorted(id(item) for item in model.parameters())


def test_the_stem_by_hand() -> None:
    parameters, macs = by_stage(find_facts("mobilenetv2-ssdlite-omg"))["stem"]
    assert parameters == 3 * 32 * 9 + 2 * 32  # convolution, scale and shift
    assert macs == 160 * 160 * 32 * 3 * 9


def test_the_detector_is_the_published_one() -> None:
    """Table 6 of arXiv 1801.04381 says 0.8 GMAC with 91 classes; class heads are what 20 classes make smaller."""
    facts = find_facts("mobilenetv2-ssdlite-omg")
    stages = by_stage(facts)
    depthwise = 400 * 576 * 9 + 100 * 1280 * 9 + (25 * 512 + 9 * 256 + 4 * 256 + 128) * 9
    per_class = (stages["class heads"][1] - depthwise) // facts.classes
    assert facts.macs - stages["omg"][1] + 71 * per_class == pytest.approx(0.8e9, rel=0.02)


def test_omg_is_within_its_budget() -> None:
    assert by_stage(find_facts("mobilenetv2-ssdlite-omg"))["omg"][1] <= 60_000_000


def test_an_unknown_network() -> None:
    with pytest.raises(UsageError, match="no network is called 'mobilenetv2-ssdlite'; did you mean"):
        find_facts("mobilenetv2-ssdlite")
    with pytest.raises(UsageError, match="no network is called 'zzz'; there are: mobilenetv2"):
        find_facts("zzz")


def test_the_table_has_every_network() -> None:
    assert [facts.name for facts in load_facts()] == list(MODELS)

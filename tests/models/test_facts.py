"""The generated table of weights, parameters and MACs against the networks themselves and what was published."""

from __future__ import annotations

import subprocess
import sys

import pytest

from edgekit.errors import UsageError
from edgekit.models.facts import ModelFacts, StageFacts, find_facts, load_facts
from edgekit.models.registry import MODELS, NETWORKS

NEEDS_TORCH = "counting needs PyTorch: pip install 'edgekit-vision[train]'"

# Weights without biases, and MMAC at 1056x640: of 9.0 and 9.1, whole and compressed (arXiv 1608.08021, table 1).
SHARED = {
    "conv1_1": (2_352, 397.39),
    "conv2_1": (11_072, 467.68),
    "conv2_2": (9_792, 413.61),
    "conv2_3": (9_792, 413.61),
    "conv3_1": (44_288, 467.68),
    "conv3_2": (39_168, 413.61),
    "conv3_3": (39_168, 413.61),
    "conv3_4": (39_168, 413.61),
    "conv4_1": (247_168, 652.52),
    "conv4_2": (205_184, 541.69),
    "conv4_3": (205_184, 541.69),
    "conv4_4": (205_184, 541.69),
    "conv5_1": (573_440, 378.47),
    "conv5_2": (417_792, 275.74),
    "conv5_3": (417_792, 275.74),
    "conv5_4": (417_792, 275.74),
    "upsample": (6_144, 4.06),
    "convf": (393_216, 1038.09),
}
RPN = {"9.0": (499_968, 1319.92), "9.1": (539_136, 1423.32)}
HEAD = {"": (92_704_768, 18_540.95), "-compressed": (16_158_720, 3_231.74)}

# Weights, parameters with biases and Scale layers, and MMAC with 200 RoIs.
TOTAL = {
    "pvanet-9.0": (96_488_432, 96_532_415, 27_787),
    "pvanet-9.0-compressed": (19_942_384, None, 12_478),
    "pvanet-9.1": (96_527_600, 96_574_197, 27_891),
    "pvanet-9.1-compressed": (19_981_552, 20_020_981, 12_581),
    "pvanet-lite": (9_245_696, 9_264_703, 4_547),
}


def by_stage(facts: ModelFacts) -> dict[str, StageFacts]:
    return {stage.name: stage for stage in facts.stages}


def counts(facts: ModelFacts) -> dict[str, tuple[int, float]]:
    """Weights and MMAC of each stage, the latter to two decimals."""
    return {stage.name: (stage.weights, round(stage.macs / 1e6, 2)) for stage in facts.stages}


def together(stages: list[StageFacts]) -> tuple[int, float]:
    """Weights and MMAC of several stages."""
    return sum(stage.weights for stage in stages), sum(stage.macs for stage in stages) / 1e6


@pytest.mark.parametrize("name", NETWORKS)
def test_the_table_is_fresh_and_every_parameter_belongs_to_one_stage(name: str) -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    from edgekit.models.stages import count_facts, divide

    assert find_facts(name) == count_facts(name), "run: python scripts/model_facts.py"
    with torch.device("meta"):
        network = NETWORKS[name].build()
    stages = divide(network, NETWORKS[name]).stages
    staged = [id(item) for modules in stages.values() for part in modules for item in part.parameters()]
    assert sorted(staged) == sorted(id(item) for item in network.parameters())


def test_a_network_that_nothing_divides() -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    from edgekit.models.stages import divide

    with pytest.raises(TypeError, match="does not say how a ReLU is divided"):
        divide(torch.nn.ReLU(), NETWORKS["pvanet-9.0"])


def test_the_rois_are_those_that_detecting_proposes() -> None:
    pytest.importorskip("numpy")
    from edgekit.models.pvanet_rois import PROPOSALS

    assert {NETWORKS[name].rois for name in TOTAL} == {PROPOSALS}


@pytest.mark.parametrize("form", HEAD)
@pytest.mark.parametrize("variant", RPN)
def test_pvanet_is_the_published_one_stage_by_stage(variant: str, form: str) -> None:
    facts = find_facts(f"pvanet-{variant}{form}")
    assert (facts.height, facts.width, facts.classes, facts.rois) == (640, 1056, 20, 200)
    assert counts(facts) == {**SHARED, "rpn": RPN[variant], "head": HEAD[form]}
    assert list(by_stage(facts)) == [*SHARED, "rpn", "head"]
    shared = together([stage for stage in facts.stages if stage.name in SHARED])
    assert shared == (3_283_696, pytest.approx(7926.25, abs=0.005))
    assert by_stage(facts)["head"].macs == 200 * by_stage(facts)["head"].weights  # fully connected, once a RoI


def test_pvanet_lite_is_the_published_one() -> None:
    facts = find_facts("pvanet-lite")
    names = list(by_stage(facts))
    assert names[:3] == ["conv1", "conv2", "conv3"]
    assert names[3:13] == [f"inc{number}{letter}" for number in "34" for letter in "abcde"]
    assert names[13:] == ["upsample", "convf", "rpn", "head"]
    assert together(list(facts.stages[:13])) == (704_000, pytest.approx(2243.8, abs=0.05))
    assert together(list(facts.stages[13:15])) == (143_360, pytest.approx(370.4, abs=0.05))
    assert together([by_stage(facts)["rpn"]]) == (103_936, pytest.approx(274.4, abs=0.05))
    assert together([by_stage(facts)["head"]]) == (8_294_400, pytest.approx(1658.9, abs=0.05))
    assert facts.macs / 1e6 == pytest.approx(4547.4, abs=0.05)


@pytest.mark.parametrize("name", TOTAL)
def test_totals_are_the_published_ones(name: str) -> None:
    facts, (weights, parameters, mmac) = find_facts(name), TOTAL[name]
    assert (facts.weights, round(facts.macs / 1e6)) == (weights, mmac)
    assert facts.parameters == parameters or parameters is None


@pytest.mark.parametrize("variant", RPN)
def test_classifiers_are_the_published_ones(variant: str) -> None:
    facts = find_facts(f"pvanet-{variant}-imagenet")
    stages = by_stage(facts)
    assert (facts.height, facts.width, facts.classes, facts.rois) == (192, 192, 1000, 0)
    assert facts.weights == pytest.approx(80.4e6, abs=0.05e6)
    assert {name: stages[name].weights for name in SHARED if name.startswith("conv") and name != "convf"} == {
        name: weights for name, (weights, _) in SHARED.items() if name not in ("upsample", "convf")
    }
    assert together(list(facts.stages[:16]))[1] == pytest.approx(375.5, abs=0.05)
    layers = {"fc6": 6 * 6 * 384 * 4096, "fc7": 4096 * 4096, "fc8": 4096 * 1000}
    assert {stage.name: stage.weights for stage in facts.stages[16:]} == layers
    assert {stage.name: stage.macs for stage in facts.stages[16:]} == layers


def test_the_stem_by_hand() -> None:
    stem = by_stage(find_facts("mobilenetv2-ssdlite-omg"))["stem"]
    assert stem.weights == 3 * 32 * 9
    assert stem.parameters == stem.weights + 2 * 32  # scale and shift
    assert stem.macs == 160 * 160 * 32 * 3 * 9


def test_the_detector_is_the_published_one() -> None:
    """Table 6 of arXiv 1801.04381 says 0.8 GMAC with 91 classes; class heads are what 20 classes make smaller."""
    facts = find_facts("mobilenetv2-ssdlite-omg")
    stages = by_stage(facts)
    depthwise = 400 * 576 * 9 + 100 * 1280 * 9 + (25 * 512 + 9 * 256 + 4 * 256 + 128) * 9
    per_class = (stages["class heads"].macs - depthwise) // facts.classes
    assert facts.macs - stages["omg"].macs + 71 * per_class == pytest.approx(0.8e9, rel=0.02)


def test_omg_is_within_its_budget() -> None:
    assert by_stage(find_facts("mobilenetv2-ssdlite-omg"))["omg"].macs <= 60_000_000


def test_an_unknown_network() -> None:
    with pytest.raises(UsageError, match="no network is called 'mobilenetv2-ssdlite'; did you mean"):
        find_facts("mobilenetv2-ssdlite")
    with pytest.raises(UsageError, match="no network is called 'zzz'; there are: mobilenetv2"):
        find_facts("zzz")


def test_the_table_has_every_network_and_knows_the_trainable_ones() -> None:
    assert [facts.name for facts in load_facts()] == list(NETWORKS)
    assert [facts.name for facts in load_facts() if facts.trainable] == list(MODELS)


def test_totals_alone() -> None:
    facts = find_facts("pvanet-9.0")
    assert facts.lines(every_stage=False) == [*facts.lines()[:3], facts.lines()[-1]]


def test_reading_imports_no_engine() -> None:
    program = (
        "import sys; from edgekit.models.facts import load_facts; load_facts()\n"
        "print(sorted({'torch', 'numpy', 'onnxruntime'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

"""The configuration of a pretraining run, its recipes, and its schedule of rates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.errors import UsageError
from edgekit.pretraining.config import PretrainConfig, load_pretrain_config, pretrain_config
from edgekit.pretraining.schedule import learning_rate
from edgekit.programs import find_folder

RECIPES = sorted((find_folder("training") / "recipes" / "pretrain").glob("*.toml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_and_names_its_backbone(recipe: Path) -> None:
    assert load_pretrain_config(recipe, {}).backbone == recipe.stem


def test_the_published_recipe_has_the_published_rate() -> None:
    recipe = find_folder("training") / "recipes" / "pretrain" / "resnet50.toml"
    assert load_pretrain_config(recipe, {}).peak_rate == pytest.approx(14.4)
    longer = {"learning_rate": 0.2, "epochs": 1000, "target_momentum": 0.996}
    assert load_pretrain_config(recipe, longer).peak_rate == pytest.approx(6.4)


def test_command_line_beats_recipe_beats_defaults(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("epochs = 7\nbatch_size = 6\nlearning_rate = 1\n")
    config = load_pretrain_config(tmp_path / "r.toml", {"epochs": 2, "seed": None})
    assert (config.epochs, config.batch_size, config.seed) == (2, 6, PretrainConfig().seed)
    assert config.learning_rate == 1.0


def test_round_trip() -> None:
    config = PretrainConfig(backbone="pvanet-lite", width_multiplier=0.5, published_quirks=True)
    assert pretrain_config(json.loads(json.dumps(config.to_json())), where="x") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochz = 1", "has no meaning for epochz; known entries: backbone, width_multiplier"),
        ("epochs = 'many'", "epochs must be int, got 'many'"),
        ("epochs = 0", "epochs must be at least 1, got 0"),
        ("input_size = 100", "input_size must be a multiple of 32, got 100"),
        ("input_size = 32", "smallest_box must be below the input size, 32, got 32"),
        ("optimiser = 'lion'", "optimiser must be one of lars, sgd, adamw, got 'lion'"),
        ("method = 'simclr'", "method must be one of scrl, byol, got 'simclr'"),
        ("backbone = 'vgg'", "no backbone that can be pretrained is called 'vgg'"),
        ("smallest_crop = 0.0", "smallest_crop must be above 0 and at most 1, got 0.0"),
        ("learning_rate = 0.0", "learning_rate must be above 0, got 0.0"),
        ("target_momentum = 1.5", "target_momentum must be between 0 and 1, got 1.5"),
        ("weight_decay = -1.0", "weight_decay and warmup_epochs must not be negative"),
        ("width_multiplier = 0.5", "resnet50 has one width, 1; got 0.5. PVANets have others"),
        ("epochs = ", "is not valid TOML"),
    ],
)
def test_a_bad_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_pretrain_config(tmp_path / "r.toml", {})


def test_the_rate_rises_from_zero_in_a_line_and_falls_along_a_cosine_to_zero() -> None:
    config = PretrainConfig(epochs=30, warmup_epochs=10, batch_size=512, learning_rate=0.5)

    def rate(epoch: float) -> float:
        return learning_rate(config, step=round(epoch * 20), steps_per_epoch=20)

    assert [rate(epoch) for epoch in (0, 0.05, 5, 10)] == pytest.approx([0, 0.005, 0.5, 1.0])
    assert [rate(epoch) for epoch in (15, 20, 30)] == pytest.approx([0.5 + 0.5**1.5, 0.5, 0.0], abs=1e-12)
    assert learning_rate(PretrainConfig(warmup_epochs=0.0), step=0, steps_per_epoch=5) == pytest.approx(0.45 / 4)

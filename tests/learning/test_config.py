"""The configuration of a training run and its recipes."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.errors import UsageError
from edgekit.learning.config import TrainConfig, config_from_json, load_config
from edgekit.models.registry import MODELS
from edgekit.programs import find_folder

RECIPES = sorted(
    path for folder in (".", "few-labels") for path in (find_folder("training") / "recipes" / folder).glob("*.toml")
)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_shipped_recipe_loads_and_names_its_model(recipe: Path) -> None:
    config = load_config(recipe, {})
    assert config.model == recipe.stem
    for side in config.multi_scale:
        MODELS[config.model].spec(("a",), side, side)
    for _, size in config.sizes:
        MODELS[config.model].spec(("a",), size, size)


def test_command_line_beats_recipe_beats_defaults(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("epochs = 7\nbatch_size = 3\n")
    config = load_config(tmp_path / "r.toml", {"epochs": 2, "seed": None})
    assert (config.epochs, config.batch_size, config.seed) == (2, 3, TrainConfig().seed)


def test_round_trip() -> None:
    import json

    config = TrainConfig(epochs=3, sizes=((0.0, 64), (0.5, 128)), multi_scale=(64, 128))
    assert config_from_json(json.loads(json.dumps(config.to_json())), where="x") == config


def test_size_follows_the_share_of_epochs() -> None:
    config = TrainConfig(epochs=10, sizes=((0.0, 64), (0.5, 128), (0.9, 320)))
    assert [config.size_at(epoch) for epoch in (0, 4, 5, 8, 9)] == [64, 64, 128, 128, 320]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochz = 1", "has no meaning for epochz"),
        ("epochs = 'many'", "epochs must be int, got 'many'"),
        ("epochs = 0", "epochs must be at least 1, got 0"),
        ("optimiser = 'lion'", "optimiser must be one of adamw, sgd, got 'lion'"),
        ("sizes = [1]", r"sizes must be pairs \[share, size\]"),
        ("sizes = [[0.5, 320]]", "sizes must start at share 0"),
        ("multi_scale = [416, 832]", "multi_scale must be two rising multiples of 64"),
        ("multi_scale = [64.0, 128]", "multi_scale must be a list of whole numbers"),
        ("plateau_windows = []", "plateau_windows must be numbers of steps"),
        ("rois = 0", "rois must be at least 1, got 0"),
        ("epochs = ", "is not valid TOML"),
    ],
)
def test_a_bad_recipe_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_config(tmp_path / "r.toml", {})


def test_a_missing_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"r\.toml cannot be read: No such file"):
        load_config(tmp_path / "r.toml", {})

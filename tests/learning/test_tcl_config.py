"""The configuration of a TCL run: the published schedule, recipes, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.errors import UsageError
from edgekit.learning.tcl_config import TclConfig, load_tcl_config, tcl_config_from_json
from edgekit.models.tcl.spec import VARIANTS
from edgekit.programs import find_folder

RECIPES = sorted((find_folder("training") / "recipes" / "tcl").glob("*.toml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_loads_and_names_its_model(recipe: Path) -> None:
    config = load_tcl_config(recipe, {})
    assert config.model == recipe.stem
    assert config.model in VARIANTS


def test_every_variant_has_a_recipe() -> None:
    assert {path.stem for path in RECIPES} == set(VARIANTS)


def test_the_defaults_are_the_published_recipe() -> None:
    published = load_tcl_config(find_folder("training") / "recipes" / "tcl" / "tcl-vit-b16.toml", {})
    assert published == TclConfig()
    assert published.rate_at(14_999) == pytest.approx(7.5e-5)
    assert published.rate_at(49_999) == pytest.approx(1e-5, rel=1e-3)
    assert published.rate_at(0) == pytest.approx(7.5e-5 / 15_000)
    assert [published.phase_at(step) for step in (0, 29_999, 30_000, 50_000)] == [
        "decoder", "decoder", "masker", "masker",
    ]  # fmt: skip


def test_aligning_comes_first_and_has_its_own_rates() -> None:
    config = TclConfig(align_steps=10, steps=20, decoder_steps=5, warmup_steps=100, align_rate=1.0, batch_size=4096)
    phases = [config.phase_at(step) for step in range(config.total_steps)]
    assert phases == ["align"] * 10 + ["decoder"] * 5 + ["masker"] * 15
    assert config.rate_at(4) == 1.0  # warm-up takes half of a round at most
    assert config.rate_at(9) < 0.15
    assert config.rate_at(10 + 9) == pytest.approx(3e-4)


def test_command_line_beats_recipe_beats_defaults(tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text("steps = 7\nlearning_rate = 1\n")
    config = load_tcl_config(tmp_path / "r.toml", {"steps": 2, "seed": None})
    assert (config.steps, config.learning_rate, config.seed) == (2, 1.0, 0)
    assert tcl_config_from_json(config.to_json(), where="x") == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 1", "has no meaning for stepz; known entries: model,"),
        ("steps = 1.5", "steps must be int, got 1.5"),
        ("steps = ", "is not valid TOML"),
        ("steps = 0", "steps must be at least 1, got 0"),
        ("align_steps = -1", "align_steps must be at least 0, got -1"),
        ("smallest_crop = 0", "smallest_crop is a share above 0 and at most 1, got 0"),
    ],
)
def test_wrong_recipes_are_named(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(UsageError, match=message):
        load_tcl_config(tmp_path / "r.toml", {})


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"recipe .*none.toml cannot be read"):
        load_tcl_config(tmp_path / "none.toml", {})

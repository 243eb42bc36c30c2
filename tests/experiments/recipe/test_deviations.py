"""Every deviation from the paper is listed with its reason: by recipe, by scale, and for all."""

from __future__ import annotations

from functools import cache

import pytest

from sftrl_ext.cli import main
from sftrl_ext.experiments.recipe.paper_settings import (
    DEVIATIONS,
    PAPER,
    RATES,
    SCALE_DEVIATIONS,
    deviations_of,
    varied_keys,
)
from sftrl_ext.experiments.recipe.recipe_files import distinct_recipes, load_recipe
from sftrl_ext.experiments.recipe.schema import SCALES
from sftrl_ext.paths import recipes_dir

load = cache(load_recipe)
RECIPES = [path.stem for path in distinct_recipes()]


@pytest.mark.parametrize("name", RECIPES)
def test_what_an_arm_changes_is_the_papers_or_listed(name):
    recipe = load(name, "node")
    if PAPER not in recipe.source:
        assert not recipe.deviations
        return
    listed = {key for entry in recipe.deviations for key in entry.keys}
    for arm in recipe.arms:
        changed = varied_keys(recipe, arm)
        assert changed - ({"lr"} if arm in RATES.get(name, {}) else set()) <= listed, arm
    for entry in recipe.deviations:
        assert entry.what and entry.ours and entry.why and entry.ours != entry.paper
        assert set(entry.scales) <= set(SCALES)


@pytest.mark.parametrize("name", [name for name in RECIPES if not name.startswith("beyond_")])
def test_every_recipe_of_the_paper_names_its_own_deviations_or_that_it_has_none(name):
    text = (recipes_dir() / f"{name}.yaml").read_text(encoding="utf-8")
    assert "\ndeviations:" in text


def test_the_readme_lists_them_all():
    text = (recipes_dir() / "README.md").read_text(encoding="utf-8")
    for path in distinct_recipes():
        recipe = load(path.stem, "node")
        assert recipe.unequal_compute is None or f"`{recipe.name}`: {recipe.unequal_compute}" in text
    for known in DEVIATIONS:
        assert f"| {known.what} | {known.paper} | {known.ours} | {known.reason} |" in text
    for each in SCALE_DEVIATIONS:
        assert f"| {each.what} | {each.ours} | {each.reason} |" in text


def test_plan_prints_those_of_the_scale_and_task(capsys):
    assert main(["plan", "fig9_rl_without_init", "--scale", "laptop", "--budget-only"]) == 0
    out = capsys.readouterr().out
    assert "so that the figure cannot be tested" in out and "RLOO over turns" in out
    assert "a second model, started from" not in out  # of `node` alone
    node = load("fig9_rl_without_init", "node")
    assert "pre-trained by the recipe" not in " ".join(map(" ".join, deviations_of(node)))
    assert deviations_of(load("beyond_losses", "node")) == []

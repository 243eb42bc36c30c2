"""The table of recipes is what the recipes and the results files say."""

from __future__ import annotations

import json

import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe_files import recipe_files
from sftrl_ext.experiments.recipe_table import recipe_table
from sftrl_ext.paths import recipes_dir

RESULTS = recipes_dir().parent / "results"


def test_the_readme_is_the_generated_text():
    assert (recipes_dir() / "README.md").read_text() == recipe_table(RESULTS), (
        "run: python -m sftrl_ext.experiments.recipe_table"
    )


def test_every_recipe_and_every_measured_number_is_in_it():
    text = recipe_table(RESULTS)
    assert all(f"`{name}`" in text for name in recipe_files())
    row = next(line for line in text.splitlines() if line.startswith("| `fig6_gp_l`"))
    assert "`rule_ood`: SFT 3.4, Init 11.5, RL 15" in row  # the paper's
    assert "SFT 17.5, Init 28.2, RL 33.5" in row and "faaccbf" in row  # ours


def test_what_ran_whole_is_told_with_its_time(tmp_path):
    told = {"scale": "smoke", "date": "2026-01-02", "hardware": "one core", "commit": "abc", "wall_s": 70}
    recipes = {
        "fig10_attempts": {"done": True, "stages": 9, "shared": 4, "wall_s": 61.4},
        "fig17_rl_rates": {"done": False, "stages": 3, "shared": 0, "wall_s": 9.0},
    }
    (tmp_path / "smoke.json").write_text(json.dumps({**told, "recipes": recipes}))
    rows = {line.split("`")[1]: line for line in recipe_table(tmp_path).splitlines() if line[:3] == "| `"}
    assert (
        "`smoke`, 2026-01-02, one core, commit abc: from data to report in 61 s and 4 shared stages."
        in (rows["fig10_attempts"])
    )
    assert "smoke" not in rows["fig17_rl_rates"]


def test_results_of_no_recipe_are_refused(tmp_path):
    keys = {"scale": "laptop", "date": "", "commit": "", "hardware": "", "measurements": []}
    (tmp_path / "one.json").write_text(json.dumps({"recipe": "fig66", **keys}))
    with pytest.raises(SftrlError, match="unknown recipe 'fig66'"):
        recipe_table(tmp_path)
    (tmp_path / "one.json").write_text(json.dumps({"recipe": "fig6_gp_l"}))
    with pytest.raises(SftrlError, match="no commit, date"):
        recipe_table(tmp_path)

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
    assert "SFT 12.5, RL 28.6" in row and "340f56a" in row  # ours


def test_results_of_no_recipe_are_refused(tmp_path):
    keys = {"scale": "laptop", "date": "", "commit": "", "hardware": "", "measurements": []}
    (tmp_path / "one.json").write_text(json.dumps({"recipe": "fig66", **keys}))
    with pytest.raises(SftrlError, match="unknown recipe 'fig66'"):
        recipe_table(tmp_path)
    (tmp_path / "one.json").write_text(json.dumps({"recipe": "fig6_gp_l"}))
    with pytest.raises(SftrlError, match="no commit, date"):
        recipe_table(tmp_path)

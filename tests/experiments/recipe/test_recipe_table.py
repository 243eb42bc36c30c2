"""The list of recipes and their pages are generated from the recipes and the results files."""

from __future__ import annotations

import json
from functools import cache

import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.recipe_files import distinct_recipes, load_recipe, recipe_files
from sftrl_ext.experiments.recipe.recipe_pages import question
from sftrl_ext.experiments.recipe.recipe_table import recipe_pages, recipe_table
from sftrl_ext.paths import recipes_dir

RESULTS = recipes_dir().parent / "results"
DOCS = recipes_dir().parent / "docs"
COMMAND = "run: python -m sftrl_ext.experiments.recipe.recipe_table"


@cache
def pages():
    return recipe_pages(RESULTS, DOCS / "figures")


def test_the_readme_is_the_generated_text():
    assert (recipes_dir() / "README.md").read_text() == recipe_table(RESULTS), COMMAND


def test_the_pages_are_the_generated_texts():
    stored = {path.name: path.read_text() for path in (DOCS / "recipes").glob("*.md")}
    assert stored == pages(), COMMAND


def test_the_list_has_every_recipe_with_its_runs_in_short_lines():
    lines = recipe_table(RESULTS).splitlines()
    assert all(any(f"`{name}`" in line for line in lines) for name in recipe_files())
    row = next(line for line in lines if line.startswith("| [`fig6_gp_l`]"))
    for run in ("`laptop` at faaccbf", "`laptop` at 1b598e5", "`laptop` at 340f56a", "`smoke` at f117496"):
        assert run in row
    assert max(map(len, lines)) < 400


def test_a_page_has_the_papers_numbers_and_ours():
    page = pages()["fig6_gp_l.md"]
    assert "| Figure 6 | `rule_ood` | success | SFT 3.4, Init 11.5, RL 15 |" in page
    row = "| SFT | 2e-4 | 320 | 2 | 15.37 | 97.0 ± 0.8 | 3.2 ± 1.9 | 17.5 ± 1.8 | 1.5 ± 0.6 |"
    assert row in page and "faaccbf" in page and "(../figures/fig6_gp_l-laptop-compute.png)" in page
    routes = pages()["fig6_virl_vl.md"]
    assert "**synthetic cities**" in routes and "errors per response" in routes
    assert "+5.99" in pages()["fig10_attempts.md"] and "`max_attempts=10`" in pages()["fig10_attempts.md"]


@pytest.mark.parametrize("path", distinct_recipes(), ids=lambda path: path.stem)
def test_a_page_has_the_question_the_arms_and_the_deviations(path):
    page = pages()[f"{path.stem}.md"]
    recipe = load_recipe(path, "node")
    assert question(path) and question(path) in page
    assert all(f"| `{arm}` | " in page for arm in recipe.arms)
    for entry in recipe.deviations:
        assert f"| {entry.paper} | {entry.ours} | {entry.why} |" in page
    assert recipe.unequal_compute is None or recipe.unequal_compute in page


def test_runs_from_data_to_report_are_listed_with_their_time(tmp_path):
    record = {
        "scale": "smoke",
        "date": "2026-01-02",
        "hardware": "one core",
        "commit": "abcdef0123",
        "wall_s": 70,
    }
    recipes = {
        "fig10_attempts": {"done": True, "stages": 9, "shared": 4, "wall_s": 61.4},
        "fig17_rl_rates": {"done": False, "stages": 3, "shared": 0, "wall_s": 9.0},
    }
    (tmp_path / "smoke.json").write_text(json.dumps({**record, "recipes": recipes}))
    rows = {line.split("`")[1]: line for line in recipe_table(tmp_path).splitlines() if line[:4] == "| [`"}
    assert rows["fig10_attempts"].endswith("| `smoke` at abcdef0 |")
    assert "smoke" not in rows["fig17_rl_rates"]
    written = recipe_pages(tmp_path, tmp_path)
    where = "Scale `smoke` (2026-01-02, commit abcdef0, one core)"
    assert f"{where}: from data to report in 61 s, 4 stages shared" in written["fig10_attempts.md"]
    assert (
        "No measured run is stored." in written["fig17_rl_rates.md"]
        and where not in written["fig17_rl_rates.md"]
    )


def test_results_of_no_recipe_are_refused(tmp_path):
    keys = {"scale": "laptop", "date": "", "commit": "", "hardware": "", "measurements": []}
    (tmp_path / "one.json").write_text(json.dumps({"recipe": "fig66", **keys}))
    with pytest.raises(SftrlError, match="unknown recipe 'fig66'"):
        recipe_table(tmp_path)
    (tmp_path / "one.json").write_text(json.dumps({"recipe": "fig6_gp_l"}))
    with pytest.raises(SftrlError, match="no commit, date"):
        recipe_table(tmp_path)

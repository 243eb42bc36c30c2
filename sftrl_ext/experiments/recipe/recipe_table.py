"""The list of all recipes, ``recipes/README.md``, and their pages, ``docs/recipes/*.md``.

``python -m sftrl_ext.experiments.recipe.recipe_table`` generates both from recipes, ``results/*.json`` and
`sftrl_ext.experiments.recipe.paper_settings`. A results file has the keys ``recipe``, ``scale``, ``date``,
``commit``, ``hardware`` and ``measurements``, a list with ``name``, ``what`` and ``rows``; a page shows the
first measurement. A row is an arm with its ``percent`` and ``se`` per split. A file with the key ``recipes``
is written by `sftrl run all`: the recipes that ran from data to report, and their wall times.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sftrl_ext.experiments.planner.ends import EXEMPT_SCALES, LARGEST_GAP
from sftrl_ext.experiments.recipe.paper_settings import DEVIATIONS, SCALE_DEVIATIONS, TASKS, varied_settings
from sftrl_ext.experiments.recipe.recipe_files import distinct_recipes, load_recipe
from sftrl_ext.experiments.recipe.recipe_pages import commits, read_runs, recipe_arms, recipe_page
from sftrl_ext.experiments.recipe.schema import SCALES, Recipe
from sftrl_ext.files import write_text
from sftrl_ext.paths import recipes_dir
from sftrl_ext.reports.pages.tables import Table

_HEAD = """# Recipes

One file per experiment. `sftrl plan <name> --scale <scale>` prints its commands, `sftrl run` runs them. Each
recipe has a page with its question, arms, the paper's numbers, deviations, our numbers and figures.

- Names in brackets are aliases: figures made from the same runs.
- Every recipe has the scales {scales}. At `node` and `cluster` it has
  the paper's hyper-parameters, except [what is ours](#what-is-ours-at-node).
- "Has run" is the scale and the commit of each stored run (`results/`, discussed in
  [RESULTS.md](../RESULTS.md)). A run at `smoke` goes from data to report and its numbers mean nothing. At the
  other scales a recipe has only been composed against verl's schema.

This file is generated: `python -m sftrl_ext.experiments.recipe.recipe_table`.
"""

_OURS = """## What is ours at `node`

At `node` and `cluster` every stage has the values of the paper's appendix C or, where that is silent, of
the authors' code. `sftrl_ext/experiments/recipe/paper_settings.py` lists them, and a test compares the
composed config of every recipe with them. The exceptions below hold for every recipe; those of data and
evaluation (`data`, `eval`) hold at every scale. Deviations of single recipes are on their pages; `sftrl
plan` prints all that apply to a recipe, scale and task.
"""

_SCALES = """## What is ours at the other scales

Below `node`, models, sizes and learning rates are ours; data and evaluation differ as in the table above.
"""

_ENDS = """## Where arms end

The arms of a recipe end at most {gap:.0%} apart in planned compute from counted tokens, at every scale except
{exempt}. Exceptions:
"""

_VARIED = """Budget keys that a recipe varies on purpose:
"""


def recipe_table(results: Path) -> str:
    """The text of ``recipes/README.md``.

    Args:
        results: Folder of the results files.

    Raises:
        SftrlError: if a results file names an unknown recipe or lacks a key.
    """
    runs = read_runs(results)
    recipes = {path: load_recipe(path, "node") for path in distinct_recipes()}
    rows = [
        [
            f"[`{recipe.name}`](../docs/recipes/{recipe.name}.md)"
            + (f" ({', '.join(f'`{n}`' for n in recipe.also)})" if recipe.also else ""),
            recipe.title, recipe.source, commits(runs[path.stem]) or "–",
        ]
        for path, recipe in recipes.items()
    ]  # fmt: skip
    header = ["Recipe", "Experiment", "Source", "Has run"]
    table = Table(header, rows, text_columns=len(header), markup=True).to_markdown()
    head = _HEAD.format(scales=", ".join(f"`{scale}`" for scale in SCALES))
    return f"{head}\n{table}\n\n{_settings_text(list(recipes.values()))}"


def recipe_pages(results: Path, figures: Path) -> dict[str, str]:
    """The text of every recipe's page, by file name.

    Args:
        results: Folder of the results files.
        figures: Folder of the figures.
    """
    runs = read_runs(results)
    return {
        f"{path.stem}.md": recipe_page(path, load_recipe(path, "node"), runs[path.stem], figures)
        for path in distinct_recipes()
    }


def _settings_text(recipes: Sequence[Recipe]) -> str:
    """Sections on the settings that are ours, and on those that single recipes vary."""
    header = ["Stages", "Tasks", "Setting", "The paper", "Ours", "Why"]
    rows = [
        [
            ", ".join(f"`{stage}`" for stage in entry.stage.split()),
            "all" if entry.tasks == TASKS else ", ".join(f"`{task}`" for task in entry.tasks),
            entry.what, entry.paper, entry.ours, entry.reason,
        ]
        for entry in DEVIATIONS
    ]  # fmt: skip
    table = Table(header, rows, text_columns=len(header)).to_markdown()
    lines = []
    for recipe in recipes:
        label = recipe_arms(recipe).label
        arms = [
            f"{label(a)} {', '.join(f'`{k}`' for k in keys)}" for a, keys in varied_settings(recipe).items()
        ]
        if arms:
            lines.append(f"- `{recipe.name}`: {'; '.join(arms)}")
    varied = "\n".join(lines)
    parts = [_OURS, f"{table}\n", _VARIED, f"{varied}\n", _SCALES, f"{_scale_deviations()}\n"]
    return "\n".join([*parts, *_unequal_ends(recipes)])


def _scale_deviations() -> str:
    """Table of the deviations of the scales below `node`."""
    rows = [
        [
            ", ".join(f"`{scale}`" for scale in entry.scales),
            "all" if entry.tasks == TASKS else ", ".join(f"`{task}`" for task in entry.tasks),
            entry.what, entry.ours, entry.reason,
        ]
        for entry in SCALE_DEVIATIONS
    ]  # fmt: skip
    header = ["Scales", "Tasks", "Setting", "Ours", "Why"]
    return Table(header, rows, text_columns=len(header)).to_markdown()


def _unequal_ends(recipes: Sequence[Recipe]) -> list[str]:
    """Section on the recipes whose arms end at unequal compute."""
    exempt = " and ".join(f"`{scale}` ({reason})" for scale, reason in EXEMPT_SCALES.items())
    reasons = [f"- `{r.name}`: {r.unequal_compute}" for r in recipes if r.unequal_compute]
    return [_ENDS.format(gap=LARGEST_GAP, exempt=exempt), *reasons, ""]


if __name__ == "__main__":
    root = recipes_dir().parent
    write_text(recipes_dir() / "README.md", recipe_table(root / "results"))
    for name, text in recipe_pages(root / "results", root / "docs/figures").items():
        write_text(root / "docs/recipes" / name, text)

"""The table of all recipes in ``recipes/README.md``, made from the recipes and from ``results/*.json``.

``python -m sftrl_ext.experiments.recipe_table`` writes it. What has been run is told by the results files
alone. Each has the keys ``recipe``, ``scale``, ``date``, ``commit``, ``hardware``, ``metric``, and
``measurements``, a list with ``name``, ``what`` and ``rows``; the table shows the first of them. A row is an
arm with its ``percent``: each split with one number, or with one for each seed. A file with the key
``recipes`` is what `sftrl run all` writes: which recipes ran from data to report, and in what time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.paper_settings import DEVIATIONS, SCALE_DEVIATIONS, TASKS, varied_settings
from sftrl_ext.experiments.planner.ends import EXEMPT_SCALES, LARGEST_GAP
from sftrl_ext.experiments.recipe import SCALES, ExpectedConfig, Recipe
from sftrl_ext.experiments.recipe_files import distinct_recipes, load_recipe, recipe_files
from sftrl_ext.files import read_json, write_text
from sftrl_ext.paths import recipes_dir
from sftrl_ext.reports.arms import Arms
from sftrl_ext.reports.tables import Table

_HEAD = """# Recipes

One file per experiment; `sftrl plan <name> --scale <scale>` prints every command it runs, `sftrl run` runs
them. A name in brackets finds the same recipe: those figures are made from the same runs, which are run once.
Every recipe has the scales {scales}; at `node` and `cluster` they have the paper's hyper-parameters, but for
[what is ours](#what-is-ours-at-node).

Numbers are percent on one split, as success per episode unless another measure is named. The paper's are of
its own model. "Has run" tells what this code has measured (`results/`, in words in
[RESULTS.md](../RESULTS.md)). At `smoke` a recipe runs from data to report and its numbers mean nothing; where
no other scale is named it has composed against verl's own schema and not run.

This file is generated: `python -m sftrl_ext.experiments.recipe_table`.
"""

_OURS = """## What is ours at `node`

At `node` and `cluster` every stage has the values of the paper's appendix C, and where that is silent those
of the authors' code: `sftrl_ext/experiments/paper_settings.py` lists them, and a test compares every recipe's
composed config with them. In every recipe these differ; those of data and evaluation (`data`, `eval`) at
every scale:
"""

_OWN = """## What single recipes do otherwise

`sftrl plan <name> --scale <scale>` prints these with the deviations of every recipe, those of that scale and
task alone. A recipe that is not here has none beyond them; those named `beyond_` are not of the paper.
"""

_SCALES = """## What is ours at the other scales

Below `node` models, sizes and rates are ours; data and evaluation differ as in the table above.
"""

_ENDS = """## Where arms end

Arms end at most {gap:.0%} apart in planned compute from counted tokens, at every scale but {exempt}.
Otherwise:
"""

_VARIED = """Keys of the budget that a recipe changes on purpose:
"""

_MEASURES = {"success": "", "per_step": "per step", "recognition": "recognition"}


def recipe_table(results: Path) -> str:
    """The text of ``recipes/README.md``.

    Args:
        results: Folder of the results files.

    Raises:
        SftrlError: if a results file names an unknown recipe or lacks a key.
    """
    ran: dict[str, list[Mapping[str, Any]]] = {}
    whole: dict[str, list[str]] = {}
    files = recipe_files()
    for path in sorted(results.glob("*.json")):
        told = read_json(path)
        if "recipes" in told:
            for name, one in told["recipes"].items():
                if name not in files:
                    raise SftrlError(f"{path}: unknown recipe {name!r}; expected those that ship.")
                if one["done"]:
                    whole.setdefault(files[name].stem, []).append(_ran_whole(told, one))
            continue
        missing = {"recipe", "scale", "date", "commit", "hardware", "measurements"} - set(told)
        if missing or told["recipe"] not in files:
            found = f"no {', '.join(sorted(missing))}" if missing else f"unknown recipe {told['recipe']!r}"
            raise SftrlError(f"{path}: {found}; expected the results of a run of a recipe.")
        ran.setdefault(files[told["recipe"]].stem, []).append(told)
    body = []
    recipes = {path: load_recipe(path, "node") for path in distinct_recipes()}
    for path, recipe in recipes.items():
        arms = _arms(recipe)
        names = f"`{recipe.name}`" + (f" ({', '.join(f'`{n}`' for n in recipe.also)})" if recipe.also else "")
        has_run = [_has_run(one, arms) for one in ran.get(path.stem, [])] + whole.get(path.stem, [])
        body.append([
            names, recipe.title, recipe.task.name, _arm_words(recipe, arms), _paper(recipe, arms),
            "<br>".join(has_run) or "–", recipe.source,
        ])  # fmt: skip
    header = ["Recipe", "What it asks", "Task", "Arms", "The paper's numbers", "Has run", "Source"]
    table = Table(header, body, words=len(header)).to_markdown()
    head = _HEAD.format(scales=", ".join(f"`{scale}`" for scale in SCALES))
    return f"{head}\n{table}\n\n{_settings_text(list(recipes.values()))}"


def _settings_text(recipes: Sequence[Recipe]) -> str:
    """Settings that no recipe takes from the paper at scale ``node``, and what single recipes vary."""
    header = ["Stages", "Tasks", "Setting", "The paper", "Ours", "Why"]
    rows = [
        [
            ", ".join(f"`{stage}`" for stage in entry.stage.split()),
            "all" if entry.tasks == TASKS else ", ".join(f"`{task}`" for task in entry.tasks),
            entry.what, entry.paper, entry.ours, entry.reason,
        ]
        for entry in DEVIATIONS
    ]  # fmt: skip
    table = Table(header, rows, words=len(header)).to_markdown()
    lines = []
    for recipe in recipes:
        arms = [f"{arm} {', '.join(f'`{k}`' for k in keys)}" for arm, keys in varied_settings(recipe).items()]
        if arms:
            lines.append(f"- `{recipe.name}`: {'; '.join(arms)}")
    varied = "\n".join(lines)
    return "\n".join(
        [_OURS, f"{table}\n", _VARIED, f"{varied}\n", _OWN, f"{_own_deviations(recipes)}\n", _SCALES,
         f"{_scale_deviations()}\n", *_unequal_ends(recipes)]
    )  # fmt: skip


def _own_deviations(recipes: Sequence[Recipe]) -> str:
    """Table of the deviations that single recipes list."""
    rows = [
        [
            entry.what, f"`{recipe.name}`", ", ".join(f"`{scale}`" for scale in entry.scales) or "all",
            entry.paper, entry.ours, entry.why,
        ]
        for recipe in recipes
        for entry in recipe.deviations
    ]  # fmt: skip
    header = ["Setting", "Recipe", "Scales", "The paper", "Ours", "Why"]
    return Table(header, rows, words=len(header)).to_markdown()


def _scale_deviations() -> str:
    """Table of what the scales below `node` have otherwise."""
    rows = [
        [
            ", ".join(f"`{scale}`" for scale in entry.scales),
            "all" if entry.tasks == TASKS else ", ".join(f"`{task}`" for task in entry.tasks),
            entry.what, entry.ours, entry.reason,
        ]
        for entry in SCALE_DEVIATIONS
    ]  # fmt: skip
    header = ["Scales", "Tasks", "Setting", "Ours", "Why"]
    return Table(header, rows, words=len(header)).to_markdown()


def _unequal_ends(recipes: Sequence[Recipe]) -> list[str]:
    """Reasons of the recipes whose arms end apart."""
    exempt = " and ".join(f"`{scale}` ({reason})" for scale, reason in EXEMPT_SCALES.items())
    reasons = [f"- `{r.name}`: {r.unequal_compute}" for r in recipes if r.unequal_compute]
    return [_ENDS.format(gap=LARGEST_GAP, exempt=exempt), *reasons, ""]


def _arms(recipe: Recipe) -> Arms:
    titles = {name: arm.title for name, arm in recipe.arms.items() if arm.title}
    return Arms({name: arm.kind for name, arm in recipe.arms.items()}, titles)


def _arm_words(recipe: Recipe, arms: Arms) -> str:
    def one(name: str) -> str:
        arm = recipe.arms[name]
        rates = len(arm.lrs) or len(arm.lr_times)
        told = [f"starts at `{arm.start}`"] if arm.start != "init" else []
        told += [f"{rates} rates"] if rates > 1 else []
        return arms.label(name) + (f" ({', '.join(told)})" if told else "")

    return ", ".join(one(name) for name in recipe.arms)


def _paper(recipe: Recipe, arms: Arms) -> str:
    def one(entry: ExpectedConfig) -> str:
        given = {"sft": entry.sft, "init": entry.init, "rl": entry.rl, **entry.arms}
        form = {"level": "{:g}", "at_most": "at most {:g}", "change": "{:+g}"}[entry.says]
        numbers = ", ".join(f"{arms.label(a)} {form.format(v)}" for a, v in given.items() if v is not None)
        measure = " ".join(word for word in (f"`{entry.split}`", _MEASURES[entry.metric]) if word)
        best = "" if entry.previous_best is None else f" (previous best {entry.previous_best:g})"
        return f"{measure}{' from the start' if entry.says == 'change' else ''}: {numbers}{best}"

    return "<br>".join(one(entry) for entry in recipe.expected) or (
        "curves only" if "2501.17161" in recipe.source else "–"
    )


def _ran_whole(told: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    shared = f" and {one['shared']} shared stages" if one["shared"] else ""
    where = f"`{told['scale']}`, {told['date']}, {told['hardware']}, commit {told['commit']}"
    return f"{where}: from data to report in {one['wall_s']:.0f} s{shared}."


def _has_run(told: Mapping[str, Any], arms: Arms) -> str:
    first = told["measurements"][0]
    splits = list(dict.fromkeys(split for row in first["rows"] for split in row["percent"]))
    words = []
    for split in splits:
        numbers = [
            f"{arms.label(row['arm'])} {row['percent'][split]:g}"
            for row in first["rows"]
            if split in row["percent"]
        ]
        words.append(f"`{split}`: {', '.join(numbers)}")
    where = f"`{told['scale']}`, {told['date']}, {told['hardware']}, commit {told['commit']}, {first['what']}"
    where += ", synthetic cities" if told.get("synthetic_cities") else ""
    return f"{where}.<br>{'<br>'.join(words)}"


if __name__ == "__main__":
    write_text(recipes_dir() / "README.md", recipe_table(recipes_dir().parent / "results"))

"""Run several recipes one after the other, what they have in common once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.layout import RunLayout
from sftrl_ext.experiments.recipe import Recipe
from sftrl_ext.experiments.recipe_files import distinct_recipes
from sftrl_ext.experiments.runner import start_or_resume
from sftrl_ext.experiments.state import RunState, describe_commit, describe_hardware
from sftrl_ext.files import write_json
from sftrl_ext.reports.results_file import hardware_words

ALL = "all"
"""Names every recipe that ships."""
SUMMARY = "recipes.json"


@dataclass(frozen=True)
class Outcome:
    """How one recipe of several ended.

    Attributes:
        name: The recipe.
        run_dir: Its run folder.
        error: What stopped it; None if it is done.
    """

    name: str
    run_dir: Path
    error: SftrlError | None = None


def recipes_named(text: str) -> list[str]:
    """The recipes of ``all``, or of names with commas between."""
    if text != ALL:
        return [name for name in text.split(",") if name]
    return [path.stem for path in distinct_recipes()]


def run_many(recipes: Sequence[Recipe], folder: Path, console: Console) -> list[Outcome]:
    """Run recipes, each in ``<folder>/<recipe>-<scale>``; started again, go on with what is not done.

    One that fails does not keep the others from running. What was run, where and in what time is written to
    ``<folder>/recipes.json``; wall times are of the stages that a recipe ran itself, over all launches.

    Raises:
        SftrlError: at the end, naming those that failed.
    """
    outcomes = []
    for number, recipe in enumerate(recipes, 1):
        run_dir = folder / f"{recipe.name}-{recipe.scale.name}"
        console.rule(f"{number} of {len(recipes)}: {recipe.name}", align="left")
        error = None
        try:
            start_or_resume(recipe, run_dir, console, share=folder)
        except SftrlError as stopped:
            error = stopped
            console.print(f"[bold red]{recipe.name} failed:[/] ", end="")
            console.print(str(stopped), markup=False, highlight=False)
        outcomes.append(Outcome(recipe.name, run_dir, error))
    told = {"scale": recipes[0].scale.name, **_told(outcomes)}
    write_json(folder / SUMMARY, told)
    console.print(_table(told))
    failed = [outcome.name for outcome in outcomes if outcome.error is not None]
    if failed:
        raise SftrlError(
            f"{len(failed)} of {len(outcomes)} recipes failed: {', '.join(failed)}. The same command goes on "
            "with what is not done."
        )
    return outcomes


def _told(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    recipes = {}
    for outcome in outcomes:
        state = RunLayout(outcome.run_dir).state
        done = [s for s in RunState.load(state).stages if s.status == "done"] if state.is_file() else []
        own = [stage for stage in done if stage.shared_from is None]
        recipes[outcome.name] = {
            "done": outcome.error is None,
            "stages": len(done),
            "shared": len(done) - len(own),
            "wall_s": round(sum(stage.wall_s for stage in own), 1),
        }
    return {
        "date": date.today().isoformat(),
        "commit": describe_commit(),
        "hardware": hardware_words(describe_hardware()),
        "wall_s": round(sum(one["wall_s"] for one in recipes.values()), 1),
        "recipes": recipes,
    }


def _table(told: Mapping[str, Any]) -> Table:
    table = Table("Recipe", "Stages run", "Stages shared", "Wall time", "Result", box=None)
    for name, one in told["recipes"].items():
        result = "[green]done[/]" if one["done"] else "[red]failed[/]"
        own = one["stages"] - one["shared"]
        table.add_row(name, str(own), str(one["shared"]), f"{one['wall_s']:.0f} s", result)
    table.add_row("all", "", "", f"{told['wall_s']:.0f} s", "")
    return table

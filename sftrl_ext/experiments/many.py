"""Run several recipes one after the other, what they have in common once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.layout import RunLayout
from sftrl_ext.experiments.recipe import Recipe
from sftrl_ext.experiments.recipe_files import distinct_recipes
from sftrl_ext.experiments.runner import start_or_resume
from sftrl_ext.experiments.state import RunState

ALL = "all"
"""Names every recipe that ships."""


@dataclass(frozen=True)
class Outcome:
    """How one recipe of several ended.

    Attributes:
        name: The recipe.
        run_dir: Its run folder.
        wall_s: Seconds it took this time.
        error: What stopped it; None if it is done.
    """

    name: str
    run_dir: Path
    wall_s: float
    error: SftrlError | None = None


def recipes_named(text: str) -> list[str]:
    """The recipes of ``all``, or of names with commas between."""
    if text != ALL:
        return [name for name in text.split(",") if name]
    return [path.stem for path in distinct_recipes()]


def run_many(recipes: Sequence[Recipe], folder: Path, console: Console) -> list[Outcome]:
    """Run recipes, each in ``<folder>/<recipe>-<scale>``; started again, go on with what is not done.

    One that fails does not keep the others from running.

    Raises:
        SftrlError: at the end, naming those that failed.
    """
    outcomes = []
    for number, recipe in enumerate(recipes, 1):
        run_dir = folder / f"{recipe.name}-{recipe.scale.name}"
        console.rule(f"{number} of {len(recipes)}: {recipe.name}", align="left")
        started = time.monotonic()
        error = None
        try:
            start_or_resume(recipe, run_dir, console, share=folder)
        except SftrlError as stopped:
            error = stopped
            console.print(f"[bold red]{recipe.name} failed:[/] ", end="")
            console.print(str(stopped), markup=False, highlight=False)
        outcomes.append(Outcome(recipe.name, run_dir, time.monotonic() - started, error))
    console.print(_table(outcomes))
    failed = [outcome.name for outcome in outcomes if outcome.error is not None]
    if failed:
        raise SftrlError(
            f"{len(failed)} of {len(outcomes)} recipes failed: {', '.join(failed)}. The same command goes on "
            "with what is not done."
        )
    return outcomes


def _table(outcomes: Sequence[Outcome]) -> Table:
    table = Table("Recipe", "Stages run", "Stages shared", "Wall time", "Result", box=None)
    for outcome in outcomes:
        state = RunLayout(outcome.run_dir).state
        done = [s for s in RunState.load(state).stages if s.status == "done"] if state.is_file() else []
        shared = sum(stage.shared_from is not None for stage in done)
        result = "[green]done[/]" if outcome.error is None else "[red]failed[/]"
        table.add_row(outcome.name, str(len(done) - shared), str(shared), f"{outcome.wall_s:.0f} s", result)
    total = sum(outcome.wall_s for outcome in outcomes)
    table.add_row("all", "", "", f"{total:.0f} s", "")
    return table

"""Runs on synthetic cities: which splits walk them, and the mark on every table and figure.

The paper's numbers are of the authors' routes, so they are not shown beside numbers of synthetic cities.
"""

from __future__ import annotations

from sftrl_ext.envs.task import TASKS
from sftrl_ext.reports.analysis.splits import ood_kind
from sftrl_ext.runs.recipe import StoredRecipe

LABEL = "synthetic cities"
"""The mark."""


def is_synthetic(recipe: StoredRecipe, split: str) -> bool:
    """True if a split walks synthetic cities, or tests in other cities what was trained in synthetic ones.

    Args:
        recipe: The recipe of the run.
        split: Name of the split.
    """
    task = recipe.task
    if not task:
        return False
    if task.get("synthetic") or task.get("kind") not in TASKS:
        return bool(task.get("synthetic"))
    return bool(TASKS[task["kind"]].made_up(task, ood_kind(split) == "visual"))


def synthetic_note(recipe: StoredRecipe, splits: list[str]) -> str | None:
    """The note on top of a report; None where no split walks synthetic cities."""
    marked = [split for split in splits if is_synthetic(recipe, split)]
    if not marked:
        return None
    names = "" if marked == splits else f" of {', '.join(f'`{split}`' for split in marked)}"
    key = "away" if names else "home.path"
    return (
        f"Synthetic cities: the routes{names} are made up, so these numbers cannot be compared with the "
        f"paper's, which are left out. The authors' routes are read with `task.routes.{key}`."
    )

"""Runs on synthetic cities: which splits walk them, and the mark on every table and figure.

The paper's numbers are of the authors' routes, so they are not shown beside numbers of synthetic cities.
"""

from __future__ import annotations

from collections.abc import Mapping

from sftrl_ext.reports.splits import ood_kind
from sftrl_ext.runs.recipe import StoredRecipe

LABEL = "synthetic cities"
"""The mark."""


def is_synthetic(recipe: StoredRecipe, split: str) -> bool:
    """True if a split walks synthetic cities, or tests in other cities what was trained in synthetic ones.

    Args:
        recipe: The recipe of the run; without ``task.routes`` no split is.
        split: Name of the split.
    """
    routes = recipe.task.get("routes") if recipe.task.get("kind") == "virl" else None
    if not isinstance(routes, Mapping):
        return False
    cities = [routes.get("home") or {}]
    cities += routes.get("away") or [] if ood_kind(split) == "visual" else []
    return any(not city.get("path") for city in cities if isinstance(city, Mapping))


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

"""Paths of a user's files in a recipe, made absolute and checked when it is composed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sftrl_ext.errors import SftrlError, named
from sftrl_ext.experiments.recipe.arms import is_row_file

if TYPE_CHECKING:
    from sftrl_ext.experiments.recipe.schema import Recipe


def make_paths_absolute(recipe: Recipe, folder: Path) -> None:
    """Make the paths of the user's files in a recipe absolute, so that a run goes on from any working folder.

    Args:
        recipe: The recipe; it is changed.
        folder: The folder of the recipe's file, where a file is looked for that the working folder lacks.
    """
    for arm in recipe.arms.values():
        if is_row_file(arm.rows):
            arm.rows = _absolute(arm.rows, folder)
    task = recipe.task
    task.eval_sets = {name: _absolute(file, folder) for name, file in task.eval_sets.items()}
    if "file" in task.settings:
        task.settings["file"] = _absolute(str(task.settings["file"]), folder)
    deck = task.look.get("deck")
    if isinstance(deck, str) and ("/" in deck or Path(deck).is_dir()):
        task.look["deck"] = _absolute(deck, folder)


def add_eval_sets(recipe: Recipe) -> None:
    """Add the sets of given instances to the evaluated splits, after the others.

    Raises:
        SftrlError: naming a set whose name or file is wrong.
    """
    task = recipe.task
    if not task.eval_sets:
        return
    from data_prep.given_files import split_of_set
    from data_prep.task_rows import find_rows

    splits = find_rows(task.kind).split_names()
    for name, file in task.eval_sets.items():
        with named(f"task.eval_sets.{name}"):
            split_of_set(name, splits)
            if not Path(file).exists():
                raise SftrlError(f"{file}: no such file; expected a list of hands or routes.")
    task.eval_splits += [name for name in task.eval_sets if name not in task.eval_splits]


def _absolute(name: str, folder: Path) -> str:
    path = Path(name).expanduser()
    beside = folder / path
    return str((beside if not path.exists() and beside.exists() else path).resolve())

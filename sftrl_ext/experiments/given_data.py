"""Files of a user's in a run: paths made absolute when a recipe is composed, rows read by the data stage."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from data_prep.given_files import split_of_set
from data_prep.origins import Origin
from data_prep.row_files import RowsRequest, import_rows, is_row_file
from data_prep.splits import SPLITS
from data_prep.virl_splits import ROUTE_SPLITS
from sftrl_ext.envs.general_points.episode import PlaySettings, as_look
from sftrl_ext.envs.general_points.rules import RULES
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.arms import ArmRun
from sftrl_ext.experiments.layout import RunLayout
from sftrl_ext.experiments.recipe import Recipe, TaskConfig

_EVERY_S = 5.0


def hand_settings(task: TaskConfig) -> PlaySettings:
    """How the hands of a task are played."""
    return PlaySettings(
        max_attempts=task.max_attempts,
        profile=task.profile,
        template=task.template,
        modality=task.modality,
        look=as_look(task.look) if task.modality == "image" else None,
    )


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
    deck = task.look.get("deck")
    if isinstance(deck, str) and ("/" in deck or Path(deck).is_dir()):
        task.look["deck"] = _absolute(deck, folder)


def add_eval_sets(recipe: Recipe) -> None:
    """Add the sets of given instances to the evaluated splits, after the others.

    Raises:
        SftrlError: naming a set whose name or file is wrong.
    """
    task = recipe.task
    splits = [*SPLITS, *RULES] if task.kind == "general_points" else [*ROUTE_SPLITS]
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


class RowsLine:
    """Progress of a file that is read: a line in the stage's log now and then, and the text of its bar.

    Args:
        name: Name of the file.
        total: Rows to be written.
    """

    def __init__(self, name: str, total: int) -> None:
        self.name, self.total = name, total
        self._bar = os.environ.get("VERL_FILE_LOGGER_PATH")
        self._next = 0.0

    def __call__(self, rows: int) -> None:
        """Show how many rows were written, at most every few seconds."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _EVERY_S
            self._show(f"{self.name}: {rows:,} of {self.total:,} rows")

    def done(self, origin: Origin, template: str) -> None:
        """Show what was read, and rows whose prompts are not those of the evaluation."""
        repeated = f", repeated to {origin.written:,}" if origin.written > origin.rows else ""
        self._show(f"{self.name}: read {origin.rows:,} rows{repeated}; SHA-256 {origin.sha256}")
        others = {name: rows for name, rows in origin.templates.items() if name != template}
        if origin.own_prompts:
            others = {"their own": origin.own_prompts}
        for name, rows in others.items():
            self._show(
                f"{self.name}: {rows:,} rows have prompts of the template {name}; this run evaluates with "
                f"{template} (task.template)."
            )

    def _show(self, text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
        if self._bar:
            with Path(self._bar).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": 0, "data": {}, "text": text}) + "\n")


@contextlib.contextmanager
def named(key: str) -> Iterator[None]:
    """Name the key of the recipe in an error."""
    try:
        yield
    except SftrlError as error:
        raise SftrlError(f"{key}: {error}") from None


def import_arm_rows(recipe: Recipe, run: ArmRun, layout: RunLayout) -> Origin:
    """Read and check the rows of an arm from its file.

    Raises:
        SftrlError: naming the arm's key, the file, the row, and what was found and expected.
    """
    task = recipe.task
    settings = hand_settings(task) if task.kind == "general_points" else None
    request = RowsRequest(run.config.kind, run.budget.rows, task.kind, task.modality, settings)
    say = RowsLine(Path(run.config.rows).name, run.budget.rows)
    with named(f"arms.{run.arm}.rows"):
        origin = import_rows(run.config.rows, layout.rows(run.rows), request, say)
    say.done(origin, task.template)
    return origin

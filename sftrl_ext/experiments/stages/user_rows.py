"""Rows of a user's files, read by the data stage."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from data_prep.origins import Origin
from data_prep.row_files import RowsRequest, import_rows
from sftrl_ext.errors import named
from sftrl_ext.experiments.recipe.arms import ArmRun
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.progress import ProgressFile

_EVERY_S = 5.0


class RowsLine:
    """Progress of a file that is read: a line in the stage's log now and then, and the text of its bar.

    Args:
        name: Name of the file.
        total: Rows to be written.
        progress: Progress of the stage.
    """

    def __init__(self, name: str, total: int, progress: ProgressFile) -> None:
        self.name, self.total = name, total
        self._progress = progress
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
        self._progress.show(text)


def import_arm_rows(recipe: Recipe, run: ArmRun, layout: RunLayout, progress: ProgressFile) -> Origin:
    """Read and check the rows of an arm from its file.

    Raises:
        SftrlError: naming the arm's key, the file, the row, and what was found and expected.
    """
    task = recipe.task
    request = RowsRequest(run.config.kind, run.budget.rows, task)
    say = RowsLine(Path(run.config.rows).name, run.budget.rows, progress)
    with named(f"arms.{run.arm}.rows"):
        origin = import_rows(run.config.rows, layout.rows(run.rows), request, say)
    say.done(origin, task.template)
    return origin

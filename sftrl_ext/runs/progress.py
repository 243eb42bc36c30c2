"""Progress of a stage that is no trainer: ``progress.json`` in its folder, which the run that waits reads."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from sftrl_ext.files import read_json, write_json
from sftrl_ext.runs.typed_json import Count, from_json

PROGRESS_VARIABLE = "SFTRL_PROGRESS_FILE"
"""Variable that names the file to the process of a stage."""

_WRITE_EVERY_S = 1.0


@dataclass(frozen=True)
class StageProgress:
    """Items of a stage that are done.

    Attributes:
        done: Items done, those of earlier launches included.
        total: All items; 0 while that is not known.
        unit: Name of the items, in the plural.
        text: Current work, in words.
    """

    done: Count = 0
    total: Count = 0
    unit: str = ""
    text: str = ""


def read_progress(path: Path) -> StageProgress:
    """Read the file of a stage; nothing is done where there is none.

    Raises:
        SftrlError: if it is malformed.
    """
    return from_json(StageProgress, read_json(path), str(path)) if path.is_file() else StageProgress()


class ProgressFile:
    """Writer of a stage's progress, at most once a second.

    Args:
        path: The file; None writes nothing.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path, self._progress, self._next = path, StageProgress(), 0.0

    @classmethod
    def of_stage(cls) -> ProgressFile:
        """The file of the stage that this process runs; none outside a run."""
        path = os.environ.get(PROGRESS_VARIABLE)
        return cls(None if path is None else Path(path))

    def count(self, total: int, unit: str, done: int = 0) -> None:
        """Begin to count items.

        Args:
            total: All items.
            unit: Their name, in the plural.
            done: Items that an earlier launch has done.
        """
        self._set(StageProgress(done, total, unit), at_once=True)

    def advance(self, items: int = 1) -> None:
        """Count further items as done."""
        done = self._progress.done + items
        self._set(replace(self._progress, done=done), at_once=done >= self._progress.total)

    def show(self, text: str) -> None:
        """Name the current work."""
        self._set(replace(self._progress, text=text), at_once=True)

    def _set(self, progress: StageProgress, at_once: bool) -> None:
        self._progress = progress
        if self._path is not None and (at_once or time.monotonic() >= self._next):
            self._next = time.monotonic() + _WRITE_EVERY_S
            write_json(self._path, asdict(progress))

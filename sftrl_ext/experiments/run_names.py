"""Runs of a folder: found by path or by a name of their recipe, and their states."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.locks import held
from sftrl_ext.experiments.recipe.recipe_files import recipe_files
from sftrl_ext.experiments.recipe.schema import SCALES
from sftrl_ext.paths import shown_path
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.state import RunState

RUNS = Path("runs")
"""Folder of runs, below the working folder."""


def find_run(path: Path) -> Path:
    """Folder of a run.

    Args:
        path: The folder; or, where there is none, ``<recipe>-<scale>`` or ``<recipe>``, also in ``runs/``, by
            any name of the recipe.

    Returns:
        The path itself where nothing is there under a name.

    Raises:
        SftrlError: if several runs have the name.
    """
    if path.exists():
        return path
    folder = RUNS if path.parent == Path(".") else path.parent
    matches: set[Path] = set()
    for name, file in recipe_files().items():
        if path.name == name:
            matches.update(folder / f"{file.stem}-{scale}" for scale in SCALES)
        elif path.name.startswith(f"{name}-"):
            matches.add(folder / f"{file.stem}-{path.name.removeprefix(f'{name}-')}")
    runs = sorted(match for match in matches if RunLayout(match).state.is_file())
    if len(runs) > 1:
        raise SftrlError(
            f"{path}: found {len(runs)} runs, {', '.join(map(str, runs))}; expected one of them."
        )
    return runs[0] if runs else path


@dataclass(frozen=True)
class RunStatus:
    """A run in a listing.

    Attributes:
        folder: Its folder.
        state: Its state file.
        status: ``done``, ``running``, ``failed``, ``interrupted`` or ``not begun``, with the stage.
    """

    folder: Path
    state: RunState
    status: str

    @property
    def stages(self) -> str:
        """Finished stages of all."""
        done = sum(stage.status == "done" for stage in self.state.stages)
        return f"{done}/{len(self.state.stages)}"


def list_runs(folder: Path) -> list[RunStatus]:
    """Every run in a folder and in the folders in it, by path; a folder that is a run is one."""
    if not folder.is_dir():
        raise SftrlError(f"{folder}: no such folder; expected one with run folders.")
    patterns = ("state.json", "*/state.json", "*/*/state.json")
    paths = sorted(path.parent for pattern in patterns for path in folder.glob(pattern))
    return [_status(path) for path in paths]


def _status(folder: Path) -> RunStatus:
    layout = RunLayout(folder)
    try:
        state = RunState.load(layout.state)
    except SftrlError as error:
        return RunStatus(shown_path(folder), RunState(), f"unreadable: {error}")
    current = next((stage for stage in state.stages if stage.status != "done"), None)
    if current is None:
        text = "done" if state.stages else "not begun"
    elif _is_locked(layout):
        running = [stage.name for stage in state.stages if stage.status == "running"]
        text = f"running ({', '.join(running) or current.name})"
    else:
        names = {"failed": "failed", "running": "interrupted"}
        begun = any(stage.status != "waiting" for stage in state.stages)
        text = f"{names.get(current.status, 'interrupted before')} ({current.name})" if begun else "not begun"
    return RunStatus(shown_path(folder), state, text)


def _is_locked(layout: RunLayout) -> bool:
    """True if a process of this machine runs the run."""
    if not layout.lock.is_file():
        return False
    try:
        with held(layout.lock):
            return False
    except BlockingIOError:
        return True
    except OSError:  # another user's run
        return False

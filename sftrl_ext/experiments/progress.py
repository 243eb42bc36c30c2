"""Progress of a run: two bars on a terminal, elsewhere a line for each stage that starts and each minute.

Time left is the planner's until a stage has counted items, then the stage's own rate; later stages are
corrected by how the finished ones compare with their plans.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.plan import Stage
from sftrl_ext.experiments.planner.stages.stage_plan import plan_stages
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.runs.metrics import Follower
from sftrl_ext.runs.progress import StageProgress, read_progress
from sftrl_ext.runs.state import RunState

LINE_EVERY_S = 60.0
"""Seconds between two lines where there is no terminal."""

_UNPLANNED_S = 15.0
"""Seconds of a stage that the planner does not plan: data, the start model, the report."""

_LOADING = {"sft": "the first step", "rl": "the first update"}


def planned_seconds(recipe: Recipe, plan: Sequence[Stage]) -> dict[str, float]:
    """Planned seconds of each stage; empty where the planner does not know the model."""
    try:
        planned = {stage.stage: 3600.0 * stage.work.hours for stage in plan_stages(recipe)}
    except SftrlError:
        return {}
    return {stage.name: planned.get(stage.name, _UNPLANNED_S) for stage in plan}


@dataclass
class TimeLeft:
    """Seconds that are left of a run and of the stage it is at.

    Attributes:
        planned: Planned seconds of each stage; empty if there is no plan.
        measured: Seconds of finished stages that ran here.
    """

    planned: Mapping[str, float]
    measured: dict[str, float] = field(default_factory=dict)
    _first: tuple[float, int] | None = None

    def begin(self) -> None:
        """Forget the rate of the stage before."""
        self._first = None

    def of_stage(self, name: str, elapsed: float, progress: StageProgress) -> float | None:
        """Seconds left of the stage that runs; None if neither a plan nor a rate is known.

        Args:
            name: The stage.
            elapsed: Seconds since it started.
            progress: What it has counted.
        """
        if progress.total and self._first is None and progress.done:
            self._first = elapsed, progress.done
        if self._first is not None and progress.done > self._first[1]:
            rate = (elapsed - self._first[0]) / (progress.done - self._first[1])
            return rate * max(0, progress.total - progress.done)
        if name not in self.planned:
            return None
        planned = self._corrected(name)
        if progress.total and progress.done:
            return planned * (1.0 - progress.done / progress.total)
        return max(0.0, planned - elapsed)

    def of_stages(self, names: Sequence[str]) -> float | None:
        """Seconds of stages that have not begun; None without a plan."""
        if any(name not in self.planned for name in names):
            return None
        return sum(self._corrected(name) for name in names)

    def _corrected(self, name: str) -> float:
        planned = sum(self.planned.get(stage, 0.0) for stage in self.measured)
        speed = sum(self.measured.values()) / planned if planned else 1.0
        return speed * self.planned[name]


def time_text(seconds: float) -> str:
    """A time that is left, as coarse as it is known: ``40 s``, ``9 min``, ``2 h 05 min``."""
    if seconds < 55:
        return f"{max(5, 5 * round(seconds / 5))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def awaited(kind: str, processes: Sequence[str]) -> str:
    """Cause of the wait of a training stage before its first step, from the names of its processes."""
    first = _LOADING[kind]
    if kind == "sft":
        return f"the model is loaded for {first}" if len(processes) > 1 else "torch and verl are imported"
    if not {"gcs_server", "raylet"} & set(processes):
        return "torch and verl are imported"
    workers = {name for name in processes if name.startswith("ray::") and name != "ray::IDLE"}
    if not workers:
        return "Ray starts"
    return f"workers load the model for {first}" if len(workers) > 1 else "Ray starts the workers"


class StageWatch:
    """Progress of one running stage, from its metrics or its progress file.

    Args:
        stage: The stage.
        metrics: Metrics file of this launch.
        progress: Progress file of the stage.
        processes: Names of its processes.
    """

    def __init__(
        self, stage: Stage, metrics: Path, progress: Path, processes: Callable[[], Sequence[str]]
    ) -> None:
        self._stage, self._progress, self._processes = stage, progress, processes
        self._follower = Follower(metrics)
        self._awaited, self._next = "", 0.0

    def look(self) -> StageProgress:
        """The state of the stage now."""
        if self._stage.total is None:
            progress = read_progress(self._progress)
            return replace(progress, text="modules are imported") if progress == StageProgress() else progress
        step, text = self._follower.look()
        if step == 0 and self._stage.kind in _LOADING:
            if time.monotonic() >= self._next:
                self._next = time.monotonic() + 3.0
                self._awaited = awaited(self._stage.kind, self._processes())
            text = self._awaited
        unit = "steps" if self._stage.kind == "sft" else "updates"
        return StageProgress(step, self._stage.total, unit, text)


class RunProgress:
    """Shows the progress of a run while it is open.

    Args:
        plan: The stages of the run.
        state: The state of the run.
        planned: Planned seconds of each stage.
        console: Where it is shown: bars on a terminal, else lines.
    """

    def __init__(
        self, plan: Sequence[Stage], state: RunState, planned: Mapping[str, float], console: Console
    ) -> None:
        self._plan, self._state, self._console = plan, state, console
        self._left = TimeLeft(planned)
        self._bars = _bars(console) if console.is_terminal else None
        self._run: TaskID | None = None
        self._stage: TaskID | None = None
        self._label, self._started, self._next_line = "", 0.0, 0.0

    def __enter__(self) -> RunProgress:
        if self._bars is not None:
            self._bars.start()
            self._run = self._bars.add_task("run", total=1.0, count="", left="", text="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def begin(self, stage: Stage, label: str) -> None:
        """A stage starts.

        Args:
            stage: The stage.
            label: Its position, title and name.
        """
        done = [entry for entry in self._state.stages if entry.status == "done"]
        self._left.measured = {
            entry.name: entry.wall_s for entry in done if not entry.shared_from and entry.wall_s
        }
        self._left.begin()
        self._label, self._started = label, time.monotonic()
        self._next_line = self._started + LINE_EVERY_S
        if self._bars is not None:
            self._stage = self._bars.add_task(label, total=None, count="", left="", text="")
            self.update(stage, StageProgress())
        else:
            self._line(f"{label} starts", self._remaining(stage, StageProgress()))

    def update(self, stage: Stage, progress: StageProgress) -> None:
        """Show what a stage has done; without a terminal once a minute."""
        if self._bars is None:
            if time.monotonic() >= self._next_line:
                self._next_line += LINE_EVERY_S
                count = f"{progress.done}/{progress.total}" if progress.total else ""
                parts = [part for part in (count, progress.text) if part]
                text = f"{self._label} {', '.join(parts) or 'runs'}"
                self._line(text, self._remaining(stage, progress))
            return
        assert self._stage is not None and self._run is not None
        of_stage, of_run = self._remaining(stage, progress)
        self._bars.update(
            self._stage,
            total=progress.total or None,
            completed=progress.done,
            count=f"{progress.done}/{progress.total} {progress.unit}" if progress.total else "",
            left="" if of_stage is None else f"{time_text(of_stage)} left",
            text=progress.text,
        )
        elapsed = sum(self._left.measured.values()) + time.monotonic() - self._started
        number = self._plan.index(stage)
        share = number / len(self._plan) if of_run is None else elapsed / max(1e-9, elapsed + of_run)
        self._bars.update(
            self._run,
            completed=share,
            count=f"{number}/{len(self._plan)} stages",
            left="" if of_run is None else f"{time_text(of_run)} left",
        )

    def end(self) -> None:
        """The stage has ended."""
        if self._bars is not None and self._stage is not None:
            self._bars.remove_task(self._stage)
            self._stage = None

    def _remaining(self, stage: Stage, progress: StageProgress) -> tuple[float | None, float | None]:
        """Seconds left of the stage and of the run."""
        of_stage = self._left.of_stage(stage.name, time.monotonic() - self._started, progress)
        finished = {entry.name for entry in self._state.stages if entry.status == "done"}
        later = [name for name in (s.name for s in self._plan) if name not in finished | {stage.name}]
        of_later = self._left.of_stages(later)
        return of_stage, None if of_stage is None or of_later is None else of_stage + of_later

    def _line(self, text: str, remaining: tuple[float | None, float | None]) -> None:
        of_stage, of_run = remaining
        left = "" if of_stage is None else f", {time_text(of_stage)} left"
        left += "" if of_run is None else f" (run {time_text(of_run)})"
        self._console.print(f"{text}{left}", markup=False, highlight=False)


def _bars(console: Console) -> Progress:
    """Bars of the run and of its stage, erased at the end."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[count]}", markup=False),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        TextColumn(
            "{task.fields[text]}", style="dim", markup=False, table_column=Column(no_wrap=True, ratio=1)
        ),
        console=console,
        transient=True,
    )

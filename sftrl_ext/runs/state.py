"""Progress and provenance of a run: ``state.json``, which a crash cannot tear."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_json, write_json
from sftrl_ext.runs.typed_json import from_json


@dataclass
class StageState:
    """One stage of a run.

    Attributes:
        kind: ``data``, ``model``, ``sft``, ``rl``, ``choice``, ``eval`` or ``report``.
        arm: "base", "init", or the name of an arm; None for a stage that trains nothing.
        start: ``<stage>@<step>`` an arm's stage starts from.
        status: ``waiting``, ``running``, ``done`` or ``failed``.
        wall_s: Seconds spent in it, over all launches.
        peak_rss_mb: Largest memory of its process tree, MiB.
        launches: Starts of its command.
        key: Key of the stage in the cache; see `sftrl_ext.experiments.stage_cache`.
        shared_from: The run that it was copied from, with its wall time and memory there.
        again: It was asked for once more, so it is not reused from another run.
    """

    name: str
    kind: str = ""
    arm: str | None = None
    seed: int | None = None
    lr: float | None = None
    start: str | None = None
    status: str = "waiting"
    wall_s: float = 0.0
    peak_rss_mb: float = 0.0
    launches: int = 0
    key: str | None = None
    shared_from: str | None = None
    again: bool = False

    @property
    def start_checkpoint(self) -> tuple[str, int] | None:
        """Stage and step it starts from; None where that is not stored or not yet chosen."""
        stage, _, step = (self.start or "").rpartition("@")
        return (stage, int(step)) if step.isdigit() else None


@dataclass
class ModelState:
    """The trained model.

    Attributes:
        parameters: 0 until the model stage has counted them.
        critic_parameters: None where the critic has those of the model, or there is none.
    """

    name: str | None = None
    parameters: int = 0
    critic_parameters: int | None = None


@dataclass(frozen=True)
class RunChange:
    """A change of a run that had begun.

    Attributes:
        time: When it was made, ISO 8601 in UTC.
        overrides: Keys of the recipe with their values.
        again_from: The stage from which stages were done again; None where none was.
        replaced: Folder in the run that has what they had made.
    """

    time: str
    overrides: tuple[str, ...] = ()
    again_from: str | None = None
    replaced: str | None = None

    def __str__(self) -> str:
        again = () if self.again_from is None else (f"again from {self.again_from}",)
        return f"{self.time}: {', '.join((*self.overrides, *again))}"


@dataclass
class RunState:
    """A run; `save` after every change.

    Attributes:
        hardware: See `sftrl_ext.runs.machine.describe_hardware`.
        plugins: Plug-ins to digests of their code; see `sftrl_ext.plugins`.
        plugin_changes: A sentence for each change of them since the run began.
        share: A folder of runs whose finished stages are reused. None: every stage is run.
        changes: Changes of the recipe after the run began, and stages done again.
    """

    recipe: str | None = None
    scale: str | None = None
    title: str = ""
    commit: str = ""
    hardware: dict[str, str | int | float | list[str] | None] = field(default_factory=dict)
    model: ModelState = field(default_factory=ModelState)
    pretrained_on_both_rules: bool = False
    plugins: dict[str, str] = field(default_factory=dict)
    plugin_changes: list[str] = field(default_factory=list)
    share: str | None = None
    stages: list[StageState] = field(default_factory=list)
    changes: list[RunChange] = field(default_factory=list)

    def stage(self, name: str) -> StageState:
        """The state of a stage of the plan.

        Raises:
            SftrlError: if the plan has no such stage.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise SftrlError(f"the run has no stage {name!r}; it has {', '.join(s.name for s in self.stages)}.")

    def save(self, path: Path) -> None:
        """Write the file whole."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> RunState:
        """Read the file that `save` wrote.

        Raises:
            SftrlError: if the file is missing, torn, or not the state of a run.
        """
        return from_json(cls, read_json(path), str(path))

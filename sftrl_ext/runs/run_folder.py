"""A run folder read whole, for reports and the episode viewer.

A file that is missing gives a note (`RunFolder.notes`), so that half a run gives half a report. A file that
is malformed is an error that names file, line and key.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sftrl_ext.errors import SftrlError
from sftrl_ext.plugins import load_plugins
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.metrics import read_training
from sftrl_ext.runs.recipe import StoredRecipe, read_recipe
from sftrl_ext.runs.records import EvalRecord, SampleEpisode, read_episodes, read_eval_records
from sftrl_ext.runs.state import RunState, StageState
from sftrl_ext.runs.token_counts import TokenCount
from sftrl_ext.runs.token_files import read_token_counts


@dataclass
class RunFolder:
    """The stored content of a run folder.

    Attributes:
        data_source: Data source of the first record, ``<task>/<split>``; "" without records.
        tokens: Stage name to {step: cumulative tokens of that stage}.
        training: Stage name to [(step, {metric: value})], in order of steps.
        notes: Sentences about missing files, for the reader of a report.
    """

    folder: Path
    state: RunState = field(default_factory=RunState)
    recipe: StoredRecipe = field(default_factory=StoredRecipe)
    records: list[EvalRecord] = field(default_factory=list)
    episodes: list[SampleEpisode] = field(default_factory=list)
    tokens: dict[str, dict[int, TokenCount]] = field(default_factory=dict)
    training: dict[str, list[tuple[int, dict[str, float]]]] = field(default_factory=dict)
    data_source: str = ""
    notes: list[str] = field(default_factory=list)

    @property
    def stages(self) -> list[StageState]:
        """The stages of the run."""
        return self.state.stages


def load_run(run_dir: Path) -> RunFolder:
    """Read ``run_dir``.

    Raises:
        SftrlError: if the folder does not exist or is no run folder, or a file is malformed.
    """
    layout = RunLayout(Path(run_dir))
    if not layout.root.is_dir():
        raise SftrlError(f"{run_dir}: no such run folder.")
    if not any((layout.root / part).exists() for part in ("state.json", "recipe.yaml", "eval", "stages")):
        raise SftrlError(
            f"{run_dir}: not a run folder: it holds none of state.json, recipe.yaml, eval/, stages/."
        )
    run = RunFolder(layout.root)
    if layout.state.is_file():
        run.state = RunState.load(layout.state)
        run.notes += run.state.plugin_changes
    else:
        run.notes.append("`state.json` is not there: no stage times, no hardware, no model size.")
    if layout.recipe.is_file():
        run.recipe = read_recipe(layout.recipe)
        _load_plugins(run)
    else:
        run.notes.append("`recipe.yaml` is not there: no numbers of the paper to compare with.")
    _read_evaluation(run, layout)
    for folder in sorted(path for path in (layout.root / "stages").glob("*") if path.is_dir()):
        if training := read_training(folder, lambda path: _torn(run, path)()):
            run.training[folder.name] = training
        path = layout.tokens(folder.name)
        if path.is_file():
            run.tokens[folder.name] = read_token_counts(path, _torn(run, path))
    return run


def _load_plugins(run: RunFolder) -> None:
    """Import the plug-ins of the run; without that of its task, titles and lambda are the defaults."""
    try:
        load_plugins(run.recipe.plugins)
    except SftrlError as error:
        run.notes.append(f"Plug-ins of the run are not known here: {error}")


def _read_evaluation(run: RunFolder, layout: RunLayout) -> None:
    run.records = list(read_eval_records(layout, _torn(run, layout.records)).values())
    if run.records:
        run.data_source = run.records[0].data_source
    else:
        run.notes.append("No evaluation records yet (`eval/records.jsonl`): no success figures, no verdict.")
    for reason in sorted({r.divergence.absent for r in run.records if r.divergence and r.divergence.absent}):
        run.notes.append(f"The divergence from the start was not measured: {reason}.")
    run.episodes = read_episodes(layout, _torn(run, layout.episodes))
    if not run.episodes:
        run.notes.append("No sample episodes were stored (`eval/episodes.jsonl`).")


def _torn(run: RunFolder, path: Path) -> Callable[[], None]:
    """Notes a last line of a file that a killed writer left incomplete."""
    name = f"{path.parent.name}/{path.name}"
    return lambda: run.notes.append(f"The last line of `{name}` is cut short and not used.")

"""Choice of a start among another arm's checkpoints by their measured success.

``start: sft@lowest:rule_ood`` starts from the saved checkpoint of arm ``sft`` that does worst on split
``rule_ood``. It is a stage of its own: it evaluates those checkpoints on that split, keeps the records with
those of the run, writes `CHOICE` and links the chosen model, so that the commands after it can be written
before anything is measured.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_json, write_json
from sftrl_ext.runs.checkpoints import list_checkpoints
from sftrl_ext.runs.records import EvalRecord, read_eval_records

if TYPE_CHECKING:
    from sftrl_ext.experiments.recipe.arms import Start
    from sftrl_ext.experiments.recipe.schema import Recipe
    from sftrl_ext.runs.layout import RunLayout
    from sftrl_ext.runs.state import RunState

CHOICE = "choice.json"
"""File of the choice: ``stage``, ``step``, ``split``, ``measure``, ``percent``, and ``candidates``, the
[step, percent] of every checkpoint."""

MODEL = "model"
"""Link to the chosen checkpoint's model, in the folder of the stage."""


def choice_stage(start: Start) -> str:
    """Name of the stage that chooses a start."""
    return f"lowest-{start.lowest}-of-{start.stage}"


def selector(start: Start) -> str:
    """The start as the plan and the state of a run name it: ``<stage>@<step>``, or what chooses the step."""
    return f"{start.stage}@{start.step if start.lowest is None else f'lowest:{start.lowest}'}"


def choose_start(recipe: Recipe, layout: RunLayout, name: str) -> None:
    """Evaluate the candidates of a choice, and link the chosen one.

    Args:
        recipe: The recipe.
        layout: The run.
        name: Name of the stage, as `choice_stage` makes it.

    Raises:
        SftrlError: if no arm of the recipe starts by that choice.
    """
    from sftrl_ext.experiments.evaluation.checkpoints import evaluate_checkpoints
    from sftrl_ext.experiments.evaluation.targets import eval_set_of
    from sftrl_ext.experiments.recipe.arms import arm_runs
    from sftrl_ext.runs.state import RunState

    starts = {choice_stage(run.start): run.start for run in arm_runs(recipe) if run.start.lowest is not None}
    if name not in starts:
        raise SftrlError(
            f"no arm starts by the choice {name!r}; the choices are {', '.join(starts) or 'none'}."
        )
    start = starts[name]
    assert start.stage is not None and start.lowest is not None
    state = RunState.load(layout.state)
    candidates = replace(state, stages=[state.stage(start.stage)])
    evaluate_checkpoints(recipe, candidates, layout, [eval_set_of(recipe, layout, start.lowest)])
    records = read_eval_records(layout).values()
    choice = lowest([r for r in records if (r.stage, r.split) == (start.stage, start.lowest)])
    folders = {c.step: c.folder for c in list_checkpoints(layout.checkpoints(start.stage))}
    folder = layout.stage(name)
    link_model(folders[choice["step"]], folder / MODEL)
    write_json(folder / CHOICE, {"stage": start.stage, "split": start.lowest, **choice})


def lowest(records: Sequence[EvalRecord]) -> dict[str, Any]:
    """The checkpoint with the lowest success, of several the earliest.

    Args:
        records: Records of one stage on one split. Success is per step where responses are counted (routes),
            and per episode elsewhere.

    Returns:
        ``step``, ``measure``, ``percent`` and ``candidates``.

    Raises:
        SftrlError: if there is no record.
    """
    if not records:
        raise SftrlError("no checkpoint was evaluated, so none can be chosen; expected at least one record.")
    per_step = all(record.responses for record in records)
    part, total = ("correct_actions", "responses") if per_step else ("solved", "episodes")
    candidates = sorted((r.step, 100.0 * getattr(r, part) / getattr(r, total)) for r in records)
    step, percent = min(candidates, key=lambda candidate: (candidate[1], candidate[0]))
    return {
        "step": step,
        "measure": "per_step" if per_step else "success",
        "percent": round(percent, 3),
        "candidates": [[step, round(value, 3)] for step, value in candidates],
    }


def link_model(model: Path, link: Path) -> None:
    """Point a link at a model of the same run, relative so that the run folder can be moved."""
    link.parent.mkdir(parents=True, exist_ok=True)
    partial = link.with_name(f".{link.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(os.path.relpath(model, link.parent), target_is_directory=True)
    os.replace(partial, link)


def note_choice(state: RunState, layout: RunLayout, name: str) -> str:
    """Enter the chosen step in the state of the run, for every stage that starts from it.

    Returns:
        The choice as a sentence.
    """
    choice = read_json(layout.stage(name) / CHOICE)
    chosen = f"{choice['stage']}@{choice['step']}"
    for stage in state.stages:
        if stage.start == f"{choice['stage']}@lowest:{choice['split']}":
            stage.start = chosen
    return (
        f"{chosen} has the lowest success on {choice['split']}: {choice['percent']:g} % ({choice['measure']})"
    )


def chosen_models(layout: RunLayout) -> dict[Path, tuple[str, str]]:
    """Links of the choices made so far, to the stage and the path in its folder that they stand for."""
    models = {}
    for path in sorted((layout.root / "stages").glob(f"*/{CHOICE}")):
        stage = str(read_json(path)["stage"])
        model = os.path.normpath(path.parent / os.readlink(path.parent / MODEL))
        models[path.parent / MODEL] = (stage, os.path.relpath(model, layout.stage(stage)))
    return models

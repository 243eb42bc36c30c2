"""Changes of a run that has begun: other values for stages that have not, and stages that are done again.

What stages had made that are done again is moved into ``replaced/<time>`` of the run; nothing is deleted.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.plan import Stage, make_plan
from sftrl_ext.experiments.recipe.arms import arm_runs
from sftrl_ext.experiments.recipe.recipe_files import changed_recipe, from_yaml, to_yaml
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.experiments.stage_cache import effective_args
from sftrl_ext.experiments.stage_order import dependents
from sftrl_ext.experiments.subprocesses import kill_leftovers
from sftrl_ext.files import write_text
from sftrl_ext.paths import shown_path
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.records import read_episodes, read_eval_records, write_records
from sftrl_ext.runs.state import RunChange, RunState, StageState


def change_run(
    layout: RunLayout, overrides: Sequence[str], again_from: str | None, say: Callable[[str], None]
) -> None:
    """Change a run that no process runs; its state keeps the change with the time.

    Args:
        layout: The run.
        overrides: Keys of the recipe with other values, of stages that have not begun or are done again.
        again_from: Stage that is done again, with those that depend on it; None for none.
        say: Receives a line about what is moved.

    Raises:
        SftrlError: if a key concerns a stage that has begun, or there is no such stage.
    """
    state, recipe = RunState.load(layout.state), from_yaml(layout.recipe)
    changed = changed_recipe(layout.recipe, overrides) if overrides else recipe
    redone = set() if again_from is None else dependents(recipe, layout, again_from)
    begun = [stage.name for stage in state.stages if stage.status != "waiting" and stage.name not in redone]
    _refuse_changes_of(begun, recipe, changed, layout, overrides)
    time = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    folder = layout.replaced(time)
    if redone:
        _move_aside(layout, state, redone, time, everything=again_from == "eval")
        names = [stage.name for stage in state.stages if stage.name in redone]
        say(f"again: {', '.join(names)}; what they had made: {shown_path(folder)}")
    if overrides:
        if not layout.begun_recipe.exists():
            shutil.copyfile(layout.recipe, layout.begun_recipe)
        write_text(layout.recipe, to_yaml(changed))
    entries = {stage.name: stage for stage in state.stages if stage.name not in redone}
    state.stages = [
        entries.get(stage.name) or new_state(stage, stage.name in redone)
        for stage in make_plan(changed, layout.root)
    ]
    replaced = str(folder.relative_to(layout.root)) if redone else None
    state.changes.append(RunChange(time, tuple(overrides), again_from, replaced))
    state.save(layout.state)


def new_state(stage: Stage, again: bool = False) -> StageState:
    """State of a stage that has not begun."""
    return StageState(stage.name, stage.kind, stage.arm, stage.seed, stage.lr, stage.start, again=again)


def stage_inputs(recipe: Recipe, layout: RunLayout) -> dict[str, Any]:
    """All that a recipe says to each of its stages; a stage with the same inputs does the same work."""
    budget, scale = recipe.budget, recipe.scale
    evaluation = {
        "eval": asdict(budget.eval),
        "limits": [budget.rl.max_prompt_length, budget.rl.max_response_length, budget.rl.max_prompts]
        + [budget.rl.max_turn_tokens],
        "splits": [recipe.task.train_split, recipe.task.eval_splits],
        "engine": [scale.engine, scale.backend, scale.tensor_parallel, recipe.model.dtype],
    }
    inputs: dict[str, Any] = {
        "data": {
            "task": asdict(recipe.task),
            "rows": [
                [name, config and [config.rows, config.dialogues]]
                for name, config in (("base", budget.base), ("dialogues", budget.dialogues))
            ],
            "init": budget.init.rows,
            "arms": [
                [run.rows, run.config.kind, run.config.rows, run.config.splits, run.config.max_attempts]
                + [run.data_rows, run.config.solutions, run.config.replay]
                for run in arm_runs(recipe)
            ],
            "eval": [budget.eval.hands, budget.eval.hands_of, budget.eval.seed],
        },
        "model": {"model": asdict(recipe.model), "portable": scale.nnodes > 1, "engine": scale.engine},
        "choice": evaluation,
        "answers": [budget.own_answers, budget.rl.temperature, budget.rl.max_turn_tokens]
        + [
            [run.sampled_by, run.budget.rows, run.data_rows, getattr(run.budget, "prompt_samples", None)]
            for run in arm_runs(recipe)
        ],
        "eval": evaluation,
        "report": [recipe.title, recipe.rl_tokens, [asdict(entry) for entry in recipe.expected]],
    }
    plan = make_plan(recipe, layout.root)
    return {
        stage.name: inputs[stage.kind] if stage.kind in inputs else effective_args(stage) for stage in plan
    }


def _refuse_changes_of(
    begun: Collection[str], recipe: Recipe, changed: Recipe, layout: RunLayout, overrides: Sequence[str]
) -> None:
    """Refuse values that stages which have begun would have run with otherwise."""
    before, after = stage_inputs(recipe, layout), stage_inputs(changed, layout)
    concerned = [name for name in before if name in begun and before[name] != after.get(name)]
    if concerned:
        text = shlex.join(overrides)
        free = [name for name in after if name not in begun]
        raise SftrlError(
            f"{text}: concerns {', '.join(concerned)}, found begun or done in {shown_path(layout.root)}; "
            f"expected keys of stages not yet begun ({', '.join(free) or 'none is left'}). To do them again: "
            f"`sftrl resume {shown_path(layout.root)} {text} --from {concerned[0]}`."
        )


def _move_aside(
    layout: RunLayout, state: RunState, redone: Collection[str], time: str, everything: bool
) -> None:
    """Move what stages have made into the folder of a time.

    Args:
        layout: The run.
        state: Its state.
        redone: The stages.
        time: The time.
        everything: All records of the evaluation, those of other stages' checkpoints too.
    """
    target = RunLayout(layout.replaced(time))
    target.root.mkdir(parents=True)
    outputs = [(layout.stage(name), target.stage(name)) for name in redone]
    if "data" in redone:
        outputs.append((layout.data, target.data))
    if "model" in redone:
        outputs.append((layout.start_model, target.start_model))
    if "report" in redone:
        outputs.append((layout.report, target.report))
    for name in redone:
        kill_leftovers(layout.stage(name) / "process.json")
    for source, moved in outputs:
        if source.is_dir():
            moved.parent.mkdir(parents=True, exist_ok=True)
            source.rename(moved)
    if "eval" in redone and layout.evaluation.is_dir():
        shutil.copytree(layout.evaluation, target.evaluation)
        dropped = {stage.name for stage in state.stages} if everything else set(redone)
        _drop_evaluation(layout, dropped)


def _drop_evaluation(layout: RunLayout, stages: Collection[str]) -> None:
    """Remove the evaluation of some stages' checkpoints."""
    records = [record for record in read_eval_records(layout).values() if record.stage not in stages]
    episodes = [episode for episode in read_episodes(layout) if episode.stage not in stages]
    write_records(layout, records, episodes)
    for path in layout.evaluation.glob("played/*@*.json"):
        if path.name.rpartition("@")[0] in stages:
            path.unlink()

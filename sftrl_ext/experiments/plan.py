"""From a recipe to the list of its stages: every command, in order, before anything runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from sftrl_ext.envs import TASKS
from sftrl_ext.errors import unknown_name
from sftrl_ext.experiments import verl_commands
from sftrl_ext.experiments.evaluation.units import gpus_per_engine, worker_count
from sftrl_ext.experiments.recipe.arms import ArmRun, Start, arm_runs, needs_init
from sftrl_ext.experiments.recipe.schema import Recipe, SFTConfig
from sftrl_ext.experiments.start_models.start_choice import MODEL, choice_stage, selector
from sftrl_ext.plugins import plugin_env
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.training.engine_settings import engine_env


@dataclass(frozen=True)
class Stage:
    """One command of a run.

    Attributes:
        name: Unique in the run; also its folder.
        kind: ``data``, ``model``, ``sft``, ``rl``, ``choice``, ``answers``, ``eval`` or ``report``.
        command: The argument list.
        env: Variables the command needs beyond the caller's.
        arm: ``base``, ``init``, or the name of an arm, for training stages.
        seed: Seed of the arm.
        lr: Learning rate of the arm.
        total: Steps, for progress; None where there are none.
        start: ``<stage>@<step>`` an arm's stage starts from, or ``<stage>@lowest:<split>``.
        title: What it does, in words.
        sampled_by: The stage that sampled its rows, whose compute counts as its own.
    """

    name: str
    kind: str
    command: tuple[str, ...]
    title: str
    env: Mapping[str, str] = field(default_factory=dict)
    arm: str | None = None
    seed: int | None = None
    lr: float | None = None
    total: int | None = None
    start: str | None = None
    sampled_by: str | None = None


def make_plan(recipe: Recipe, run_dir: Path) -> list[Stage]:
    """The stages of a run, in the order in which they run.

    Every arm comes after what it starts from; every seed has training rows of its own.
    """
    layout = RunLayout(run_dir)
    budget = recipe.budget
    stages = [_internal("data", "data", _data_title(recipe), run_dir)]
    stages.append(_internal("model", "model", "put the start model into the run folder", run_dir))
    base, base_is = layout.start_model, "model@0"
    for name, config in (("base", budget.base), ("dialogues", budget.dialogues)):
        if config is not None:
            stages.append(_sft(recipe, layout, name, "base", config, base, name))
            base, base_is = saved_model(layout, name, config.steps), f"{name}@{config.steps}"
    if needs_init(recipe):
        stages.append(_sft(recipe, layout, "init", "init", budget.init, base, "init"))
    for run in arm_runs(recipe):
        chosen = _choice(layout, run.start)
        before = [stage for stage in (chosen, _answers(layout, run)) if stage is not None]
        stages += [stage for stage in before if stage.name not in {planned.name for planned in stages}]
        stages.append(_arm(recipe, layout, run, base_is))
    stages.append(_internal("eval", "eval", _eval_title(recipe), run_dir))
    stages.append(_internal("report", "report", "draw the figures and write the report", run_dir))
    plugins = plugin_env(recipe.plugins)
    return [replace(stage, env={**plugins, **stage.env}) for stage in stages]


GROUPS = {"train": ("sft", "choice", "answers", "rl")}
"""Names of several kinds of stages."""

WITHOUT_GPU = ("data", "model", "report")
"""Kinds of stages that use no GPU at any scale."""


def select_stages(plan: Sequence[Stage], names: str) -> list[Stage]:
    """The stages of some names, kinds, or `GROUPS` of kinds, in the order of the plan.

    Args:
        plan: All stages.
        names: The names, separated by commas.

    Raises:
        SftrlError: for a name that is none of these, with the nearest one.
    """
    accepted = {*(stage.name for stage in plan), *(stage.kind for stage in plan), *GROUPS}
    kinds: set[str] = set()
    for name in names.split(","):
        if name not in accepted:
            raise unknown_name("stage or kind of stage", name, accepted)
        kinds.update(GROUPS.get(name, (name,)))
    return [stage for stage in plan if kinds & {stage.name, stage.kind}]


_TITLES = {
    "base": "pre-train the base model",
    "dialogues": "pre-train it on dialogues with feedback",
    "init": "SFT init that arms start from",
    "sft": "SFT arm",
    "rl": "RL arm",
}


def saved_model(layout: RunLayout, stage: str, step: int, kind: str = "sft") -> Path:
    """The model folder of a saved step, before or after it is there.

    Args:
        layout: The run.
        stage: The stage that saves it.
        step: The step.
        kind: ``sft``, or ``rl``, whose actor lies one folder deeper.
    """
    folder = layout.checkpoints(stage) / f"global_step_{step}"
    return (folder / "actor" if kind == "rl" else folder) / "huggingface"


def _data_title(recipe: Recipe) -> str:
    """Title of the data stage, with the keys of those cities that it makes up."""
    text = "build the parquet files"
    synthetic = TASKS[recipe.task.kind].made_up(asdict(recipe.task), True)
    return f"{text} ({' and '.join(synthetic)}: synthetic cities, for want of a path)" if synthetic else text


def _eval_title(recipe: Recipe) -> str:
    """Title of the evaluation, with the number of its engines."""
    engine, workers, gpus = recipe.scale.engine, worker_count(recipe.scale), gpus_per_engine(recipe.scale)
    text = "evaluate every checkpoint on every split"
    if workers == 0:
        return f"{text} (1 {engine} engine)"
    each = f" of {gpus} GPU{'s' * (gpus > 1)}" if gpus else ""
    return f"{text} ({workers} {engine} engine{'s' * (workers > 1)}{each})"


def _internal(name: str, kind: str, title: str, run_dir: Path) -> Stage:
    command = (sys.executable, "-m", "sftrl_ext.experiments.stages", kind, str(run_dir))
    return Stage(name=name, kind=kind, command=command, title=title)


def _sft(
    recipe: Recipe, layout: RunLayout, name: str, arm: str, config: SFTConfig, model: Path, rows: str
) -> Stage:
    """A supervised stage before the arms."""
    command, env = verl_commands.sft_command(
        recipe, config, model, layout.rows(rows), layout.checkpoints(name), name, 0
    )
    return Stage(name, "sft", tuple(command), _TITLES[name], env, arm, 0, config.lr, config.steps)


def _choice(layout: RunLayout, start: Start) -> Stage | None:
    """The stage that chooses a start; None where the recipe names its step."""
    if start.lowest is None:
        return None
    name = choice_stage(start)
    title = f"choose the checkpoint of {start.stage} with the lowest success on {start.lowest}"
    stage = _internal(name, "choice", title, layout.root)
    return replace(stage, command=(*stage.command, name))


def _answers(layout: RunLayout, run: ArmRun) -> Stage | None:
    """The stage that samples an arm's rows from the model it starts from; None if there is none."""
    if run.sampled_by is None:
        return None
    action = "sample the rows" if run.config.kind == "sft" else "choose the prompts"
    stage = _internal(run.sampled_by, "answers", f"{action} of {run.stage} from its start", layout.root)
    return replace(stage, command=(*stage.command, run.sampled_by))


def start_folder(recipe: Recipe, layout: RunLayout, start: Start) -> Path:
    """The model folder that a run starts from, before or after it is there."""
    if start.lowest is not None:
        return layout.stage(choice_stage(start)) / MODEL
    if start.stage is not None:
        return saved_model(layout, start.stage, start.step, start.kind)
    trained = [(name, getattr(recipe.budget, name)) for name in ("dialogues", "base")]
    last = next(((name, config.steps) for name, config in trained if config is not None), None)
    return layout.start_model if last is None else saved_model(layout, *last)


def _arm(recipe: Recipe, layout: RunLayout, run: ArmRun, base_is: str) -> Stage:
    """One run of an arm."""
    name, arm, start = run.stage, run.config, run.start
    model = start_folder(recipe, layout, start)
    rows, checkpoints = layout.rows(run.rows), layout.checkpoints(name)
    engine = engine_env(arm.freeze or recipe.model.freeze, arm.loss, arm.kl_coef)
    if isinstance(run.budget, SFTConfig):
        command, env = verl_commands.sft_command(
            recipe, run.budget, model, rows, checkpoints, name, run.seed, engine
        )
    else:
        validation = [layout.eval_rows(split) for split in recipe.task.eval_splits]
        command, env = verl_commands.ppo_command(
            recipe, run.budget, model, rows, validation, checkpoints, name, run.seed, engine
        )
    title = arm.title or _TITLES.get(run.arm, f"{_TITLES[arm.kind]} {run.arm}")
    origin = base_is if start.stage is None else selector(start)
    return Stage(
        name,
        arm.kind,
        tuple(command),
        title,
        env,
        run.arm,
        run.seed,
        run.budget.lr,
        run.total,
        origin,
        run.sampled_by,
    )

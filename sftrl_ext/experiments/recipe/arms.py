"""Arms of a recipe, and their runs: one for each seed and learning rate.

An arm is trained by SFT or by RL from a start: the shared ``init``, the ``base`` model before it, or a saved
checkpoint of another arm. `arm_runs` orders the runs so that every start exists before it is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sftrl_ext.envs import TASKS
from sftrl_ext.errors import SftrlError, named, unknown_name
from sftrl_ext.experiments.recipe.arm_config import ArmConfig
from sftrl_ext.experiments.recipe.ranges import check_ranges
from sftrl_ext.experiments.recipe.schema import Recipe, RLConfig, SFTConfig
from sftrl_ext.experiments.recipe.trainer_modes import gpu_split
from sftrl_ext.training.engine_settings import FREEZABLE, LOSSES

KINDS = ("sft", "rl")
ROWS = ("expert", "reasoned", "suboptimal", "own")
"""Rows of SFT."""
RL_ROWS = ("expert", "learnable")
SAMPLED_ROWS = ("own", "learnable")
"""Rows that the model samples which an arm starts from."""
ROW_FILES = (".parquet", ".json")
"""Endings of a file of rows: our schema, or the authors' list of conversations."""

RESERVED = ("base", "dialogues", "init", "data", "model", "eval", "report")
"""Names of stages that no arm may have."""
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_START = re.compile(r"([a-z][a-z0-9_]*)@(last|[0-9]+%?|lowest:[a-z0-9_]+)")


@dataclass(frozen=True)
class Start:
    """The checkpoint a run starts from.

    Attributes:
        stage: Its stage; None for the start model: the base, or with ``model.role=init`` the init.
        step: Its step; the last one where it is yet to be chosen.
        kind: What trained it, ``sft`` or ``rl``.
        lowest: Split by whose measured success the step is chosen; None where the recipe names the step.
    """

    stage: str | None
    step: int = 0
    kind: str = "sft"
    lowest: str | None = None


@dataclass(frozen=True)
class ArmRun:
    """One run of an arm.

    Attributes:
        arm: Name of the arm.
        config: The arm.
        seed: Its seed.
        budget: Steps, batches and the learning rate, with all that the arm changes.
        start: Where it starts.
        rows: Name of its file of training rows; arms that need the same rows share it.
    """

    arm: str
    config: ArmConfig
    seed: int
    budget: SFTConfig | RLConfig
    start: Start
    rows: str

    @property
    def stage(self) -> str:
        """Name of its stage."""
        return stage_name(self.arm, self.budget.lr, self.seed)

    @property
    def total(self) -> int:
        """Steps of SFT, updates of RL."""
        return total_steps(self.budget)

    @property
    def sampled_by(self) -> str | None:
        """Stage that samples its rows from the model it starts from; None if the data stage makes them."""
        return f"answers-{self.rows}" if self.config.rows in SAMPLED_ROWS else None

    @property
    def prompts(self) -> str:
        """Name of the file of prompts that its rows are sampled for."""
        return f"{self.rows}-prompts"

    @property
    def data_rows(self) -> int:
        """Rows that the data stage makes for it: of training, or prompts that are sampled for."""
        if isinstance(self.budget, RLConfig) and self.sampled_by is not None:
            return self.budget.tried_prompts
        return self.budget.rows


def stage_name(arm: str, lr: float, seed: int) -> str:
    """Name of the stage of one arm, learning rate and seed."""
    return f"{arm}-lr{lr:g}-s{seed}"


def total_steps(budget: SFTConfig | RLConfig) -> int:
    """Length of a budget: steps of SFT, updates of RL."""
    return cast(int, getattr(budget, "steps", None) or getattr(budget, "updates", None))


def saved_steps(budget: SFTConfig | RLConfig) -> list[int]:
    """The steps that verl saves: every ``save_every``-th, and the last."""
    total, every = total_steps(budget), budget.save_every
    return sorted({*(range(every, total + 1, every) if every > 0 else ()), total})


def arm_runs(recipe: Recipe) -> list[ArmRun]:
    """Every run of every arm, in an order in which they can run.

    Raises:
        SftrlError: if an arm has a value that is unknown or without effect, or a start that is not there.
    """
    waiting: list[ArmRun] = []
    budgets = {name: arm_budget(recipe, name) for name in recipe.arms}
    for seed in _all_seeds(recipe):
        for name, arm in recipe.arms.items():
            if seed in _seeds(recipe, arm):
                start = _start(recipe, name, seed)
                first = _first_with_rows_of(recipe, budgets, name)
                rows = f"{first}-file" if is_row_file(arm.rows) else f"{first}-s{seed}"
                for lr in _rates(recipe, name):
                    waiting.append(ArmRun(name, arm, seed, replace(budgets[name], lr=lr), start, rows))
    ordered: list[ArmRun] = []
    # The start model (None) and the init exist before any arm. Of the runs that are ready the first goes
    # next, so arms keep the recipe's order where their starts allow it.
    trained: set[str | None] = {None, "init"}
    while waiting:
        ready = next((run for run in waiting if run.start.stage in trained), None)
        if ready is None:
            names = ", ".join(dict.fromkeys(run.arm for run in waiting))
            raise SftrlError(f"arms: {names} start from each other in a circle.")
        waiting.remove(ready)
        ordered.append(ready)
        trained.add(ready.stage)
    return ordered


def gives_init(recipe: Recipe) -> bool:
    """True if the start model is the init itself, so that none is trained."""
    return recipe.model.role == "init"


def needs_init(recipe: Recipe) -> bool:
    """True if an init is trained: an arm starts from it, and the start model is not one itself."""
    return not gives_init(recipe) and any(arm.start == "init" for arm in recipe.arms.values())


def starts_from_base(recipe: Recipe) -> bool:
    """True if an arm starts from the base model."""
    return any(arm.start == "base" for arm in recipe.arms.values())


def arm_budget(recipe: Recipe, name: str) -> SFTConfig | RLConfig:
    """The budget of an arm, with what it changes.

    Raises:
        SftrlError: if a key of the arm's ``budget`` or ``times`` is unknown, or a value is of another type.
    """
    arm = recipe.arms[name]
    base: SFTConfig | RLConfig = recipe.budget.sft if arm.kind == "sft" else recipe.budget.rl
    known = [key.name for key in fields(base)]
    by_rows = recipe.budget.sft_by_rows.get(arm.rows, {}) if arm.kind == "sft" else {}
    for where, keys in (
        (f"budget.sft_by_rows.{arm.rows}", by_rows),
        (f"arms.{name}.budget", arm.budget),
        (f"arms.{name}.times", arm.times),
    ):
        for key in keys:
            if key not in known:
                raise SftrlError(f"{where}: {unknown_name(f'key of {type(base).__name__}', key, known)}")
    budget = replace(base)
    for where, values in ((f"budget.sft_by_rows.{arm.rows}", by_rows), (f"arms.{name}.budget", arm.budget)):
        if values:  # checking types by OmegaConf takes 10 ms, and a plan asks for a budget hundreds of times
            budget = _merged(budget, values, where)
    for key, factor in arm.times.items():
        value = getattr(budget, key)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise SftrlError(f"arms.{name}.times: {key} is {value!r}, expected a number to multiply.")
        # 0 and -1 switch something off (``save_every``), which a factor must not change.
        if value > 0:
            setattr(budget, key, max(1, round(value * factor)) if isinstance(value, int) else value * factor)
    return budget


def _merged(budget: SFTConfig | RLConfig, values: Mapping[str, Any], where: str) -> SFTConfig | RLConfig:
    """A budget with other values, checked against the types of its keys."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(budget), values)
    except OmegaConfBaseException as error:
        raise SftrlError(f"{where}: {str(error).splitlines()[0]}") from None
    return cast("SFTConfig | RLConfig", OmegaConf.to_object(merged))


def check_arms(path: Path, recipe: Recipe) -> None:
    """Refuse arms that compose but cannot run, or have a value without effect.

    Raises:
        SftrlError: naming the recipe, the arm and the key.
    """
    for rows in recipe.budget.sft_by_rows:
        if rows not in ROWS:
            raise SftrlError(f"{path}: budget.sft_by_rows: {unknown_name('rows', rows, ROWS)}")
    if not recipe.arms:
        raise SftrlError(f"{path}: arms: there is none; expected at least one, as in {{sft: {{kind: sft}}}}.")
    for name, arm in recipe.arms.items():
        where = f"{path}: arms.{name}"
        if not _NAME.fullmatch(name) or name in RESERVED:
            raise SftrlError(
                f"{where}: not a name for an arm; expected small letters, digits and _, and none of "
                f"{', '.join(RESERVED)}."
            )
        for key, value, values in (
            ("kind", arm.kind, KINDS),
            ("loss", arm.loss, LOSSES),
            ("freeze", arm.freeze, (None, *FREEZABLE)),
        ):
            if value not in values:
                choices = [choice for choice in values if choice is not None]
                raise SftrlError(f"{where}.{key}: {unknown_name(key, str(value), choices)}")
        _check_rows(where, arm)
        _check_made_rows(where, arm, recipe)
        no_working = TASKS[recipe.task.kind].no_working
        if arm.rows == "reasoned" and no_working is not None:
            raise SftrlError(
                f"{where}.rows: 'reasoned' is not for task kind {recipe.task.kind!r}: {no_working}. Expected "
                "expert or suboptimal."
            )
        if recipe.task.working and no_working is not None:
            raise SftrlError(
                f"task.working: true is not for task kind {recipe.task.kind!r}: {no_working}. Expected false."
            )
        from_file = is_row_file(arm.rows)
        dead = {
            "lr_times": bool(arm.lrs and arm.lr_times),
            "splits": from_file and bool(arm.splits),
            "max_attempts": from_file and arm.max_attempts is not None,
            "loss": arm.kind == "rl" and arm.loss != "nll",
            "kl_coef": arm.kl_coef is not None and (arm.kind == "rl" or not LOSSES[arm.loss].anchored),
            "freeze": arm.freeze is not None and recipe.task.modality != "image",
            "solutions": arm.solutions is not None
            and (
                arm.kind == "rl" or from_file or arm.rows == "own" or TASKS[recipe.task.kind].solution is None
            ),
            "replay": arm.replay > 0 and (arm.kind == "rl" or arm.rows != "expert"),
            "budget.lr": "lr" in arm.budget and bool(arm.lrs),
        }
        for key, without in dead.items():
            if without:
                raise SftrlError(f"{where}.{key}: has no effect beside the arm's other keys; leave it out.")
    try:
        for run in arm_runs(recipe):
            check_ranges(run.budget, f"arms.{run.arm}: budget.{run.config.kind}")
            _check_batches(run, _ranks(recipe, run.config))
    except SftrlError as error:
        raise SftrlError(f"{path}: {error}") from None


def is_row_file(name: str) -> bool:
    """True if an arm's rows are a file, by the ending of its name."""
    return Path(name).suffix.lower() in ROW_FILES


def _check_rows(where: str, arm: ArmConfig) -> None:
    """Refuse rows that are neither a kind of rows nor a file that is there."""
    if not is_row_file(arm.rows):
        choices = ROWS if arm.kind == "sft" else RL_ROWS
        if arm.rows not in choices:
            nearest = unknown_name(f"rows of {arm.kind.upper()}", arm.rows, choices)
            raise SftrlError(f"{where}.rows: {nearest} A file of rows ends in .parquet or .json.")
        return
    if not Path(arm.rows).is_file():
        raise SftrlError(f"{where}.rows: {arm.rows}: no such file; expected rows to train on.")
    if arm.kind == "rl" and Path(arm.rows).suffix.lower() == ".json":
        raise SftrlError(
            f"{where}.rows: {arm.rows} holds answers, which RL does not train on; expected a .parquet file "
            "of prompts with the facts of their episodes, as `sftrl data rl` builds."
        )


def _check_made_rows(where: str, arm: ArmConfig, recipe: Recipe) -> None:
    """Refuse rows that the task cannot make, or not in that way."""
    if arm.rows == "own" and TASKS[recipe.task.kind].several_prompts:
        raise SftrlError(
            f"{where}.rows: 'own' is not for task kind {recipe.task.kind!r}, whose episodes have several "
            f"prompts; expected one of {', '.join(ROWS[:-1])}."
        )
    if arm.replay and recipe.budget.base is None:
        raise SftrlError(
            f"{where}.replay: {arm.replay:g}; expected 0, as this run has no pre-training (budget.base)."
        )
    if arm.solutions is not None:
        from data_prep.task_rows import find_rows  # a plan needs no pyarrow

        task = replace(recipe.task, solutions=arm.solutions)
        with named(f"{where}.solutions"):
            find_rows(task.kind).check(task, {})


def _ranks(recipe: Recipe, arm: ArmConfig) -> int:
    """Training processes of an arm."""
    if arm.kind == "rl":
        return gpu_split(recipe.scale).ranks
    return recipe.scale.n_gpus_per_node * recipe.scale.nnodes


def _check_batches(run: ArmRun, ranks: int) -> None:
    budget: Any = run.budget
    if run.config.kind == "sft":
        sizes = [("batch_size", budget.batch_size, ranks)]
    else:
        sizes = [
            ("episodes", budget.episodes, budget.group * budget.minibatches),
            ("episodes", budget.episodes // max(1, budget.minibatches), ranks),
        ]
    for key, value, by in sizes:
        if by < 1 or value % by:
            raise SftrlError(
                f"arms.{run.arm}: budget.{run.config.kind}.{key}: {value} cannot be divided evenly by {by} "
                f"(ranks: {ranks})."
            )


def _seeds(recipe: Recipe, arm: ArmConfig) -> list[int]:
    return list(arm.seeds) or list(recipe.sweep.seeds)


def _all_seeds(recipe: Recipe) -> list[int]:
    return list(dict.fromkeys(seed for arm in recipe.arms.values() for seed in _seeds(recipe, arm)))


def _rates(recipe: Recipe, name: str) -> list[float]:
    arm, sweep = recipe.arms[name], recipe.sweep
    given = sweep.sft_lrs if arm.kind == "sft" else sweep.rl_lrs
    rate = arm_budget(recipe, name).lr
    return list(given) or list(arm.lrs) or [float(f"{rate * t:.6g}") for t in arm.lr_times] or [rate]


def _start(recipe: Recipe, name: str, seed: int) -> Start:
    """Start of an arm: the same seed of the other arm if that has it, else its only seed."""
    start = recipe.arms[name].start
    if start == "base" and gives_init(recipe):
        raise SftrlError(
            f"arms.{name}.start: 'base', but model.role is init, and the model before the init is not in "
            "the run. Expected init, or model.role=base."
        )
    if start == "base" or (start == "init" and gives_init(recipe)):
        return Start(None)
    if start == "init":
        return Start("init", recipe.budget.init.steps)
    match = _START.fullmatch(start)
    if match is None:
        raise SftrlError(
            f"arms.{name}.start: {start!r}; expected init, base, or a checkpoint of another arm as in "
            "sft@last, sft@80, sft@50% or sft@lowest:rule_ood."
        )
    other, where = match.groups()
    if other not in recipe.arms:
        raise SftrlError(f"arms.{name}.start: {unknown_name('arm', other, recipe.arms)}")
    seeds, rates = _seeds(recipe, recipe.arms[other]), _rates(recipe, other)
    if seed not in seeds and len(seeds) > 1:
        raise SftrlError(f"arms.{name}.start: arm {other!r} has no seed {seed}; it has {_listed(seeds)}.")
    if len(rates) > 1:
        raise SftrlError(
            f"arms.{name}.start: arm {other!r} has {len(rates)} learning rates ({_listed(rates)}); "
            "expected one."
        )
    budget = arm_budget(recipe, other)
    stage = stage_name(other, rates[0], seed if seed in seeds else seeds[0])
    kind, split = recipe.arms[other].kind, where.partition("lowest:")[2]
    if split:
        if split not in recipe.task.eval_splits:
            nearest = unknown_name("evaluated split", split, recipe.task.eval_splits)
            raise SftrlError(f"arms.{name}.start: {nearest}")
        return Start(stage, saved_steps(budget)[-1], kind, split)
    return Start(stage, _step(f"arms.{name}.start", where, saved_steps(budget)), kind)


def _step(key: str, where: str, saved: Sequence[int]) -> int:
    if where == "last":
        return saved[-1]
    if where.endswith("%"):
        wanted = saved[-1] * int(where[:-1]) / 100
        return min(saved, key=lambda step: (abs(step - wanted), step))
    if int(where) not in saved:
        raise SftrlError(f"{key}: step {where} is not saved; the saved steps are {_listed(saved)}.")
    return int(where)


def _first_with_rows_of(recipe: Recipe, budgets: Mapping[str, SFTConfig | RLConfig], name: str) -> str:
    """The first arm that trains on the same rows; their file has its name."""

    def rows(arm: str) -> tuple[Any, ...]:
        config = recipe.arms[arm]
        splits = tuple(config.splits or [recipe.task.train_split])
        attempts = config.max_attempts or recipe.task.max_attempts
        budget = budgets[arm]
        sampled_by: tuple[Any, ...] = (config.start,) if config.rows in SAMPLED_ROWS else ()
        if sampled_by and isinstance(budget, RLConfig):
            sampled_by += (budget.tried_prompts, budget.prompt_samples, budget.max_turn_tokens)
        origin = config.rows, config.solutions, config.replay, sampled_by
        return config.kind, origin, splits, attempts, budget.rows

    return next(arm for arm in recipe.arms if rows(arm) == rows(name))


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)

"""From a recipe to the list of its stages: every command, in order, before anything runs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sftrl_ext.experiments import commands
from sftrl_ext.experiments.checkpoints import model_folder
from sftrl_ext.experiments.layout import RunLayout
from sftrl_ext.experiments.recipe import Recipe, SFTConfig


@dataclass(frozen=True)
class Stage:
    """One command of a run.

    Attributes:
        name: Unique in the run; also its folder.
        kind: ``data``, ``model``, ``sft``, ``rl``, ``eval`` or ``report``.
        command: The argument list.
        env: Variables the command needs beyond the caller's.
        arm: ``base``, ``init``, ``sft`` or ``rl`` for training stages.
        seed: Seed of the arm.
        lr: Learning rate of the arm.
        total: Steps, for progress; None where there are none.
        title: What it does, in words.
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


def make_plan(recipe: Recipe, run_dir: Path) -> list[Stage]:
    """The stages of a run, in the order in which they run.

    Both arms start from the same init; every seed has training rows of its own.
    """
    layout = RunLayout(run_dir)
    budget, sweep = recipe.budget, recipe.sweep
    stages = [_internal("data", "data", "build the parquet files", run_dir)]
    stages.append(_internal("model", "model", "put the start model into the run folder", run_dir))
    start = layout.start_model
    for name, config in (("base", budget.base), ("dialogues", budget.dialogues)):
        if config is not None:
            stages.append(_sft(recipe, layout, name, "base", 0, config, start, name))
            start = final_model(layout, name, config.steps)
    stages.append(_sft(recipe, layout, "init", "init", 0, budget.init, start, "init"))
    init = final_model(layout, "init", budget.init.steps)
    for seed in sweep.seeds:
        if "sft" in recipe.arms:
            for lr in sweep.sft_lrs or [budget.sft.lr]:
                name = arm_stage("sft", lr, seed)
                stages.append(_sft(recipe, layout, name, "sft", seed, budget.sft, init, f"sft-s{seed}", lr))
        if "rl" in recipe.arms:
            for lr in sweep.rl_lrs or [budget.rl.lr]:
                stages.append(_rl(recipe, layout, arm_stage("rl", lr, seed), seed, init, lr))
    stages.append(_internal("eval", "eval", "evaluate every checkpoint on every split", run_dir))
    stages.append(_internal("report", "report", "draw the figures and write the report", run_dir))
    return stages


_TITLES = {
    "base": "pre-train the base model",
    "dialogues": "pre-train it on dialogues with feedback",
    "init": "SFT init of both arms",
}


def arm_stage(arm: str, lr: float, seed: int) -> str:
    """Name of the stage of one arm, learning rate and seed."""
    return f"{arm}-lr{lr:g}-s{seed}"


def final_model(layout: RunLayout, stage: str, steps: int) -> Path:
    """The model folder a training stage ends with."""
    return model_folder(layout.checkpoints(stage) / f"global_step_{steps}")


def _internal(name: str, kind: str, title: str, run_dir: Path) -> Stage:
    command = (sys.executable, "-m", "sftrl_ext.experiments.stages", kind, str(run_dir))
    return Stage(name=name, kind=kind, command=command, title=title)


def _sft(
    recipe: Recipe,
    layout: RunLayout,
    name: str,
    arm: str,
    seed: int,
    config: SFTConfig,
    model: Path,
    rows: str,
    lr: float | None = None,
) -> Stage:
    rate = config.lr if lr is None else lr
    checkpoints = layout.checkpoints(name)
    file = layout.rows(rows)
    frozen = arm == "sft"
    command, env = commands.sft_command(recipe, config, model, file, checkpoints, name, rate, seed, frozen)
    return Stage(
        name, "sft", tuple(command), _TITLES.get(name, "SFT arm"), env, arm, seed, rate, config.steps
    )


def _rl(recipe: Recipe, layout: RunLayout, name: str, seed: int, model: Path, lr: float) -> Stage:
    rows = layout.rows(f"rl-s{seed}")
    validation = [layout.eval_rows(split) for split in recipe.task.eval_splits]
    checkpoints = layout.checkpoints(name)
    command, env = commands.ppo_command(recipe, model, rows, validation, checkpoints, name, lr, seed)
    return Stage(name, "rl", tuple(command), "RL arm", env, "rl", seed, lr, recipe.budget.rl.updates)

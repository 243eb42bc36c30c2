"""Plans of a recipe's stages: memory by phase, host memory, disk, tokens, FLOPs and hours."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.planner import work
from sftrl_ext.experiments.planner.architectures import architecture_of
from sftrl_ext.experiments.planner.hardware import hardware_of
from sftrl_ext.experiments.planner.stages.eval_stage import evaluation_plan
from sftrl_ext.experiments.planner.stages.rl_stage import rl_plan
from sftrl_ext.experiments.planner.stages.sft_stage import sft_plan
from sftrl_ext.experiments.planner.stages.stage import PlanContext, StagePlan
from sftrl_ext.experiments.recipe.arms import arm_runs, saved_steps
from sftrl_ext.experiments.recipe.schema import RLConfig, SFTConfig

if TYPE_CHECKING:
    from sftrl_ext.experiments.recipe.schema import Recipe


def plan_stages(recipe: Recipe, run_dir: Path | None = None) -> list[StagePlan]:
    """Plans of a recipe's training stages and its evaluation.

    Args:
        recipe: The composed recipe.
        run_dir: Only paths in commands depend on it.

    Raises:
        SftrlError: if the model's architecture or the hardware is unknown.
    """
    stages = make_plan(recipe, run_dir or Path(tempfile.gettempdir()) / "plan")
    hardware = hardware_of(recipe)
    context = PlanContext(
        recipe,
        architecture_of(recipe.model),
        hardware,
        work.CPU if recipe.scale.backend == "cpu" else work.GPU,
        recipe.scale.nnodes * recipe.scale.n_gpus_per_node,
    )
    runs = {run.stage: run for run in arm_runs(recipe)}
    budget = recipe.budget
    before: dict[str, SFTConfig | None] = {
        "base": budget.base, "dialogues": budget.dialogues, "init": budget.init,
    }  # fmt: skip
    plans = []
    for stage in stages:
        run = runs.get(stage.name)
        config = run.budget if run is not None else before.get(stage.name)
        arm = run.config if run is not None else None
        if isinstance(config, SFTConfig):
            plans.append(sft_plan(context, stage, config, arm))
        elif isinstance(config, RLConfig):
            plans.append(rl_plan(context, stage, config, arm))
    saves = sum(len(saved_steps(run.budget)) for run in runs.values()) + 1
    plans.append(evaluation_plan(context, saves))
    return plans

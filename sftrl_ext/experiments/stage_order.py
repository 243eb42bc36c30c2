"""Which stages of a plan need which others, and which can run at the same time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sftrl_ext.errors import unknown_name
from sftrl_ext.experiments.plan import WITHOUT_GPU, Stage, make_plan, start_folder
from sftrl_ext.experiments.recipe.arms import arm_runs
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.experiments.start_models.start_choice import choice_stage
from sftrl_ext.runs.layout import RunLayout


@dataclass(frozen=True)
class StageGroup:
    """Stages of one job.

    Attributes:
        stages: Their names, in the order of the plan.
        parallel: True if none needs another, so that each can be a job of its own.
        uses_gpu: True if one of them does, at scales with GPUs.
    """

    stages: tuple[str, ...]
    parallel: bool
    uses_gpu: bool


def needed_stages(recipe: Recipe, layout: RunLayout) -> dict[str, set[str]]:
    """The stages whose results each stage of the plan reads; not those that only these need."""
    plan = make_plan(recipe, layout.root)
    reads: dict[str, Path] = {}
    for run in arm_runs(recipe):
        if run.start.lowest is not None and run.start.stage is not None:
            reads[choice_stage(run.start)] = layout.checkpoints(run.start.stage)
        if run.sampled_by is not None:
            reads[run.sampled_by] = start_folder(recipe, layout, run.start)
    needed: dict[str, set[str]] = {}
    for number, stage in enumerate(plan):
        named = (*stage.command, str(reads.get(stage.name, "")))
        needed[stage.name] = {
            other.name
            for other in plan[:number]
            if other.kind in ("data", "model")
            or stage.kind in ("eval", "report")
            or stage.sampled_by == other.name
            or any(f"{layout.stage(other.name)}{os.sep}" in argument for argument in named)
        }
    return needed


def dependents(recipe: Recipe, layout: RunLayout, name: str) -> set[str]:
    """A stage, and all that use what it makes.

    Raises:
        SftrlError: if the plan has no such stage.
    """
    needed = needed_stages(recipe, layout)
    if name not in needed:
        raise unknown_name("stage", name, needed)
    stages = {name}
    for stage, others in needed.items():  # in the order of the plan
        if others & stages:
            stages.add(stage)
    return stages


def stage_groups(recipe: Recipe, layout: RunLayout, selected: Sequence[Stage]) -> list[StageGroup]:
    """Some stages of a run as jobs, each of which needs the ones before it alone.

    Args:
        recipe: The recipe of the run.
        layout: The run.
        selected: The stages, in the order of the plan.
    """
    needed = needed_stages(recipe, layout)
    levels: dict[str, int] = {}
    for name, others in needed.items():
        levels[name] = 1 + max((levels[other] for other in others), default=-1)
    groups: list[StageGroup] = []
    for level in sorted({levels[stage.name] for stage in selected}):
        stages = [stage for stage in selected if levels[stage.name] == level]
        names = tuple(stage.name for stage in stages)
        uses_gpu = any(stage.kind not in WITHOUT_GPU for stage in stages)
        last = groups[-1] if groups else None
        if last and len(names) == 1 and not last.parallel and last.uses_gpu == uses_gpu:
            groups[-1] = StageGroup((*last.stages, *names), parallel=False, uses_gpu=uses_gpu)
        else:
            groups.append(StageGroup(names, parallel=len(names) > 1, uses_gpu=uses_gpu))
    return groups

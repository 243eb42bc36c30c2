"""Planned compute at which each arm ends, on the axes of the report.

The report compares arms at the largest compute that all of them reached. Where one arm goes on far beyond
the others, most of its budget is never compared, and the others are compared at an early checkpoint of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftrl_ext.envs import TASKS
from sftrl_ext.experiments.planner.architectures import Architecture, architecture_of
from sftrl_ext.experiments.recipe.arms import ArmRun, arm_runs, total_steps
from sftrl_ext.reports.pages.tables import Table
from sftrl_ext.runs.compute import PaperFormula, cost_of, paper_formula_absent, readable

if TYPE_CHECKING:
    from sftrl_ext.experiments.planner.stages.stage_plan import StagePlan
    from sftrl_ext.experiments.recipe.schema import Recipe

LARGEST_GAP = 0.1
"""Gap between the ends of a recipe's arms that needs no reason."""

EXEMPT_SCALES = {"smoke": "it runs every stage within minutes, and its numbers mean nothing"}
"""Scales whose arms need not end together, with the reason."""


@dataclass(frozen=True)
class Compute:
    """Planned FLOPs on the report's axes.

    Attributes:
        counted: From counted tokens.
        per_epoch: By the paper's formula, where D_RL counts a token in every epoch.
        once: The same, where it counts a token once.
        formula: The paper's formula applies.
    """

    counted: float = 0.0
    per_epoch: float = 0.0
    once: float = 0.0
    formula: bool = True

    def __add__(self, other: Compute) -> Compute:
        return Compute(
            self.counted + other.counted,
            self.per_epoch + other.per_epoch,
            self.once + other.once,
            self.formula and other.formula,
        )

    def share(self, part: float) -> Compute:
        """The compute of a part of the stage."""
        return Compute(self.counted * part, self.per_epoch * part, self.once * part, self.formula)


@dataclass(frozen=True)
class ArmEnd:
    """The end of one arm's run, with the compute of all that it starts from.

    Attributes:
        run: The run.
        compute: From the base model on.
    """

    run: ArmRun
    compute: Compute


def arm_ends(recipe: Recipe, plans: Sequence[StagePlan]) -> list[ArmEnd]:
    """The ends of a recipe's arms, in the order in which they run.

    Args:
        recipe: The composed recipe.
        plans: Plans of its stages.
    """
    computed = CheckpointCompute(recipe, plans)
    return [ArmEnd(run, computed.at(run.stage, run.total)) for run in arm_runs(recipe)]


class CheckpointCompute:
    """Planned compute of a recipe's checkpoints.

    Args:
        recipe: The composed recipe.
        plans: Plans of its stages.
    """

    def __init__(self, recipe: Recipe, plans: Sequence[StagePlan]) -> None:
        architecture = architecture_of(recipe.model)
        self._alone = {
            plan.stage: _compute(recipe, architecture, plan) for plan in plans if plan.kind != "eval"
        }
        self._runs = {run.stage: run for run in arm_runs(recipe)}

    def at(self, stage: str | None, step: int) -> Compute:
        """Compute of a checkpoint from the base model on.

        Args:
            stage: Stage of an arm, or ``init``; None for the base model.
            step: Step of an arm.
        """
        if stage is None:
            return Compute()
        run = self._runs.get(stage)
        if run is None:
            return self._alone[stage]
        part = self._alone[stage].share(step / total_steps(run.budget))
        return self.at(run.start.stage, run.start.step) + part


def _compute(recipe: Recipe, architecture: Architecture, plan: StagePlan) -> Compute:
    """Compute of one stage alone."""
    tokens, ratio = plan.work.tokens, TASKS[recipe.task.kind].compute_ratio

    def cost(rl_tokens: str) -> tuple[float, float]:
        compute = cost_of(
            architecture.parameters, tokens, rl=plan.kind == "rl", paper=PaperFormula(ratio, rl_tokens),
            critic_parameters=architecture.critic_parameters,
        )  # fmt: skip
        return compute.counted or 0.0, compute.paper or 0.0

    (counted, per_epoch), (_, once) = cost("per_epoch"), cost("once")
    applies = plan.kind != "rl" or paper_formula_absent({plan.stage: tokens}) is None
    return Compute(counted, per_epoch, once, applies)


def gap(ends: Sequence[ArmEnd]) -> float:
    """Compute of the last end over that of the first, less one, on the counted axis."""
    counted = [end.compute.counted for end in ends]
    return max(counted) / min(counted) - 1.0


def ends_table(ends: Sequence[ArmEnd]) -> Table:
    """Ends of all arms by axis; the paper's formula only where it applies."""
    rows = [
        [
            end.run.stage,
            readable(end.compute.counted, "counted"),
            *(
                readable(value, "paper") if end.compute.formula else "–"
                for value in (end.compute.per_epoch, end.compute.once)
            ),
        ]
        for end in ends
    ]
    header = ["End of", "Counted tokens", "The paper's formula, D_RL per epoch", "D_RL once"]
    return Table(header, rows, text_columns=1)


def ends_sentence(recipe: Recipe, ends: Sequence[ArmEnd]) -> str:
    """Gap between the ends, with the recipe's reason where it is large."""
    difference = gap(ends)
    sentence = f"arms end {difference:.0%} apart on the counted axis"
    if difference <= LARGEST_GAP:
        return sentence
    reason = EXEMPT_SCALES.get(recipe.scale.name) or recipe.unequal_compute
    if reason:
        return f"{sentence}: {reason}"
    return f"{sentence}; the report compares them where the first of them ends"

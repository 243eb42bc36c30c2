"""Runs as the paper's figures take them: read from a folder or a results file, on one compute axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sftrl_ext.envs import TASKS
from sftrl_ext.errors import SftrlError
from sftrl_ext.reports.analysis.curves import Curve, EqualCompute, at_equal_compute
from sftrl_ext.reports.analysis.run_analysis import MEASURES, Analysis, analyse
from sftrl_ext.reports.analysis.verdict import ComparedArms
from sftrl_ext.reports.stored_results import analyse_results
from sftrl_ext.runs.compute import AXES, AXIS_TITLES, RL_TOKENS
from sftrl_ext.runs.stats import PER_RESPONSE

TITLES = {
    source: title
    for modality in ("text", "image")
    for name in TASKS
    for source, title in TASKS[name].titles.items()
    if TASKS[name].data_sources.get(modality) == source
}
"""First part of a data source to the paper's name for the task, in the order of its panels."""

GIGA = 1e9


@dataclass(frozen=True)
class PaperRun:
    """A run on one compute axis.

    Attributes:
        analysis: The analyzed run.
        axis: A name of `compute.AXES`; "" if no axis is known for every arm.
        equal: Checkpoints of every curve at equal compute on the axis.
    """

    analysis: Analysis
    axis: str
    equal: EqualCompute

    @property
    def task(self) -> str:
        """Name of the task, the first part of its data sources."""
        return self.analysis.task

    @property
    def task_title(self) -> str:
        """The paper's name for the task."""
        return TITLES.get(self.task, self.task)

    @property
    def reach(self) -> float:
        """Largest cost of any curve on the axis; 0 if unknown."""
        costs = [curve.reach(self.axis) for curve in self.analysis.curves.arms] if self.axis else []
        return max((cost for cost in costs if cost is not None), default=0.0)

    def contestants(self) -> list[Curve]:
        """The headline curve of SFT and that of RL, where the run has them."""
        analysis = self.analysis
        compared = ComparedArms(analysis.arms, analysis.curves, self.equal, analysis.picked)
        arms = [compared.arm_standing_for(kind) for kind in ("sft", "rl")]
        return [analysis.picked[arm] for arm in arms if arm is not None]


@dataclass(frozen=True)
class GigaScale:
    """Compute in GFLOPs with a power of ten taken out, as an axis shows it.

    Attributes:
        divisor: FLOPs (or tokens) per unit of the axis.
        unit: The unit as text.
        power: The power of ten.
    """

    divisor: float
    unit: str
    power: int = 0

    @classmethod
    def of(cls, reach: float, axis: str) -> GigaScale:
        """The scale that keeps ``reach`` below 1000.

        Args:
            reach: Largest value on the axis, in FLOPs or tokens.
            axis: A name of `compute.AXES`.
        """
        base, name = (1.0, "tokens") if axis == "tokens" else (GIGA, "GFLOPs")
        power = 0
        while reach / base >= 1000.0 * 10.0**power:
            power += 3
        factor = rf"$10^{{{power}}}$ " if power else ""
        return cls(base * 10.0**power, factor + name, power)


def compute_label(run: PaperRun, unit: str = "") -> str:
    """Label of a run's compute axis: its formula, and its unit where panels do not have their own."""
    title = AXIS_TITLES[run.axis]
    if run.axis == "paper":
        title += f", D_RL counted {RL_TOKENS[run.analysis.run.recipe.rl_tokens]}"
    return title + (f" ({unit})" if unit else "")


def measure_label(analysis: Analysis, metric: str) -> str:
    """A metric as the paper names it; on routes, success is that of whole routes.

    A dagger marks errors that take responses as independent.
    """
    if metric == "success" and analysis.metric == "steps":
        return "Overall success"
    return MEASURES[metric] + (f" {PER_RESPONSE}" if metric == "steps" and analysis.per_response else "")


def load_analysis(path: Path, rl_tokens: str | None = None) -> Analysis:
    """Analyze a run folder, or a results file of one.

    Args:
        path: The folder or file.
        rl_tokens: Reading of D_RL in the paper's formula; None takes the recipe's. A results file has
            counted it in every epoch.

    Raises:
        SftrlError: if it is neither, a file of it is malformed, or a results file lacks the reading.
    """
    if Path(path).suffix != ".json":
        return analyse(Path(path), rl_tokens)
    if rl_tokens not in (None, "per_epoch"):
        raise SftrlError(
            f"{path}: a results file counts D_RL per_epoch; --rl-tokens {rl_tokens} needs the run."
        )
    return analyse_results(path)


def on_axis(analysis: Analysis, axis: str) -> PaperRun:
    """Compare the arms of a run at equal compute on an axis, which must be known for every arm, or ""."""
    same = axis == analysis.equal.axis or not axis
    return PaperRun(analysis, axis, analysis.equal if same else at_equal_compute(analysis.curves, axis))


def known_axes(analysis: Analysis) -> list[str]:
    """Compute axes that every arm of a run has, preferred first; the paper's where its formula applies."""
    curves = analysis.curves.arms
    axes = [axis for axis in AXES if curves and all(c.reach(axis) for c in curves)]
    return [axis for axis in axes if axis != "paper" or analysis.curves.paper_absent is None]


def on_common_axis(analyses: Sequence[Analysis], axis: str | None = None) -> list[PaperRun]:
    """Put runs on one compute axis.

    Args:
        analyses: The runs.
        axis: A name of `compute.AXES`; None takes the first that all runs have.

    Raises:
        SftrlError: if a run lacks the axis, or no axis is common to all.
    """
    for analysis in analyses:
        if axis is not None and axis not in known_axes(analysis):
            reason = analysis.curves.paper_absent if axis == "paper" else None
            has = ", ".join(known_axes(analysis)) or "none"
            raise SftrlError(
                f"{analysis.name}: compute axis {axis!r} is not known for every arm"
                f"{f' ({reason})' if reason else ''}; its axes: {has}."
            )
    if axis is None:
        common = [name for name in AXES if all(name in known_axes(analysis) for analysis in analyses)]
        if not common and len(analyses) > 1:
            each = "; ".join(f"{f.name}: {', '.join(known_axes(f)) or 'none'}" for f in analyses)
            raise SftrlError(f"the runs have no compute axis in common: {each}.")
        axis = common[0] if common else ""
    return [on_axis(analysis, axis) for analysis in analyses]

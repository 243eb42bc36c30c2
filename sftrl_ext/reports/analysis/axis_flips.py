"""Comparison of a verdict at equal counted compute with the same verdict by the paper's formula."""

from __future__ import annotations

from dataclasses import dataclass

from sftrl_ext.reports.analysis.verdict import Comparison, Finding
from sftrl_ext.runs.stats import Change

_DIRECTIONS = {"up": "gain", "same": "no change beyond 2 SE", "down": "loss"}


@dataclass(frozen=True)
class AxisComparison:
    """A verdict on two compute axes.

    Attributes:
        split: The out-of-distribution split of the verdict.
        counted, paper: Patterns of the verdict at equal counted compute and by the paper's formula.
        flips: True if the pattern, or the direction of RL minus SFT, differs between the axes.
        differences: Every result whose direction differs, with its numbers on both axes.
    """

    split: str
    counted: str
    paper: str
    flips: bool
    differences: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        if self.counted == self.paper == "unknown":
            head = f"`{self.split}`: arms that change otherwise on the two compute axes:"
            return f"{head} {'; '.join(self.differences) or 'none'}."
        if not self.flips and not self.differences:
            return f"`{self.split}`: the verdict is the same on both compute axes ({self.counted})."
        if not self.flips:
            head = f"`{self.split}`: the verdict is the same on both compute axes ({self.counted}), but"
        else:
            head = f"`{self.split}`: the verdict flips between the compute axes: {self.counted} at equal "
            head += f"counted compute, {self.paper} by the paper's formula."
        return f"{head} {'; '.join(self.differences)}."


def compare_axes(counted: Comparison, paper: Comparison) -> AxisComparison | None:
    """Compare a verdict at equal counted compute with the one by the paper's formula.

    Returns:
        None without a split.
    """
    if counted.split is None:
        return None
    apart: list[str] = []
    if counted.difference is not None and paper.difference is not None:
        apart = _difference("RL minus SFT", counted.difference, paper.difference)
    differences = list(apart)
    others = {finding.key: finding for finding in paper.findings}
    for finding in counted.findings:
        if (other := others.get(finding.key)) is not None:
            differences += _of_finding(finding, other)
    flips = counted.pattern != paper.pattern or bool(apart)
    return AxisComparison(counted.split, counted.pattern, paper.pattern, flips, tuple(differences))


def _of_finding(counted: Finding, paper: Finding) -> list[str]:
    differences = _difference(f"{counted.label} on `{counted.split}`", counted.ood_change, paper.ood_change)
    if counted.id_change and paper.id_change:
        differences += _difference(f"{counted.label} in distribution", counted.id_change, paper.id_change)
    return differences


def _difference(name: str, counted: Change, paper: Change) -> list[str]:
    if counted.direction == paper.direction:
        return []
    return [
        f"{name}: {_DIRECTIONS[counted.direction]} ({counted}) at equal counted compute, "
        f"{_DIRECTIONS[paper.direction]} ({paper}) by the paper's formula"
    ]

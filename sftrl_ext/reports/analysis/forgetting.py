"""Loss out of distribution against the divergence from the start on the task trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sftrl_ext.reports.analysis.curves import Checkpoint, Curve, divergence_over_seeds
from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.runs.records import DIRECTIONS, KLEstimate
from sftrl_ext.runs.stats import Change, rank_correlation

FEW = 5
"""An arm with fewer checkpoints gets no correlation of its own."""


@dataclass(frozen=True)
class Drift:
    """Divergence of checkpoints from their start, and their change on a split.

    Attributes:
        divergence: Of the direction asked for, in nats per token.
        change: Of the main measure since their start.
    """

    divergence: KLEstimate
    change: Change


def drift(
    checkpoints: Sequence[Checkpoint], curve: Curve, split: str, direction: str = "forward"
) -> Drift | None:
    """Divergence and change of a curve's checkpoints, over seeds; None if either was not measured."""
    measured = [c for c in checkpoints if c.divergence is not None]
    divergence, change = divergence_over_seeds(measured, direction), curve.change(measured, split)
    return Drift(divergence, change) if divergence and change else None


def has_divergence(analysis: Analysis) -> bool:
    """True if the divergence of any compared checkpoint was measured."""
    return any(c.divergence for curve in analysis.curves.arms for group in curve.steps() for c in group)


@dataclass(frozen=True)
class Correlation:
    """Rank correlation of divergence and loss over checkpoints, each seed's checkpoint by itself.

    Attributes:
        split: Where it was lost.
        values: Direction of the divergence to Spearman's rank correlation with the change; -1 if a larger
            divergence always goes with a larger loss, None if it cannot be told.
        checkpoints: How many.
        arm: The arm, or None for all arms together.
    """

    split: str
    values: dict[str, float | None]
    checkpoints: int
    arm: str | None = None


def correlations(analysis: Analysis) -> list[Correlation]:
    """Of all arms together on every verdict's split, then of each arm that has enough checkpoints."""
    names: list[str | None] = [None, *analysis.curves.arm_names()]
    results = []
    for split in analysis.main_splits if has_divergence(analysis) else ():
        for arm in names:
            values, count = {}, 0
            for direction in DIRECTIONS:
                pairs = [
                    moved
                    for curve in analysis.curves.arms
                    if arm in (None, curve.arm)
                    for group in curve.steps()
                    for c in group
                    if (moved := drift([c], curve, split, direction))
                ]
                count = len(pairs)
                # Ranks instead of values: any monotone relation counts, not only a linear one.
                far, lost = [p.divergence.nats for p in pairs], [p.change.delta for p in pairs]
                values[direction] = rank_correlation(far, lost)
            if arm is None or (count >= FEW and len(names) > 2):
                results.append(Correlation(split, values, count, arm))
    return results


def forgetting_sentences(analysis: Analysis) -> list[str]:
    """Sentences on the rank correlation of divergence and loss, one for every verdict's split."""
    sentences = []
    results = correlations(analysis)
    for split in dict.fromkeys(result.split for result in results):
        overall, *arms = [result for result in results if result.split == split]
        forward, reverse = (overall.values[direction] for direction in DIRECTIONS)
        if forward is None:
            sentences.append(f"`{split}`: n = {overall.checkpoints} checkpoints are too few to correlate.")
            continue
        text = (
            f"`{split}`: Spearman's rank correlation between divergence and change, over all n = "
            f"{overall.checkpoints} checkpoints: {forward:+.2f}"
        )
        text += "" if reverse is None else f"; with the reverse divergence, on own episodes: {reverse:+.2f}"
        of_arms = [
            f"{analysis.arms.label(result.arm)} {value:+.2f} (n = {result.checkpoints})"
            for result in arms
            if result.arm is not None and (value := result.values["forward"]) is not None
        ]
        text += f". Within one arm: {', '.join(of_arms)}" if of_arms else ""
        sentences.append(f"{text}.")
    return sentences

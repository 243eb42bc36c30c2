"""Comparison of SFT and RL at equal compute: gains, losses and their significance, with a headline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sftrl_ext.reports.analysis.arms import Arms
from sftrl_ext.reports.analysis.curves import (
    Curve,
    CurveKey,
    Curves,
    EqualCompute,
    change_between,
    mean_cost,
    mean_over_seeds,
)
from sftrl_ext.reports.analysis.splits import KINDS, Expected, is_ood, lr_label, ood_kind
from sftrl_ext.runs.compute import readable
from sftrl_ext.runs.stats import Change, Measure, change

ID_SPLIT = "id"
MAX_RATES_SHOWN = 3
MAX_CURVES_SHOWN = 12
"""Limit of bars in a sweep, where all arms are of one kind and every curve gets a bar."""

_AXIS_WORDS = {
    "counted": "compute, from counted tokens",
    "paper": "compute, by the paper's formula",
    "tokens": "number of tokens",
}


@dataclass(frozen=True)
class Finding:
    """Result of one curve on the main split, at equal compute.

    Attributes:
        split: The main out-of-distribution split.
        ood: Success on the main out-of-distribution split.
        ood_change: Its change from the start.
        id_success, id_change: The same in distribution; None if not evaluated.
        steps: The compared checkpoints' steps, one per seed.
        cost: Their mean cost on the axis of the comparison.
        measure: What the numbers are of, in words.
        label: The arm as it is written.
        start: Where it started, in words.
    """

    key: CurveKey
    split: str
    ood: Measure
    ood_change: Change
    id_success: Measure | None
    id_change: Change | None
    steps: tuple[int, ...]
    cost: float | None
    measure: str = "success"
    label: str = ""
    start: str = "the start"

    @property
    def sentence(self) -> str:
        """The finding in words."""
        return self.in_words()

    def in_words(self, in_distribution: bool = True) -> str:
        """The finding in words.

        Args:
            in_distribution: True to tell what happened in distribution, too.
        """
        moves = {"up": "gains", "down": "loses", "same": "keeps (within 2 SE)"}
        moved = moves[self.ood_change.direction]
        tail = f"{moved} {self.measure} on `{self.split}`: {self.ood} %, {self.ood_change} from {self.start}"
        if in_distribution and self.id_change and self.id_success:
            ways = {"up": "gains", "down": "loses", "same": "stays within 2 SE"}
            way = ways[self.id_change.direction]
            tail += f"; in distribution it {way}: {self.id_success} %, {self.id_change}"
        seeds = f"{self.ood.seeds} seed{'s' if self.ood.seeds > 1 else ''}"
        return f"{self.label} (lr {lr_label(self.key[1])}, {seeds}) {tail}."


@dataclass(frozen=True)
class Comparison:
    """Outcome of comparing SFT and RL on one split.

    Attributes:
        pattern: "appears" (SFT loses, RL does not, and RL ends above SFT, each by the 2 SE rule), "partly"
            (SFT loses and RL does not, but their difference is within 2 SE; or SFT does not lose but RL ends
            above it), "absent", or "unknown" (an arm or the start is missing).
        headline: One sentence.
        findings: One per curve, headline curves first.
        difference: RL - SFT on the main split.
    """

    pattern: str
    headline: str
    split: str | None
    findings: tuple[Finding, ...] = ()
    difference: Change | None = None


def main_split(splits: Sequence[str], expected: Sequence[Expected]) -> str | None:
    """The split a verdict is about: the paper's, else `rule_ood`, else the first out of distribution."""
    for entry in expected:
        if entry.split in splits and is_ood(entry.split):
            return entry.split
    ood = [split for split in splits if is_ood(split)]
    return "rule_ood" if "rule_ood" in ood else ood[0] if ood else None


def main_splits(splits: Sequence[str], expected: Sequence[Expected]) -> list[str]:
    """One split for a verdict on each kind of out of distribution, that of `main_split` first."""
    first = main_split(splits, expected)
    chosen = [] if first is None else [first]
    for kind in KINDS:
        candidates = [split for split in splits if ood_kind(split) == kind]
        if candidates and first is not None and ood_kind(first) != kind:
            stated = [entry.split for entry in expected if entry.split in candidates]
            usual = [split for split in (f"{kind}_ood",) if split in candidates]
            chosen.append((stated + usual + candidates)[0])
    return chosen


@dataclass(frozen=True)
class ComparedArms:
    """Arms of a run at equal compute on one axis.

    Attributes:
        arms: Kinds and labels of the arms.
        curves: All curves.
        equal: The compared checkpoints.
        picked: Headline curve of each arm; see `headline_curves`.
    """

    arms: Arms
    curves: Curves
    equal: EqualCompute
    picked: Mapping[str, Curve]

    def most_rates_shown(self) -> int:
        """Largest number of learning rates with which every one of an arm gets a bar."""
        arms, curves = self.curves.arm_names(), self.curves.arms
        one_kind = len({self.arms.kind(arm) for arm in arms}) == 1 and len(arms) > 1
        return MAX_CURVES_SHOWN if one_kind and len(curves) <= MAX_CURVES_SHOWN else MAX_RATES_SHOWN

    def shown_curves(self) -> list[Curve]:
        """Curves that get a bar: all of an arm with few learning rates, else its headline curve."""
        most = self.most_rates_shown()
        return [
            curve
            for curve in self.curves.arms
            if curve.key in self.equal.chosen
            and (len(self.curves.rates(curve.arm)) <= most or self.picked.get(curve.arm) is curve)
        ]

    def arm_standing_for(self, kind: str) -> str | None:
        """The arm named like its kind, or, without one, the arm of that kind that is best in distribution."""
        if kind in self.picked:
            return kind

        def in_distribution(arm: str) -> float:
            measure = mean_over_seeds(self.equal.chosen[self.picked[arm].key], ID_SPLIT)
            return measure.p if measure else -1.0

        candidates = [arm for arm in self.arms.of_kind(kind, self.curves.arm_names()) if arm in self.picked]
        return max(candidates, key=in_distribution, default=None)

    def finding(self, curve: Curve, split: str) -> Finding | None:
        """Result of a curve on a split; None if the curve or its start was not evaluated on it."""
        chosen = self.equal.chosen.get(curve.key, [])
        ood, ood_change = mean_over_seeds(chosen, split), curve.change(chosen, split)
        if ood is None or ood_change is None:
            return None
        return Finding(
            key=curve.key,
            split=split,
            ood=ood,
            ood_change=ood_change,
            id_success=mean_over_seeds(chosen, ID_SPLIT),
            id_change=curve.change(chosen, ID_SPLIT),
            steps=tuple(c.step for c in chosen),
            cost=mean_cost(chosen, self.equal.axis) if self.equal.axis else None,
            measure="per-step accuracy" if self.curves.counts_steps else "success",
            label=self.arms.label(curve.arm),
            start=self._start_label(curve),
        )

    def _start_label(self, curve: Curve) -> str:
        """Name of a curve's start in a sentence: "the start" if it is the shared one."""
        shared = {(c.stage, c.step) for c in self.curves.start}
        if {(c.stage, c.step) for c in curve.start} <= shared:
            return "the start"
        labels = sorted({f"{self.arms.label(c.arm)}, step {c.step}" for c in curve.start})
        return f"its start ({'; '.join(labels)})"


def headline_curves(curves: Curves, equal: EqualCompute) -> dict[str, Curve]:
    """One curve per arm: the learning rate that is best in distribution.

    The choice never looks at an out-of-distribution split. Equal scores: the smaller learning rate.
    """
    picked: dict[str, Curve] = {}
    for arm in curves.arm_names():
        candidates = [c for c in curves.arms if c.arm == arm and c.key in equal.chosen]
        scores = [(mean_over_seeds(equal.chosen[c.key], ID_SPLIT), c) for c in candidates]
        if candidates:
            picked[arm] = max(
                scores, key=lambda pair: (pair[0].p if pair[0] else -1.0, -(pair[1].lr or 0.0))
            )[1]
    return picked


def compare_arms(compared: ComparedArms, split: str | None) -> Comparison:
    """Compare SFT and RL on a split; a change counts beyond two standard errors, or that level of a test.

    Args:
        compared: The arms at equal compute.
        split: The out-of-distribution split.
    """
    if split is None:
        return Comparison("unknown", "No verdict: no out-of-distribution split was evaluated.", None)
    curves, equal, picked = compared.curves, compared.equal, compared.picked
    order = [*picked.values(), *(c for c in curves.arms if picked.get(c.arm) is not c)]
    findings = tuple(f for c in order if (f := compared.finding(c, split)) is not None)
    by_key = {finding.key: finding for finding in findings}
    stand = [compared.arm_standing_for(kind) for kind in ("sft", "rl")]
    sft, rl = (by_key.get(picked[arm].key) if arm is not None else None for arm in stand)
    if sft is None or rl is None:
        absent = [label for label, finding in (("SFT", sft), ("RL", rl)) if finding is None]
        why = (
            "the start was not evaluated"
            if curves.arms and not any(mean_over_seeds(curve.start, split) for curve in curves.arms)
            else f"no {' and no '.join(absent)} arm"
        )
        return Comparison(
            "unknown", f"No verdict on SFT against RL: {why}, on split `{split}`.", split, findings
        )

    if sft.start != rl.start:
        claim = f"{rl.label} began at {rl.start}, {sft.label} at {sft.start}"
        return Comparison(
            "unknown", f"No verdict on SFT against RL on split `{split}`: {claim}.", split, findings
        )
    ends = equal.chosen[rl.key], equal.chosen[sft.key]
    difference = change_between(*ends, split) or change(rl.ood, sft.ood)
    lost, kept = sft.ood_change.direction == "down", rl.ood_change.direction != "down"
    above = difference.direction == "up"
    thing = "the other rule" if "rule" in split else f"split `{split}`"
    thing = "the other look" if ood_kind(split) == "visual" else thing
    if lost and kept and above:
        pattern = "appears"
        claim = f"SFT loses {thing} and RL {'gains on' if rl.ood_change.direction == 'up' else 'keeps'} it"
    elif lost and kept:
        pattern, claim = "partly", f"SFT loses {thing} and RL does not, but the two differ by less than 2 SE"
    elif kept and above:
        pattern, claim = "partly", f"RL ends above SFT on {thing}, but SFT does not lose it by more than 2 SE"
    else:
        pattern = "absent"
        claim = f"SFT does not lose {thing} by more than 2 SE" if not lost else f"both arms lose {thing}"
        if not lost and not kept:
            claim = f"RL loses {thing} and SFT does not"
        claim += ", RL less than SFT" if lost and above else ""
    says = {
        "appears": "The paper's pattern appears",
        "partly": "The paper's pattern appears in part",
        "absent": "The paper's pattern does not appear",
    }[pattern]
    where = f"at equal {_AXIS_WORDS[equal.axis]}" if equal.axis else "at the last checkpoints"
    budget = f" ({readable(equal.budget, equal.axis)})" if equal.budget is not None else ""
    headline = f"{says}: {where}{budget}, {claim}. RL minus SFT on `{split}`: {difference}."
    return Comparison(pattern, headline, split, findings, difference)

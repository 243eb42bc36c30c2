"""Comparison of arms at equal success in distribution, the second reading beside equal compute.

A curve is followed from its start through its checkpoints, with straight lines between them, means over
seeds. The level L of two curves is the largest ID success that both reach; each is read where it first
reaches L. With weight w of the later of the two neighbouring checkpoints, 0 and 1, the error is

    SE^2 = ((1 - w) SE_0 + w SE_1)^2 + d^2

where the sum takes the errors of the neighbours as fully correlated, for they are of the same instances, and
d is how far the OOD success moves where the ID success is read one of its standard errors lower or higher
(the larger of the two; higher only as far as the curve goes).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from sftrl_ext.reports.analysis.curves import Curve, CurveKey, mean_over_seeds
from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.analysis.splits import is_ood, lr_label
from sftrl_ext.reports.analysis.verdict import ID_SPLIT
from sftrl_ext.runs.stats import Change, Measure, change

Path = list[tuple[float, Measure, Measure]]
"""Points of a curve from its start on: step, success in distribution, success out of distribution."""


@dataclass(frozen=True)
class Arrival:
    """A curve where it first reaches an ID success.

    Attributes:
        step: Interpolated between checkpoints.
        ood: Success out of distribution there.
    """

    key: CurveKey
    label: str
    step: float
    ood: Measure

    def __str__(self) -> str:
        return f"{self.label} (lr {lr_label(self.key[1])}, step {self.step:.0f}) {self.ood} %"


@dataclass(frozen=True)
class EqualSuccess:
    """Two curves at equal success in distribution.

    Attributes:
        split: The out-of-distribution split.
        keys: The curves.
        labels: Their arms.
        level: The ID success at which they are read; None if they have none in common above their starts.
        arrivals: Both curves there; empty without a level.
        absent: Reason why there is no level; else empty.
    """

    split: str
    keys: tuple[CurveKey, CurveKey]
    labels: tuple[str, str]
    level: float | None = None
    arrivals: tuple[Arrival, ...] = ()
    absent: str = ""

    @property
    def difference(self) -> Change | None:
        """OOD success of the second curve minus that of the first."""
        if not self.arrivals:
            return None
        first, second = self.arrivals
        return change(second.ood, first.ood)

    @property
    def sentence(self) -> str:
        """The comparison in words."""
        first, second = self.labels
        if self.level is None:
            return f"At equal success in distribution {first} and {second} cannot be read: {self.absent}."
        return (
            f"At equal success in distribution ({100 * self.level:.1f} %, the largest that both reach): "
            f"{' and '.join(map(str, self.arrivals))} on `{self.split}`; {second} minus {first}: "
            f"{self.difference}."
        )


def path_of(curve: Curve, split: str) -> Path:
    """Points of a curve that were evaluated in distribution and on a split; empty without its start."""
    groups = [curve.start, *curve.steps()]
    pairs = [(group, mean_over_seeds(group, ID_SPLIT), mean_over_seeds(group, split)) for group in groups]
    if pairs[0][1] is None or pairs[0][2] is None:
        return []
    # The start's step is of its own stage: along the curve it is the step 0.
    steps = [0, *(group[0].step for group in groups[1:])]
    return [(step, x, y) for step, (_, x, y) in zip(steps, pairs, strict=True) if x and y]


def arrive(path: Path, level: float) -> tuple[float, float, Measure] | None:
    """Read a path where it first reaches an ID success.

    Returns:
        Step, standard error of the ID success, and OOD success with the interpolated standard error; None if
        the path ends below the level.
    """
    for (step, x, y), (before, x0, y0) in zip(path, path[:1] + path[:-1], strict=True):
        if x.p < level:
            continue
        w = (level - x0.p) / (x.p - x0.p) if x0.p < level else 1.0
        ood = Measure(
            (1 - w) * y0.p + w * y.p, (1 - w) * y0.se + w * y.se, y.seeds, y.episodes, y.per_response
        )
        return (1 - w) * before + w * step, (1 - w) * x0.se + w * x.se, ood
    return None


def _arrival(curve: Curve, label: str, path: Path, level: float) -> Arrival:
    reading = arrive(path, level)
    assert reading is not None, "the level is at most the path's largest ID success"
    step, id_se, ood = reading
    near = [arrive(path, level - id_se), arrive(path, level + id_se)]
    moved = max(abs(other[2].p - ood.p) for other in near if other is not None)
    se = math.hypot(ood.se, moved)
    return Arrival(curve.key, label, step, Measure(ood.p, se, ood.seeds, ood.episodes, ood.per_response))


def compare_at_equal_id(first: Curve, second: Curve, labels: tuple[str, str], split: str) -> EqualSuccess:
    """Compare two curves on a split, where each first reaches the largest ID success that both reach."""
    keys = (first.key, second.key)
    paths = [path_of(curve, split) for curve in (first, second)]
    if not all(paths):
        reason = f"the start was not evaluated on `{ID_SPLIT}` and `{split}`"
        return EqualSuccess(split, keys, labels, absent=reason)
    level = min(max(x.p for _, x, _ in path) for path in paths)
    start = max(path[0][1].p for path in paths)
    if level <= start:
        reason = f"no success on `{ID_SPLIT}` above the start ({100 * start:.1f} %) is reached by both"
        return EqualSuccess(split, keys, labels, absent=reason)
    arrivals = tuple(
        _arrival(curve, label, path, level)
        for curve, label, path in zip((first, second), labels, paths, strict=True)
    )
    return EqualSuccess(split, keys, labels, level, arrivals)


def _pairs(analysis: Analysis) -> Iterator[tuple[Curve, Curve]]:
    """Curves of different arms, every learning rate with every other; those of SFT stand before RL's."""
    return ((a, b) for a, b in combinations(analysis.curves.arms, 2) if a.arm != b.arm)


def at_equal_id(analysis: Analysis) -> list[EqualSuccess]:
    """Every pair of curves of different arms on every out-of-distribution split; empty without ``id``."""
    if ID_SPLIT not in analysis.curves.splits:
        return []
    label = analysis.arms.label
    return [
        compare_at_equal_id(a, b, (label(a.arm), label(b.arm)), split)
        for split in analysis.curves.splits
        if is_ood(split)
        for a, b in _pairs(analysis)
    ]


def equal_id_sentences(analysis: Analysis, split: str) -> list[str]:
    """SFT against RL on a split at equal ID success: at the verdict's learning rates, then over all.

    Empty where the verdict compares no two arms.
    """
    arms = [analysis.compared.arm_standing_for(kind) for kind in ("sft", "rl")]
    chosen = [analysis.picked[arm].key for arm in arms if arm is not None]
    readings = [entry for entry in at_equal_id(analysis) if entry.split == split]
    readings = [entry for entry in readings if [arm for arm, _ in entry.keys] == arms]
    sentences = [entry.sentence for entry in readings if list(entry.keys) == chosen]
    changes = [entry.difference for entry in readings if entry.difference is not None]
    if len(readings) < 2:
        return sentences
    first, second = readings[0].labels
    ways = [sum(moved.direction == way for moved in changes) for way in ("up", "down", "same")]
    text = (
        f"Over all {len(readings)} pairs of their learning rates {second} stands above {first} in {ways[0]}, "
        f"below in {ways[1]}, within 2 SE in {ways[2]}"
    )
    without = len(readings) - len(changes)
    return [*sentences, f"{text}; {without} have no ID success in common." if without else f"{text}."]

"""Differences between checkpoints over the same instances, which leave out what makes instances easy or hard.

One seed on both sides, one episode an instance: McNemar's exact test. Of the b instances that only the first
solves and the c that only the second does, either is as likely if the two are alike, so the p-value is that
of b heads in b + c tosses of a fair coin, two-sided. The standard error shown beside it is
``sqrt(b + c - (b - c)^2 / n) / n``; with b + c = 0, one disagreement in n + 2 instances is put into it.

Several seeds, several episodes an instance, or a ratio such as per-step accuracy: a bootstrap. A replicate
draws instances with replacement, the same for both sides and all seeds, and seeds with replacement: in pairs
where both sides have the same seeds, else of each side by itself. Two or three seeds drawn with replacement
spread less than seeds do, by the factor (S - 1) / S of the variance, so the standard error is never below
that of the seeds' differences, ``sqrt(s^2 / S)``. Where training adds nothing, drawing instances and seeds
counts the noise of episodes twice, which makes the error too wide rather than too narrow: in simulations of
two equal arms, 234 instances and 2 or 3 seeds, it was 1.2 to 1.55 times the true one, and chance exceeded two
of it in 1 % of the cases. Where the spread of training dominates it is right on average, but so few seeds
estimate it badly: chance exceeded two of it in 10 to 20 %, as with independent errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from sftrl_ext.runs.records import EvalRecord
from sftrl_ext.runs.stats import Change

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

REPLICATES = 2000
"""Replicates of a bootstrap; its standard error repeats to 1.6 %, one part in sqrt(2 x 2000)."""

Pairs = Sequence[tuple[int, int]]
"""(successes, trials) of each instance, in the order of the split."""


def instance_counts(record: EvalRecord) -> Pairs | None:
    """Counts of the main measure of each instance; None if they were not stored."""
    if record.responses is not None:
        return record.step_counts
    if record.successes is None:
        return None
    return [(solved, record.samples) for solved in record.successes]


def paired_change(after: Sequence[EvalRecord], before: Sequence[EvalRecord]) -> Change | None:
    """Difference of the main measure between two groups of records of one split, each over its seeds.

    Returns:
        ``after - before``; None if the records do not hold the results of the same instances.
    """
    sides = [[instance_counts(record) for record in records] for records in (after, before)]
    first, second = ([counts for counts in side if counts] for side in sides)
    digests = {record.instances for record in (*after, *before)}
    sizes = {len(counts) for counts in (*first, *second)}
    if [first, second] != sides or len(digests) != 1 or len(sizes) != 1 or not first or not second:
        return None
    if len(first) == len(second) == 1 and all(trials == 1 for _, trials in [*first[0], *second[0]]):
        return _mcnemar([solved for solved, _ in first[0]], [solved for solved, _ in second[0]])
    matched = sorted(record.seed for record in after) == sorted(record.seed for record in before)
    if matched:
        first, second = (
            [counts for _, counts in sorted(zip((r.seed for r in records), side, strict=True))]
            for records, side in ((after, first), (before, second))
        )
    return _bootstrap(first, second, matched)


def _mcnemar(after: Sequence[int], before: Sequence[int]) -> Change:
    gained = sum(a > b for a, b in zip(after, before, strict=True))
    lost = sum(a < b for a, b in zip(after, before, strict=True))
    n, apart = len(after), gained + lost
    tail = sum(math.comb(apart, k) for k in range(min(gained, lost) + 1)) / 2**apart
    spread = apart - (gained - lost) ** 2 / n if apart else n / (n + 2)
    return Change((gained - lost) / n, math.sqrt(max(0.0, spread)) / n, "mcnemar", min(1.0, 2 * tail))


def _bootstrap(after: Sequence[Pairs], before: Sequence[Pairs], matched: bool) -> Change:
    import numpy as np  # planning a run reads no measurements

    instances = len(after[0])
    drawn = _drawn_instances(instances)
    rng = np.random.default_rng(1)
    seeds = [_drawn_seeds(rng, len(side)) for side in (after, before)]
    if matched:
        seeds[1] = seeds[0]
    rates = [_rates(side, drawn) for side in (after, before)]  # [replicates, seeds] each
    means = [(side * weights).sum(axis=1) for side, weights in zip(rates, seeds, strict=True)]
    now, then = (_rates(side, np.ones((1, instances)))[0] for side in (after, before))
    spread = _variance(now - then) if matched else _variance(now) + _variance(then)
    se = max(float(np.std(means[0] - means[1])), math.sqrt(spread))
    # Sides that agree on every instance of every seed: as in McNemar's test, one disagreement in n + 2.
    se = se or math.sqrt(1 / (instances + 2) / instances / max(len(now), len(then)))
    return Change(float(now.mean() - then.mean()), se, "bootstrap")


@lru_cache(maxsize=4)
def _drawn_instances(instances: int) -> npt.NDArray[np.float64]:
    """Times that every replicate draws each instance, shape [replicates, instances]; do not change it."""
    import numpy as np

    # The draws of a size are those of all comparisons of a report, which takes hundreds of them.
    rng = np.random.default_rng(0)
    shares = np.full(instances, 1 / instances)
    return rng.multinomial(instances, shares, size=REPLICATES).astype(np.float64)


def _drawn_seeds(rng: np.random.Generator, seeds: int) -> npt.NDArray[np.float64]:
    """Share of each seed in every replicate, shape [replicates, seeds]."""
    shares: npt.NDArray[np.float64] = rng.multinomial(seeds, [1 / seeds] * seeds, size=REPLICATES) / seeds
    return shares


def _rates(side: Sequence[Pairs], drawn: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Successes over trials of each seed, instances weighted by each row; shape [rows, seeds]."""
    import numpy as np

    counts = np.asarray(side, dtype=np.float64)  # [seeds, instances, (successes, trials)]
    rates: npt.NDArray[np.float64] = (drawn @ counts[..., 0].T) / np.maximum(drawn @ counts[..., 1].T, 1.0)
    return rates


def _variance(values: npt.NDArray[np.float64]) -> float:
    """Squared standard error of a mean over seeds; 0 for one seed."""
    return float(values.var(ddof=1)) / len(values) if len(values) > 1 else 0.0

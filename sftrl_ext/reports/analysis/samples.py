"""pass@k and distinct solutions, from several episodes of each instance (``budget.eval.samples``).

pass@k is the chance that one of k episodes of an instance is solved. With c solved of n episodes its unbiased
estimate (Chen et al. 2021, arXiv 2107.03374, equation 1) is

    1 - C(n - c, k) / C(n, k)

the share of the ways to choose k of the n episodes that hold a solved one, averaged over instances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from sftrl_ext.reports.analysis.curves import Checkpoint
from sftrl_ext.runs.records import EvalRecord
from sftrl_ext.runs.stats import Measure, binomial_se, mean_of_seeds


@dataclass(frozen=True)
class DistinctSolutions:
    """Distinct solutions of an instance, means over instances and seeds.

    Attributes:
        wrote: Distinct solutions over its episodes.
        se: Standard error of that.
        exist: Distinct solutions that it has.
    """

    wrote: float
    se: float
    exist: float

    def __str__(self) -> str:
        return f"{self.wrote:.2f} ± {self.se:.2f} of {self.exist:.1f}"


def estimate_pass_at_k(episodes: int, solved: int, k: int) -> float:
    """Unbiased estimate of pass@k of one instance: ``1 - C(n - c, k) / C(n, k)``.

    Args:
        episodes: n, episodes of the instance.
        solved: c, those that were solved.
        k: Episodes that count together, at most n.
    """
    return 1.0 - math.comb(episodes - solved, k) / math.comb(episodes, k)


def ks_of(samples: int) -> list[int]:
    """The k of a table: powers of two, and the number of samples; empty for one sample."""
    powers = [2**i for i in range(samples.bit_length()) if 2**i < samples]
    return [*powers, samples] if samples > 1 else []


def samples_of(checkpoints: Sequence[Checkpoint], split: str) -> int:
    """Episodes of each instance that all checkpoints have on a split; 1 where it was not evaluated."""
    return min((c.results[split].samples for c in checkpoints if split in c.results), default=1)


def pass_at_k(checkpoints: Sequence[Checkpoint], split: str, k: int) -> Measure | None:
    """Mean pass@k over seeds, with its standard error over instances and seeds; None if it was not measured.

    Args:
        checkpoints: One for each seed.
        split: The split.
        k: At most the number of samples.
    """
    records = _sampled(checkpoints, split)
    by_seed = [
        [estimate_pass_at_k(record.samples, solved, k) for solved in record.successes or ()]
        for record in records
        if record.samples >= k
    ]
    if not by_seed:
        return None
    errors = [_error(values) or binomial_se(0, len(values)) for values in by_seed]
    p, se = mean_of_seeds([mean(values) for values in by_seed], errors)
    return Measure(p, se, len(by_seed), sum(record.episodes for record in records))


def distinct_solutions(checkpoints: Sequence[Checkpoint], split: str) -> DistinctSolutions | None:
    """Mean distinct solutions of an instance; None if they were not counted."""
    counted = [r for r in _sampled(checkpoints, split) if r.distinct and r.solutions]
    if not counted:
        return None
    seeds = [[float(count) for count in record.distinct or ()] for record in counted]
    wrote, se = mean_of_seeds([mean(values) for values in seeds], [_error(values) for values in seeds])
    return DistinctSolutions(wrote, se, mean(mean(record.solutions or ()) for record in counted))


def _sampled(checkpoints: Sequence[Checkpoint], split: str) -> list[EvalRecord]:
    records = [c.results[split] for c in checkpoints if split in c.results]
    return [record for record in records if record.samples > 1]


def _error(values: Sequence[float]) -> float:
    """Standard error of a mean over instances."""
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0

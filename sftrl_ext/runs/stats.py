"""Success rates with error bars, over episodes and over seeds; the paper's smoothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

SE_FORMULA = (
    "Within a seed: SE = sqrt(p (1 - p) / n) over n episodes; where none or all are solved, "
    "p = (k + 1) / (n + 2) is put into the formula, so that no bar has zero length. "
    "Over S seeds: the mean of the seeds, with SE = sqrt(max(s^2, w) / S), where s^2 is the variance "
    "between the seeds (with S - 1) and w the mean of their squared SEs. s^2 holds the noise of the episodes "
    "already, so the two are not added; w is the floor when few seeds agree by chance."
)


CLUSTER_FORMULA = (
    "Per-step accuracy p = sum(c) / sum(r), with c correct actions of r responses on a route, is clustered "
    "by route, because responses on one route are correlated: SE^2 = n / (n - 1) sum((c - p r)^2) / "
    "(sum r)^2 over n routes; where that is 0, the binomial formula over routes. Over S seeds on the same "
    "routes the residuals are first averaged over seeds, route by route (SE_routes), and the spread of "
    "training is added: SE^2 = SE_routes^2 + max(0, s^2 / S - (w - SE_routes^2) / (S - 1)), where w is the "
    "mean squared SE of the seeds and the last term the sampling noise that s^2 / S holds already."
)

PER_RESPONSE = "†"
"""Marks an error that takes responses as independent, because counts per route were not stored."""

RouteCounts = Sequence[tuple[int, int]]
"""(correct actions, responses) of each route, in the order of the split."""


@dataclass(frozen=True)
class Measure:
    """A success rate.

    Attributes:
        p: Mean over seeds of solved / episodes, 0 to 1.
        se: Its standard error.
        seeds: How many seeds it is the mean of.
        episodes: Episodes, of all seeds together; responses for a per-step accuracy.
        per_response: True if the error takes responses of one route as independent.
    """

    p: float
    se: float
    seeds: int
    episodes: int
    per_response: bool = False

    def __str__(self) -> str:
        return f"{100 * self.p:.1f} ± {100 * self.se:.1f}{PER_RESPONSE if self.per_response else ''}"


def binomial_se(solved: int, episodes: int) -> float:
    """Standard error of solved / episodes: sqrt(p (1 - p) / n), never zero (see `SE_FORMULA`)."""
    p = solved / episodes
    # Laplace's rule of succession: without it no or full success would claim an error of 0.
    if solved in (0, episodes):
        p = (solved + 1) / (episodes + 2)
    return math.sqrt(p * (1 - p) / episodes)


def over_seeds(counts: Sequence[tuple[int, int]]) -> Measure:
    """Mean and standard error over seeds (`SE_FORMULA`).

    Args:
        counts: For each seed (solved, episodes); at least one.
    """
    rates = [solved / episodes for solved, episodes in counts]
    mean, se = mean_of_seeds(rates, [binomial_se(*count) for count in counts])
    return Measure(mean, se, len(counts), sum(episodes for _, episodes in counts))


def over_responses(counts: Sequence[tuple[int, int]]) -> Measure:
    """`over_seeds` of (correct actions, responses), marked as per response."""
    return replace(over_seeds(counts), per_response=True)


def clustered_se(routes: RouteCounts) -> float:
    """Standard error of a per-step accuracy, clustered by route (`CLUSTER_FORMULA`)."""
    return _joint_se([routes])


def over_seeds_by_route(seeds: Sequence[RouteCounts]) -> Measure:
    """Per-step accuracy over seeds with errors clustered by route (`CLUSTER_FORMULA`).

    Args:
        seeds: For each seed the counts of its routes; at least one seed, of at least one response. The same
            index means the same route if all seeds have as many routes; else seeds are taken as independent.
    """
    rates = [_rate(routes) for routes in seeds]
    responses = sum(r for routes in seeds for _, r in routes)
    # ``within`` is the sampling variance w of one seed, ``joint`` that of the mean of S seeds. With c the
    # covariance of two seeds on the same routes, joint = w / S + c (S - 1) / S.
    within = sum(clustered_se(routes) ** 2 for routes in seeds) / len(seeds)
    mean = sum(rates) / len(rates)
    if len(seeds) == 1:
        return Measure(mean, math.sqrt(within), 1, responses)
    shared = len({len(routes) for routes in seeds}) == 1
    joint = _joint_se(seeds) ** 2 if shared else within / len(seeds)
    between = sum((rate - mean) ** 2 for rate in rates) / (len(seeds) - 1)
    # Sampling alone makes the seeds' rates differ by w - c on average, and (w - joint) / (S - 1) = (w - c) /
    # S. What s^2 / S has beyond that is the variance of training.
    sampling = max(0.0, within - joint) / (len(seeds) - 1)
    training = max(0.0, between / len(seeds) - sampling)
    return Measure(mean, math.sqrt(joint + training), len(seeds), responses)


def _rate(routes: RouteCounts) -> float:
    return sum(c for c, _ in routes) / sum(r for _, r in routes)


def _joint_se(seeds: Sequence[RouteCounts]) -> float:
    """Error of the seeds' mean rate from the choice and the walks of the routes; seeds share their routes."""
    import numpy as np  # not at the top: planning a run reads no measurements

    counts = np.asarray(seeds, dtype=np.float64)  # [seeds, routes, (correct, responses)]
    correct, responses = counts[..., 0], counts[..., 1]
    totals = responses.sum(axis=1, keepdims=True)
    rates = correct.sum(axis=1, keepdims=True) / totals
    # Linearization of the ratio sum(c) / sum(r): a route moves it by (c - p r) / sum(r). Seeds are averaged
    # per route before squaring, which keeps the covariance of seeds that share a route.
    residuals = ((correct - rates * responses) / totals).mean(axis=0)
    routes = len(residuals)
    variance = float((residuals**2).sum()) * routes / (routes - 1) if routes > 1 else 0.0
    if variance > 0.0:
        return math.sqrt(variance)
    # No residual at all (every route the same share, or one route): the binomial formula over routes.
    p = float(rates.mean())
    if p in (0.0, 1.0):
        p = (p * routes + 1) / (routes + 2)
    return math.sqrt(p * (1 - p) / routes)


def mean_of_seeds(values: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and its standard error (`SE_FORMULA`), of numbers of any kind.

    Args:
        values: One for each seed; at least one.
        errors: Their standard errors.
    """
    within = sum(error**2 for error in errors) / len(errors)
    mean = sum(values) / len(values)
    between = sum((value - mean) ** 2 for value in values) / (len(values) - 1) if len(values) > 1 else 0.0
    return mean, math.sqrt(max(between, within) / len(values))


def rank_correlation(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """Spearman's rank correlation: that of Pearson between ranks, where equal values share their mean rank.

    Args:
        xs: Numbers, shape [n].
        ys: Numbers, shape [n].

    Returns:
        From -1 to 1; None for fewer than three pairs, or where all of one side are equal.
    """
    if len(xs) < 3 or len(set(xs)) == 1 or len(set(ys)) == 1:
        return None
    import numpy as np

    return float(np.corrcoef(_ranks(xs), _ranks(ys))[0, 1])


def _ranks(values: Sequence[float]) -> npt.NDArray[np.float64]:
    import numpy as np

    _, which, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    # ``last`` is the highest rank among equal values; their mean rank is (count - 1) / 2 below it.
    last = np.cumsum(counts)
    ranks: npt.NDArray[np.float64] = (last - (counts - 1) / 2)[which]
    return ranks


TWO_SE_LEVEL = math.erfc(math.sqrt(2))
"""Two-sided p-value of a difference of two standard errors, 0.0455: the level of exact tests."""


@dataclass(frozen=True)
class Change:
    """A difference of two success rates in parts of one, with its standard error.

    Attributes:
        method: Test behind the error: ``unpaired`` takes the two as independent, sqrt(se_a^2 + se_b^2);
            ``mcnemar`` and ``bootstrap`` compare instance by instance, see
            `sftrl_ext.reports.analysis.paired`.
        p_value: Of an exact test; None where the standard error decides.
    """

    delta: float
    se: float
    method: str = "unpaired"
    p_value: float | None = None

    @property
    def sigmas(self) -> float:
        """The difference in standard errors."""
        return self.delta / self.se if self.se else math.copysign(math.inf, self.delta) if self.delta else 0.0

    @property
    def direction(self) -> str:
        """ "up" or "down" beyond two standard errors, or at `TWO_SE_LEVEL` of an exact test; else "same"."""
        beyond = abs(self.sigmas) > 2 if self.p_value is None else self.p_value < TWO_SE_LEVEL
        return ("up" if self.delta > 0 else "down") if beyond else "same"

    @property
    def evidence(self) -> str:
        """The difference in standard errors, or the p-value of the exact test, in words."""
        if self.p_value is not None:
            return f"McNemar's p = {self.p_value:.2g}"
        return f"{abs(self.sigmas):.1f} SE{', paired' if self.method == 'bootstrap' else ''}"

    def __str__(self) -> str:
        return f"{100 * self.delta:+.1f} points ({self.evidence})"


def change(after: Measure, before: Measure) -> Change:
    """``after - before`` with its standard error."""
    return Change(after.p - before.p, math.hypot(after.se, before.se))


SMOOTHING_ORDER = 3
SMOOTHING_MIN_POINTS = 9


def smoothing_window(points: int) -> int | None:
    """Window of the smoothing for a curve of ``points`` points; None if they are too few to smooth.

    The paper gives the order (3) and no window; ours is the odd number next to half the points, at least 7.
    """
    if points < SMOOTHING_MIN_POINTS:
        return None
    return max(7, points // 2 | 1)


def savitzky_golay(values: Sequence[float], window: int, order: int = 3) -> npt.NDArray[np.float64]:
    """Savitzky-Golay filter: each value replaced by that of a polynomial fitted to the window around it.

    Points nearer to an end than half a window take the polynomial of the first or last whole window.

    Args:
        values: Evenly spaced samples, shape [n], n >= window.
        window: Odd number of samples in a fit, larger than ``order``.
        order: Degree of the polynomial (3 in the paper).

    Returns:
        Smoothed samples, shape [n].

    Raises:
        ValueError: if the window is even, not larger than the order, or longer than the samples.
    """
    import numpy as np

    samples = np.asarray(values, dtype=np.float64)
    if window % 2 == 0 or window <= order or window > len(samples):
        raise ValueError(f"window {window} must be odd, > order {order} and <= {len(samples)} samples")
    half = window // 2
    # Least squares over offsets -half .. half: X pinv(X) is the hat matrix, and its middle row the weights of
    # the fitted value in the middle. `np.convolve` reverses its second argument, hence [::-1]; the ends,
    # where the window does not fit, are replaced by the fits of the first and the last window.
    design = np.vander(np.arange(-half, half + 1, dtype=np.float64), order + 1, increasing=True)
    projection = design @ np.linalg.pinv(design)  # [window, window]: samples of a window -> fitted samples
    smooth = np.convolve(samples, projection[half][::-1], mode="same")
    smooth[:half] = (projection @ samples[:window])[:half]
    smooth[-half:] = (projection @ samples[-window:])[-half:]
    return smooth

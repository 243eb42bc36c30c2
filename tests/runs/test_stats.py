"""Error bars and smoothing against hand-worked numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftrl_ext.runs.stats import (
    SMOOTHING_MIN_POINTS,
    Measure,
    binomial_se,
    change,
    clustered_se,
    mean_of_seeds,
    over_responses,
    over_seeds,
    over_seeds_by_route,
    rank_correlation,
    savitzky_golay,
    smoothing_window,
)


def test_binomial_error_of_the_papers_start():
    assert 100 * binomial_se(27, 234) == pytest.approx(2.09, abs=0.01)  # 11.5 % of 234 hands


@pytest.mark.parametrize("solved", [0, 234])
def test_no_error_bar_has_zero_length(solved):
    p = 1 / 236
    assert binomial_se(solved, 234) == pytest.approx(math.sqrt(p * (1 - p) / 234))


def test_one_seed_is_binomial():
    assert over_seeds([(30, 100)]) == Measure(0.3, binomial_se(30, 100), 1, 100)


def test_seeds_that_differ_widely_give_the_standard_error_of_means():
    measure = over_seeds([(10, 100), (50, 100), (90, 100)])
    assert measure.p == pytest.approx(0.5)
    assert measure.se == pytest.approx(0.4 / math.sqrt(3))


def test_seeds_that_agree_by_chance_keep_the_binomial_floor():
    measure = over_seeds([(50, 100)] * 4)
    assert measure.se == pytest.approx(binomial_se(50, 100) / 2)


def test_numbers_of_any_kind_are_pooled_alike():
    assert mean_of_seeds([0.2, 0.4], [0.01, 0.01]) == pytest.approx((0.3, 0.1))
    assert mean_of_seeds([0.3], [0.02]) == pytest.approx((0.3, 0.02))
    assert mean_of_seeds([0.3, 0.3], [0.02, 0.04]) == pytest.approx((0.3, math.sqrt(0.001 / 2)))


def walks(rng, routes, seeds=1, spread=0.5, drift=0.0):
    """Routes of uneven length; a route's own accuracy makes its responses correlated, for all seeds alike."""
    lengths = rng.integers(3, 20, size=routes)
    skill = rng.normal(0.8, spread, size=routes)
    shift = rng.normal(0.0, drift, size=seeds)
    p = 1 / (1 + np.exp(-(skill[None] + shift[:, None]) * 2))
    right = rng.binomial(lengths[None], p)
    return [[(int(c), int(r)) for c, r in zip(row, lengths, strict=True)] for row in right]


def rate(routes):
    return sum(c for c, _ in routes) / sum(r for _, r in routes)


@pytest.mark.parametrize(("routes", "spread"), [(48, 0.0), (48, 0.8), (200, 1.5)])
def test_errors_clustered_by_route_agree_with_a_bootstrap_over_routes(routes, spread):
    rng = np.random.default_rng(5)
    (counts,) = walks(rng, routes, spread=spread)
    drawn = [[counts[i] for i in rng.integers(0, routes, size=routes)] for _ in range(2000)]
    bootstrap = float(np.std([rate(sample) for sample in drawn], ddof=1))
    assert clustered_se(counts) == pytest.approx(bootstrap, rel=0.08)
    total = sum(c for c, _ in counts), sum(r for _, r in counts)
    if spread:
        assert clustered_se(counts) > 1.3 * binomial_se(*total)


def test_seeds_on_the_same_routes_agree_with_a_joint_bootstrap():
    """Seeds that differ by sampling alone: routes are drawn for all seeds at once."""
    rng = np.random.default_rng(9)
    seeds = walks(rng, 60, seeds=3, spread=1.0)
    means = []
    for _ in range(2000):
        chosen = rng.integers(0, 60, size=60)
        means.append(np.mean([rate([routes[i] for i in chosen]) for routes in seeds]))
    measure = over_seeds_by_route(seeds)
    assert measure.se == pytest.approx(float(np.std(means, ddof=1)), rel=0.08)
    # Seeds as independent would divide the error of shared routes by the square root of their number.
    alone = math.sqrt(np.mean([clustered_se(routes) ** 2 for routes in seeds]) / 3)
    assert measure.se > 1.3 * alone
    assert (measure.seeds, measure.episodes) == (3, 3 * sum(r for _, r in seeds[0]))


@pytest.mark.parametrize(("spread", "drift"), [(1.0, 0.0), (0.3, 0.5), (1.0, 0.4)])
def test_the_error_over_seeds_is_that_of_repeated_experiments(spread, drift):
    rng = np.random.default_rng(2)
    measures = [over_seeds_by_route(walks(rng, 40, 4, spread, drift)) for _ in range(400)]
    actual = float(np.std([m.p for m in measures], ddof=1))
    assert math.sqrt(np.mean([m.se**2 for m in measures])) == pytest.approx(actual, rel=0.12)


@pytest.mark.parametrize("right", [0, 5])
def test_no_clustered_error_bar_has_zero_length(right):
    p = 1 / 50
    assert clustered_se([(right, 5)] * 48) == pytest.approx(math.sqrt(p * (1 - p) / 48))
    assert clustered_se([(1, 2)] * 48) == pytest.approx(math.sqrt(0.25 / 48))
    assert clustered_se([(1, 2)]) == pytest.approx(0.5)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=30))
def test_order_and_empty_routes_do_not_change_a_rate(pairs):
    routes = [(c, c + wrong) for c, wrong in pairs]
    if not any(r for _, r in routes):
        return
    measure = over_seeds_by_route([routes])
    assert measure.p == pytest.approx(rate(routes)) and measure.se > 0
    assert over_seeds_by_route([routes[::-1]]).se == pytest.approx(measure.se)


def test_errors_per_response_are_marked():
    assert str(over_responses([(50, 100)])) == "50.0 ± 5.0†"
    assert str(over_seeds_by_route([[(5, 10)] * 10])) == "50.0 ± 15.8"


def test_rank_correlation():
    assert rank_correlation([1, 2, 3, 40], [5, 4, 3, -7]) == pytest.approx(-1.0)
    # 1 - 6 sum(d^2) / (n (n^2 - 1)) without ties: d = 0, -1, 1, -1, 1.
    assert rank_correlation([1, 2, 3, 4, 5], [10, 30, 20, 50, 40]) == pytest.approx(1 - 6 * 4 / 120)
    # With ties: ranks 1, 2.5, 2.5, 4 and 4, 3, 1.5, 1.5.
    ranks = np.corrcoef([1, 2.5, 2.5, 4], [4, 3, 1.5, 1.5])[0, 1]
    assert rank_correlation([0.1, 0.2, 0.2, 0.3], [9, 8, 2, 2]) == pytest.approx(ranks)
    assert rank_correlation([1, 2], [2, 1]) is None
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None


def test_change_counts_beyond_two_errors():
    low, high = Measure(0.30, 0.02, 1, 1), Measure(0.36, 0.02, 1, 1)
    assert change(high, low).direction == "up"
    assert change(low, high).direction == "down"
    assert change(Measure(0.35, 0.02, 1, 1), low).direction == "same"
    assert change(low, high).sigmas == pytest.approx(-0.06 / math.hypot(0.02, 0.02))


@given(st.lists(st.floats(-3, 3), min_size=4, max_size=4), st.integers(9, 40))
def test_smoothing_keeps_every_cubic(coefficients, points):
    xs = np.linspace(-1, 1, points)
    ys = np.polyval(coefficients, xs)
    window = smoothing_window(points)
    assert window is not None
    np.testing.assert_allclose(savitzky_golay(ys, window), ys, atol=1e-9)


def test_smoothing_has_the_textbook_weights():
    impulse = np.zeros(11)
    impulse[5] = 1
    np.testing.assert_allclose(savitzky_golay(impulse, 5)[3:8] * 35, [-3, 12, 17, 12, -3], atol=1e-9)


def test_few_points_are_not_smoothed():
    assert smoothing_window(SMOOTHING_MIN_POINTS - 1) is None
    assert all((smoothing_window(n) or 1) % 2 == 1 and (smoothing_window(n) or 0) <= n for n in range(9, 60))


@pytest.mark.parametrize("window", [4, 3, 13])
def test_a_wrong_window_is_refused(window):
    with pytest.raises(ValueError, match="window"):
        savitzky_golay([0.0] * 11, window)

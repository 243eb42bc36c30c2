"""The regression check of the benchmarks refuses worse ratios, and names ratios that one side lacks."""

from __future__ import annotations

import pytest

from benchmarks.regressions import BENCHMARKS, SECTION, STORED, regressions
from sftrl_ext.files import read_json

OF_TIMES = {"bench_grade": {"grade_correct_over_floor": 2.0}}
OF_SPEEDS = {"bench_solver": {"solve_cold_over_floor": 30.0}}


@pytest.mark.parametrize(
    ("stored", "measured"),
    [
        (OF_TIMES, {"bench_grade": {"grade_correct_over_floor": 2.9}}),
        (OF_TIMES, {"bench_grade": {"grade_correct_over_floor": 0.5}}),
        (OF_SPEEDS, {"bench_solver": {"solve_cold_over_floor": 21.0}}),
        (OF_SPEEDS, {"bench_solver": {"solve_cold_over_floor": 90.0}}),
    ],
)
def test_a_ratio_may_vary_within_the_allowed_factor_and_improve(stored, measured):
    assert regressions(stored, measured) == []


def test_a_worse_ratio_of_times_is_refused():
    [message] = regressions(OF_TIMES, {"bench_grade": {"grade_correct_over_floor": 3.1}})
    expected = "stored 2.0, measured 3.1: 1.55 times worse; allowed: 1.5 times"
    assert message == f"bench_grade: grade_correct_over_floor: {expected}"


def test_a_worse_ratio_of_speeds_is_refused():
    [message] = regressions(OF_SPEEDS, {"bench_solver": {"solve_cold_over_floor": 15.0}})
    assert message.startswith("bench_solver: solve_cold_over_floor: stored 30.0, measured 15.0: 2.00 times")


def test_a_ratio_that_one_side_lacks_is_named():
    [message] = regressions({}, OF_TIMES)
    assert message == "baseline.json: ratios: bench_grade: grade_correct_over_floor: missing; measured 2.0"
    [message] = regressions(OF_TIMES, {"bench_grade": {}})
    assert message == "bench_grade: grade_correct_over_floor: not measured; baseline.json has 2.0"


def test_ratios_of_every_benchmark_are_stored():
    stored = read_json(STORED)[SECTION]["values"]
    assert set(stored) == set(BENCHMARKS) and all(stored.values())

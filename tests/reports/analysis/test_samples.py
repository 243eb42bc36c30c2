"""pass@k and distinct solutions of runs that sample every instance several times."""

from __future__ import annotations

import math

import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.reports.analysis.curves import mean_over_seeds
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.analysis.samples import (
    distinct_solutions,
    estimate_pass_at_k,
    ks_of,
    pass_at_k,
)
from sftrl_ext.reports.pages.render import number_tables
from sftrl_ext.reports.summary import summarize
from tests.reports.synthetic_run import make_run, rewrite


@pytest.mark.parametrize(
    ("episodes", "solved", "k", "chance"),
    [
        (4, 1, 1, 1 / 4),
        (4, 1, 2, 1 / 2),  # 3 of the 6 pairs hold the solved one
        (4, 2, 2, 5 / 6),
        (4, 0, 4, 0.0),
        (4, 1, 4, 1.0),
        (10, 3, 5, 1 - 21 / 252),
    ],
)
def test_the_estimate_is_the_share_of_choices_that_hold_a_solved_episode(episodes, solved, k, chance):
    assert estimate_pass_at_k(episodes, solved, k) == pytest.approx(chance)


def test_the_ks_end_with_all_samples():
    assert [ks_of(n) for n in (1, 2, 4, 6)] == [[], [1, 2], [1, 2, 4], [1, 2, 4, 6]]


def sampled(run_dir, successes=(4, 2, 1, 0), **fields):
    """Give every record four episodes of each of four instances."""

    def change(record):
        counts = {"episodes": 16, "solved": sum(successes), "successes": list(successes)}
        return record | counts | {"instances": "0a"} | fields

    rewrite(run_dir, change)
    return run_dir


def test_means_and_errors_over_instances(tmp_path):
    fields = {"distinct": [3, 2, 1, 0], "solutions": [6, 2, 1, 3]}
    run_dir = sampled(make_run(tmp_path, points=1, splits=("id", "rule_ood")), **fields)
    analysis = analyse(run_dir)
    checkpoints = analysis.curves.arms[0].seeds[0]
    two = pass_at_k(checkpoints, "id", 2)
    assert two.p == pytest.approx((1 + 5 / 6 + 1 / 2 + 0) / 4)
    values = [1, 5 / 6, 1 / 2, 0]
    spread = math.sqrt(sum((v - two.p) ** 2 for v in values) / 3)
    assert two.se == pytest.approx(spread / 2)
    success = mean_over_seeds(checkpoints, "id")
    one = pass_at_k(checkpoints, "id", 1)
    assert success.p == one.p == pytest.approx(7 / 16) and success.episodes == 16
    assert success.se == pytest.approx(one.se), "episodes of an instance are not independent"
    distinct = distinct_solutions(checkpoints, "id")
    assert (distinct.wrote, distinct.exist) == (1.5, 3.0)
    assert distinct.se == pytest.approx(math.sqrt(5 / 3) / 2)
    (table,) = [entry.table for entry in number_tables(analysis) if entry.title.startswith("pass@k")]
    assert table.header[4:] == ["pass@1", "pass@2", "pass@4", "Distinct solutions"]
    assert table.rows[0][3:5] == ["id", "43.8 ± 21.3"] and table.rows[0][-1] == "1.50 ± 0.65 of 3.0"
    line = summarize(analysis)["compared"][0]
    assert line["pass_at_k"]["4"]["percent"] == pytest.approx(75.0)
    assert line["distinct_solutions"]["wrote"] == 1.5


def test_one_episode_of_each_instance_has_no_pass_at_k(tmp_path):
    analysis = analyse(make_run(tmp_path, points=1, splits=("id",)))
    assert not any(entry.title.startswith("pass@k") for entry in number_tables(analysis))
    assert "pass_at_k" not in summarize(analysis)["compared"][0]


def test_an_instance_that_nobody_or_everybody_solves_still_has_an_error(tmp_path):
    run_dir = sampled(make_run(tmp_path, points=1, splits=("id",)), successes=(4, 4, 4, 4))
    measure = pass_at_k(analyse(run_dir).curves.arms[0].seeds[0], "id", 4)
    assert measure.p == 1.0 and measure.se > 0.1


def test_counts_of_another_number_of_instances_are_refused(tmp_path):
    run_dir = sampled(make_run(tmp_path, points=1, splits=("id",)), distinct=[1, 1])
    with pytest.raises(SftrlError, match="'distinct' should have 4 counts, found 2"):
        analyse(run_dir)

"""Arms at equal success in distribution: level, interpolation, errors, and runs that have no such level."""

from __future__ import annotations

import pytest

from sftrl_ext.reports.analysis.curves import Checkpoint, Curve
from sftrl_ext.reports.analysis.equal_id import compare_at_equal_id, equal_id_sentences
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.pages.method import method_notes, verdict_sentences
from sftrl_ext.reports.pages.tables import equal_id_table
from sftrl_ext.reports.results_file import write_results
from sftrl_ext.reports.stored_results import analyse_results, report_lines
from sftrl_ext.reports.summary import summarize
from sftrl_ext.runs.stats import Measure
from tests.reports.synthetic_run import make_run, rewrite

START = (0, 0.4, 0.5)


def curve(arm, *points):
    """A curve from (step, ID success, OOD success), with errors of 3 and 2 points."""

    def checkpoint(step, inside, outside):
        measures = {
            ("main", "id"): Measure(inside, 0.03, 1, 100),
            ("main", "ood"): Measure(outside, 0.02, 1, 100),
        }
        return Checkpoint(arm, 1e-4, 0, arm, step, None, {}, measures)

    return Curve(arm, 1e-4, {0: [checkpoint(*point) for point in points]}, [checkpoint(*START)])


def test_both_are_read_where_they_first_reach_the_largest_common_success():
    sft = curve("sft", (10, 0.6, 0.4), (20, 0.9, 0.1), (30, 0.7, 0.0))
    rl = curve("rl", (4, 0.5, 0.5), (8, 0.7, 0.6))
    reading = compare_at_equal_id(sft, rl, ("SFT", "RL"), "ood")
    assert reading.level == pytest.approx(0.7)
    first, second = reading.arrivals
    # A third of the way from 60 to 90 %; three points of ID success are three of OOD success there.
    assert (first.step, first.ood.p) == (pytest.approx(40 / 3), pytest.approx(0.3))
    assert first.ood.se == pytest.approx((0.02**2 + 0.03**2) ** 0.5)
    # RL ends at the level: its error holds the way back alone, three points of ID success for 1.5 of OOD.
    assert (second.step, second.ood.p) == (8, pytest.approx(0.6))
    assert second.ood.se == pytest.approx((0.02**2 + 0.015**2) ** 0.5)
    assert reading.difference.delta == pytest.approx(0.3)
    assert reading.difference.se == pytest.approx((0.02**2 * 2 + 0.03**2 + 0.015**2) ** 0.5)
    assert "(70.0 %, the largest that both reach)" in reading.sentence
    assert "RL minus SFT: +30.0 points (6.8 SE)" in reading.sentence


def test_arms_without_a_common_success_above_the_start_are_not_read():
    reading = compare_at_equal_id(
        curve("sft", (10, 0.6, 0.4)), curve("rl", (4, 0.4, 0.9), (8, 0.3, 0.6)), ("SFT", "RL"), "ood"
    )
    assert reading.level is None and reading.difference is None and not reading.arrivals
    assert (
        "cannot be read: no success on `id` above the start (40.0 %) is reached by both" in reading.sentence
    )


def with_shares(run_dir, shares):
    """Give checkpoints the ID and OOD success of ``shares[arm, step]``; the start has that of `START`."""

    def change(record):
        pair = shares.get((record["arm"], record["step"]), START[1:])
        share = pair[0 if record["split"] == "id" else 1]
        return record | {"solved": round(share * record["episodes"])}

    rewrite(run_dir, change)
    return analyse(run_dir)


def test_every_page_has_the_second_reading(tmp_path):
    run_dir = make_run(tmp_path / "run", points=2, splits=("id", "rule_ood"), rl_tokens=2.2e6)
    analysis = with_shares(
        run_dir,
        {("sft", 50): (0.6, 0.4), ("sft", 100): (0.9, 0.1), ("rl", 4): (0.5, 0.5), ("rl", 8): (0.7, 0.6)},
    )
    (sentence,) = equal_id_sentences(analysis, "rule_ood")
    assert "SFT (lr 5e-5, step 67) 30.0 ±" in sentence and "RL (lr 5e-5, step 8) 60.0 ±" in sentence
    assert sentence in verdict_sentences(analysis)
    (row,) = equal_id_table(analysis).rows
    assert row[1:5] == ["70.0", "SFT", "5e-5", "67"] and row[-1].startswith("+30.0 points")
    (entry,) = summarize(analysis)["equal_id_success"]
    assert entry["id_percent"] == pytest.approx(70.0)
    assert [c["percent"] for c in entry["curves"]] == [pytest.approx(30.0), pytest.approx(60.0)]
    assert entry["second_minus_first"]["direction"] == "up"
    assert any(note.startswith("Equal success in distribution") for note in method_notes(analysis))
    stored = analyse_results(write_results(run_dir, tmp_path))
    assert any("RL minus SFT: +30.0 points" in line for line in report_lines(stored))


def test_pairs_of_learning_rates_are_counted(tmp_path):
    run_dir = make_run(tmp_path, points=1, rates=(1e-5, 5e-5), splits=("id", "rule_ood"))
    analysis = with_shares(run_dir, {("sft", 50): (0.9, 0.1), ("rl", 4): (0.9, 0.6)})
    assert equal_id_sentences(analysis, "rule_ood")[1] == (
        "Over all 4 pairs of their learning rates RL stands above SFT in 4, below in 0, within 2 SE in 0."
    )
    assert len(equal_id_table(analysis).rows) == 4


def test_a_run_without_a_common_success_says_so(tmp_path):
    run_dir = make_run(tmp_path, points=1, splits=("id", "rule_ood"))
    analysis = with_shares(run_dir, {("sft", 50): (0.9, 0.1), ("rl", 4): (0.3, 0.6)})
    assert equal_id_table(analysis) is None
    (sentence,) = equal_id_sentences(analysis, "rule_ood")
    assert "cannot be read" in sentence
    (entry,) = summarize(analysis)["equal_id_success"]
    assert entry["absent"] in sentence and "id_percent" not in entry


def test_a_run_without_an_id_split_has_no_second_reading(tmp_path):
    analysis = analyse(make_run(tmp_path, points=1, splits=("rule_ood",)))
    assert summarize(analysis)["equal_id_success"] == []
    assert equal_id_sentences(analysis, "rule_ood") == []

"""Differences over the same instances: McNemar's exact test, the bootstrap, records that cannot be paired."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.reports.analysis.paired import paired_change
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.pages.method import method_notes
from sftrl_ext.reports.summary import summarize
from sftrl_ext.runs.records import EvalRecord
from tests.reports.synthetic_run import make_run, rewrite


def record(successes, seed=0, samples=1, instances="a", **fields):
    counts = {"episodes": samples * len(successes), "solved": sum(successes), "successes": tuple(successes)}
    return EvalRecord(
        stage=f"s{seed}", arm="sft", seed=seed, split="ood", instances=instances, **counts | fields
    )


def test_one_seed_is_compared_by_the_exact_test_of_mcnemar():
    # 7 instances solved after alone, 1 before alone, 12 by both: 9 of 2^8 tosses have at most one head.
    change = paired_change([record([1] * 7 + [0] + [1] * 12)], [record([0] * 7 + [1] + [1] * 12)])
    assert (change.method, change.delta) == ("mcnemar", pytest.approx(6 / 20))
    assert change.p_value == pytest.approx(2 * 9 / 256)
    assert change.se == pytest.approx(math.sqrt(8 - 36 / 20) / 20)
    assert change.direction == "same" and str(change) == "+30.0 points (McNemar's p = 0.07)"
    # One more instance: 2 x 10 / 2^9 = 0.039 is below 0.0455.
    change = paired_change([record([1] * 8 + [0] + [1] * 11)], [record([0] * 8 + [1] + [1] * 11)])
    assert change.p_value == pytest.approx(2 * 10 / 512) and change.direction == "up"


def test_agreement_on_every_instance_still_has_an_error():
    change = paired_change([record([1, 0, 1, 0])], [record([1, 0, 1, 0])])
    assert (change.delta, change.p_value, change.direction) == (0.0, 1.0, "same")
    assert change.se == pytest.approx(math.sqrt(4 / 6) / 4)


def test_the_bootstrap_of_one_seed_is_the_error_of_paired_means():
    """With several episodes an instance: standard deviation of the instances' differences, over sqrt(n)."""
    rng = np.random.default_rng(5)
    hard = rng.random(150)
    after, before = (rng.binomial(4, np.clip(hard + shift, 0, 1)) for shift in (0.05, 0.0))
    change = paired_change([record(after.tolist(), samples=4)], [record(before.tolist(), samples=4)])
    difference = (after - before) / 4
    assert (change.method, change.p_value) == ("bootstrap", None)
    assert change.delta == pytest.approx(difference.mean())
    assert change.se == pytest.approx(difference.std() / math.sqrt(150), rel=0.06)
    unpaired = math.hypot(*(side.std() / 4 / math.sqrt(150) for side in (after, before)))
    assert change.se < 0.8 * unpaired
    assert str(change).endswith("SE, paired)")


def test_seeds_that_differ_widen_the_error():
    """Every instance alike, seeds at 20, 30 and 70 points above: s^2 = 700, s / sqrt(3) = 15.3 points."""
    after = [record([1] * solved + [0] * (10 - solved), seed) for seed, solved in enumerate((2, 3, 7))]
    before = [record([0] * 10, seed) for seed in range(3)]
    change = paired_change(after, before)
    assert change.delta == pytest.approx(0.4)
    assert change.se >= math.sqrt(0.07 / 3)
    assert change == paired_change(after, before), "the same records give the same bytes"


def test_seeds_are_matched_by_number_not_by_order():
    """Each seed solves what its partner does: no difference of seeds is left, in whatever order they come."""
    after = [record([1] * 6 + [0] * 4, 0), record([0] * 6 + [1] * 4, 1)]
    before = [record([0] * 6 + [1] * 4, 1), record([1] * 6 + [0] * 4, 0)]
    change = paired_change(after, before)
    assert change.delta == 0.0 and change.se == pytest.approx(math.sqrt(1 / 12 / 10 / 2)), "never zero"
    other = [record(r.successes, r.seed + 5) for r in before]
    assert paired_change(after, other).se > 0.05, "seeds of their own are drawn for each side by itself"


def test_steps_of_routes_are_a_ratio_of_sums():
    counts = [((3, 4), (1, 2)), ((2, 4), (2, 2))]
    after, before = (record([0, 0], step_counts=pairs, correct_actions=4, responses=6) for pairs in counts)
    change = paired_change([after], [before])
    assert (change.method, change.delta) == ("bootstrap", 0.0) and change.se > 0


@pytest.mark.parametrize(
    "before",
    [
        record([1, 0], instances="b"),
        record([1, 0, 1]),
        EvalRecord(stage="s", arm="a", split="ood", episodes=2, solved=1),
    ],
)
def test_other_instances_are_not_paired(before):
    assert paired_change([record([1, 1])], [before]) is None
    assert paired_change([], []) is None


def with_successes(run_dir, seed_of_instances=3):
    """Give every record outcomes of its instances, of which the easier ones are solved first."""

    def change(stored):
        solved, episodes = stored["solved"], stored["episodes"]
        order = np.random.default_rng(seed_of_instances).permutation(episodes)
        successes = [int(place < solved) for place in order]
        return stored | {"successes": successes, "instances": "0a"}

    rewrite(run_dir, change)


@pytest.mark.parametrize(
    ("seeds", "method", "text"),
    [((0,), "mcnemar", "McNemar's p = "), ((0, 1), "bootstrap", "SE, paired)")],
)
def test_the_verdict_takes_paired_errors_where_it_can(tmp_path, seeds, method, text):
    run_dir = make_run(tmp_path, points=2, seeds=seeds, splits=("id", "rule_ood"))
    unpaired = analyse(run_dir).verdict
    (note,) = [note for note in method_notes(analyse(run_dir)) if note.startswith("Verdict")]
    assert "taken as independent" in note and "p_value" not in summarize(analyse(run_dir))["verdict"]
    with_successes(run_dir)
    analysis = analyse(run_dir)
    assert analysis.verdict.difference.delta == pytest.approx(unpaired.difference.delta)
    assert analysis.verdict.difference.se < unpaired.difference.se
    assert text in analysis.verdict.headline
    assert all(text in finding.sentence for finding in analysis.verdict.findings)
    stored = summarize(analysis)["verdict"]["rl_minus_sft"]
    assert stored["method"] == method and ("p_value" in stored) == (method == "mcnemar")
    (note,) = [note for note in method_notes(analysis) if note.startswith("Verdict")]
    assert "Checkpoints are compared instance by instance" in note and "independent" not in note


def test_success_of_pictures_has_the_same_error_in_every_sentence(tmp_path):
    run_dir = make_run(tmp_path, points=1, splits=("id", "visual_ood"), pictures=True)
    with_successes(run_dir)
    analysis = analyse(run_dir)
    for reading in analysis.recognition_changes:
        (finding,) = [f for f in analysis.verdict.findings if f.key[0] == reading.arm]
        expected = finding.id_change if reading.split == "id" else finding.ood_change
        assert reading.success.change == expected and expected.method == "mcnemar"
        assert reading.read.change.method == "unpaired"
        assert "% (McNemar's p = " in reading.sentence


def test_successes_that_do_not_add_up_are_refused(tmp_path):
    run_dir = make_run(tmp_path, points=1, splits=("id",))
    rewrite(run_dir, lambda stored: stored | {"successes": [1] * stored["episodes"]})
    with pytest.raises(SftrlError, match=r"records\.jsonl, line 1.*'successes' should count"):
        analyse(run_dir)

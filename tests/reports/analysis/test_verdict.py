"""Curves, equal compute and the verdict: all of it follows the numbers."""

from __future__ import annotations

import json

import pytest

from sftrl_ext.reports import build_report
from sftrl_ext.reports.analysis.curves import at_equal_compute, mean_over_seeds
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.analysis.splits import expected_numbers
from sftrl_ext.reports.analysis.verdict import main_split, main_splits
from sftrl_ext.reports.pages.method import axis_sentences
from sftrl_ext.reports.summary import summarize
from sftrl_ext.runs.recipe import StoredExpected, StoredRecipe
from tests.reports.synthetic_run import PARAMETERS, make_run, rewrite


def with_success(run_dir, wanted):
    """Give every (arm, split) the success of ``wanted``, the start that of arm "init"."""

    def change(record):
        share = wanted.get((record["arm"], record["split"]), 0.5)
        return record | {"solved": round(share * record["episodes"])}

    rewrite(run_dir, change)


CASES = [
    (0.2, 0.42, "appears", "SFT loses the other rule and RL keeps it"),
    (0.2, 0.60, "appears", "SFT loses the other rule and RL gains on it"),
    (0.30, 0.33, "partly", "differ by less than 2 SE"),
    (0.38, 0.50, "partly", "RL ends above SFT"),
    (0.40, 0.40, "absent", "SFT does not lose the other rule"),
    (0.20, 0.20, "absent", "both arms lose the other rule"),
    (0.10, 0.25, "absent", "both arms lose the other rule, RL less than SFT"),
    (0.40, 0.20, "absent", "RL loses the other rule and SFT does not"),
]


@pytest.mark.parametrize(("sft", "rl", "pattern", "words"), CASES)
def test_the_verdict_follows_the_numbers(tmp_path, sft, rl, pattern, words):
    make_run(tmp_path, points=2, splits=("id", "rule_ood"))
    with_success(tmp_path, {("init", "rule_ood"): 0.4, ("sft", "rule_ood"): sft, ("rl", "rule_ood"): rl})
    verdict = analyse(tmp_path).verdict
    assert verdict.pattern == pattern
    assert words in verdict.headline
    assert f"{100 * (rl - sft):+.1f} points" in verdict.headline


def test_findings_state_both_splits(tmp_path):
    make_run(tmp_path, points=2, splits=("id", "rule_ood"))
    with_success(tmp_path, {("sft", "id"): 0.8, ("sft", "rule_ood"): 0.2})
    found = next(f for f in analyse(tmp_path).verdict.findings if f.key[0] == "sft")
    assert "loses success on `rule_ood`: 20.0 ± 2.3 %, -30.0 points" in found.sentence
    assert "in distribution it gains: 80.0 ± 2.3 %, +30.0 points" in found.sentence


def test_curves_leave_from_the_shared_start_and_cost_what_the_formula_says(tmp_path):
    found = analyse(make_run(tmp_path, points=3))
    assert [c.arm for c in found.curves.start] == ["init"]
    assert found.curves.start[0].cost.paper == 6 * PARAMETERS * 6e5
    rl = next(curve for curve in found.curves.arms if curve.arm == "rl").seeds[0][-1]
    assert rl.cost.paper == pytest.approx(6 * PARAMETERS * (6e5 + 1.8e6) + 2 * PARAMETERS * 6 * 1.8e6)
    assert rl.cost.counted == pytest.approx(6 * PARAMETERS * 6e5 + 56 * PARAMETERS * 4.5e5)
    assert rl.cost.tokens == pytest.approx(6e5 + 1.25 * 1.8e6)


def test_the_critic_has_a_size_of_its_own(tmp_path):
    make_run(tmp_path, points=3)
    state = json.loads((tmp_path / "state.json").read_text())
    state["model"]["critic_parameters"] = PARAMETERS // 2
    (tmp_path / "state.json").write_text(json.dumps(state))
    rl = next(curve for curve in analyse(tmp_path).curves.arms if curve.arm == "rl").seeds[0][-1]
    actor, critic = 6 * 4 + 2 * (1 + 2), 6 * 4 + 2
    assert rl.cost.counted == pytest.approx(PARAMETERS * (6 * 6e5 + (actor + critic / 2) * 4.5e5))


def test_another_number_of_epochs_leaves_the_papers_formula_out(tmp_path):
    found = analyse(make_run(tmp_path, points=2, splits=("id", "rule_ood"), epochs=1))
    assert "paper" not in found.axes and found.equal.axis == "counted"
    assert found.verdicts[0].other_axis is None
    assert "stage `rl-s0` makes 1" in " ".join(axis_sentences(found))
    assert summarize(found)["compute_axes"] == {
        "headline": "counted",
        "paper_formula_absent": found.curves.paper_absent,
        "rl_tokens": "per_epoch",
        "flips": [],
        "comparisons": [],
    }


def test_a_verdict_that_flips_between_the_axes_is_named(tmp_path):
    """SFT loses the other rule in its last checkpoint, which only the paper's formula lets it reach."""
    make_run(tmp_path, points=2, splits=("id", "rule_ood"))

    def change(record):
        late = record["arm"] == "sft" and record["step"] == 100
        share = 0.1 if late and record["split"] == "rule_ood" else 0.4
        return record | {"solved": round(share * record["episodes"])}

    rewrite(tmp_path, change)
    found = analyse(tmp_path)
    (one,) = found.verdicts
    assert found.equal.chosen["sft", 5e-5][0].step == 50
    assert (one.between_axes.counted, one.between_axes.paper) == ("absent", "appears")
    assert one.between_axes.flips and len(one.between_axes.differences) == 2
    text = " ".join(axis_sentences(found))
    assert "Verdicts that flip between the two axes: `rule_ood`." in text
    assert "RL minus SFT: no change beyond 2 SE" in text and "SFT on `rule_ood`" in text
    axes = summarize(found)["compute_axes"]
    assert axes["flips"] == ["rule_ood"] and axes["comparisons"][0]["paper"] == "appears"
    made = build_report(tmp_path)
    for page in (made.markdown.read_text(), made.html.read_text()):
        assert "Verdicts that flip between the two axes" in page


def test_no_flip_is_said_too(tmp_path):
    found = analyse(make_run(tmp_path, points=2, splits=("id", "rule_ood"), sign=0.0))
    assert "No verdict flips between the two axes." in axis_sentences(found)
    assert summarize(found)["compute_axes"]["flips"] == []


def test_arms_are_compared_at_the_most_compute_all_reached(tmp_path):
    found = analyse(make_run(tmp_path, points=5))
    assert found.equal.axis == "counted"
    reaches = [curve.reach("counted") for curve in found.curves.arms]
    assert found.equal.budget == min(reaches)
    for curve in found.curves.arms:
        (chosen,) = found.equal.chosen[curve.key]
        later = [c for c in curve.seeds[0] if c.step > chosen.step]
        assert chosen.cost.counted <= found.equal.budget
        assert all(c.cost.counted > found.equal.budget for c in later)
    assert at_equal_compute(found.curves, "paper").budget != found.equal.budget


def test_a_seed_that_stopped_early_is_left_out_and_said(tmp_path):
    make_run(tmp_path, points=6, seeds=(0, 1), splits=("id", "rule_ood"))
    rewrite(tmp_path, lambda r: None if r["stage"] == "sft-s1" and r["step"] > 50 else r)
    found = analyse(tmp_path)
    assert [c.seed for c in found.equal.chosen["sft", 5e-5]] == [0]
    assert any("sft, lr 5e-5, seed 1: stopped" in note for note in found.notes)


def test_seeds_are_pooled_and_a_single_start_counts_once(tmp_path):
    found = analyse(make_run(tmp_path, seeds=(0, 1, 2), points=2))
    sft = found.curves.arms[0]
    assert mean_over_seeds(found.equal.chosen[sft.key], "rule_ood").seeds == 3
    assert mean_over_seeds(found.curves.start, "rule_ood").seeds == 1
    assert not any("One seed" in note for note in found.notes)


def test_the_learning_rate_is_chosen_in_distribution(tmp_path):
    make_run(tmp_path, rates=(5e-5, 2e-4), points=2, splits=("id", "rule_ood"))

    def change(record):
        good = record["arm"] == "sft" and record["lr"] == 2e-4
        share = {"id": 0.9 if good else 0.6, "rule_ood": 0.1 if good else 0.5}[record["split"]]
        return record | {"solved": round(share * record["episodes"])}

    rewrite(tmp_path, change)
    found = analyse(tmp_path)
    assert found.picked["sft"].lr == 2e-4  # worse on the other rule, better in distribution
    assert found.picked["rl"].lr == 5e-5  # equal: the smaller
    assert len(found.shown) == 4
    assert any("SFT ran at 2 learning rates; the verdict uses 2e-4 (best in" in note for note in found.notes)


def test_more_than_three_learning_rates_give_one_bar_per_arm(tmp_path):
    found = analyse(make_run(tmp_path, rates=(1e-6, 1e-5, 5e-5, 2e-4), points=2, splits=("id", "rule_ood")))
    assert len(found.curves.arms) == 8
    assert sorted(curve.arm for curve in found.shown) == ["rl", "sft"]


def test_a_missing_arm_or_start_gives_no_verdict(tmp_path):
    found = analyse(make_run(tmp_path / "one", arms=("rl",), points=2))
    assert found.verdict.pattern == "unknown"
    assert "no SFT" in found.verdict.headline
    found = analyse(make_run(tmp_path / "two", init=False, points=2))
    assert found.verdict.pattern == "unknown"
    assert "the start was not evaluated" in found.verdict.headline


def test_step_zero_of_the_arms_can_be_the_start(tmp_path):
    make_run(tmp_path, points=2, splits=("id", "rule_ood"))
    rewrite(
        tmp_path,
        lambda r: r | {"arm": "sft", "stage": "sft-s0", "step": 0, "lr": 5e-5} if r["arm"] == "init" else r,
    )
    found = analyse(tmp_path)
    assert [c.step for c in found.curves.start] == [0]
    assert found.verdict.pattern != "unknown"


def test_the_split_of_the_verdict():
    assert main_split(["id", "all_5", "rule_ood"], []) == "rule_ood"
    assert main_split(["id", "visual_ood"], []) == "visual_ood"
    assert main_split(["id", "id_unseen"], []) is None


def test_every_kind_has_a_split_of_its_verdict():
    assert main_splits(["id", "all_5", "rule_ood", "visual_ood_table", "visual_ood"], []) == [
        "rule_ood",
        "visual_ood",
    ]
    (entry,) = expected_numbers(StoredRecipe(expected=(StoredExpected(split="visual_ood_deck", sft=1),)))
    splits = ["id", "rule_ood", "visual_ood", "visual_ood_deck"]
    assert main_splits(splits, [entry]) == ["visual_ood_deck", "rule_ood"]
    assert main_splits(["id", "rule_ood", "all_5"], []) == ["rule_ood"]
    assert main_splits(["id"], []) == []


def test_pretraining_on_both_rules_is_said(tmp_path):
    make_run(tmp_path, points=2)
    assert "retention" in analyse(tmp_path).notes[0]
    state = json.loads((tmp_path / "state.json").read_text())
    (tmp_path / "state.json").write_text(json.dumps(state | {"pretrained_on_both_rules": False}))
    assert not any("retention" in note for note in analyse(tmp_path).notes)


def test_bindings_that_the_base_has_not_read_are_named(tmp_path):
    make_run(tmp_path, points=2)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(recipe.read_text() + "task: {held_out: [face_11_12_13, J=3]}\n")
    state = json.loads((tmp_path / "state.json").read_text())

    def notes(stages):
        (tmp_path / "state.json").write_text(json.dumps({**state, "stages": stages}))
        return [note for note in analyse(tmp_path).notes if "`face_11_12_13`, `J=3`" in note]

    base = {"name": "base", "kind": "sft", "arm": "base", "status": "done"}
    others = [stage for stage in state["stages"] if stage.get("arm") != "base"]
    assert len(notes([base, *others])) == 1
    assert notes(others) == [], "nothing was pre-trained"

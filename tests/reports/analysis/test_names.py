"""Names of splits, arms, learning rates and logged metrics."""

from __future__ import annotations

import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.reports.analysis.arms import Arms
from sftrl_ext.reports.analysis.splits import (
    arm_label,
    expected_numbers,
    in_rows,
    is_ood,
    lr_label,
    ood_kind,
    split_order,
    split_title,
)
from sftrl_ext.reports.analysis.training import QUANTITIES, find_metric
from sftrl_ext.reports.pages.tables import Table, duration, memory
from sftrl_ext.runs.recipe import StoredRecipe
from sftrl_ext.runs.typed_json import from_json
from tests.reports.synthetic_run import READ


@pytest.mark.parametrize(
    ("lr", "text"),
    [(5e-5, "5e-5"), (2e-4, "2e-4"), (0.001, "1e-3"), (1.5e-6, "1.5e-6"), (0.02, "0.02"), (None, "–")],
)
def test_learning_rates(lr, text):
    assert lr_label(lr) == text


def test_orders():
    assert split_order(["large", "rule_ood", "id_unseen", "all_12", "all_5", "id"]) == [
        "id", "id_unseen", "rule_ood", "all_5", "all_12", "large",
    ]  # fmt: skip
    assert Arms().order(["rl", "dpo", "init", "sft_multi", "sft"]) == [
        "sft", "sft_multi", "init", "rl", "dpo",
    ]  # fmt: skip
    assert [arm_label(a) for a in ("sft", "rl", "sft_multi", "dpo")] == ["SFT", "RL", "SFT multi", "dpo"]
    assert [is_ood(s) for s in ("id", "id_unseen", "rule_ood", "all_5")] == [False, False, True, True]


def test_kinds_of_out_of_distribution():
    splits = ["id_unseen", "rule_ood_unseen", "ood_all_5", "visual_ood", "visual_ood_table"]
    assert [ood_kind(s) for s in splits] == ["", "rule", "rule", "visual", "visual"]
    assert split_title("visual_ood", "gp_vl") == "OOD: red suits"
    assert split_title("visual_ood", "virl_vl") == split_title("visual_ood") == "OOD: other look"
    assert split_order(reversed(READ)) == list(READ)
    assert len({split_title(s, "gp_vl") for s in READ}) == len(READ)


def test_panels_of_one_kind_stand_together():
    assert in_rows(list(READ), 3) == [
        ["id", "id_unseen"],
        ["rule_ood", "rule_ood_unseen"],
        ["visual_ood", "visual_ood_unseen", "visual_ood_rotated"],
        ["visual_ood_overlap", "visual_ood_deck", "visual_ood_table"],
    ]
    assert in_rows(["id", "rule_ood", "visual_ood"], 3) == [["id", "rule_ood", "visual_ood"]]
    assert in_rows(["id", "rule_ood", "all_5", "all_7"], 3) == [["id", "rule_ood", "all_5"], ["all_7"]]


def test_arms_stand_by_kind_then_as_in_the_recipe():
    kinds = {"tuned": "sft", "attempts_10": "rl", "attempts_1": "rl", "frozen": "sft", "dpo": "dpo"}
    arms = Arms(kinds, {"attempts_1": "one attempt"})
    assert arms.order(["dpo", "init", "base", *reversed(kinds)]) == [
        "base", "tuned", "frozen", "init", "attempts_10", "attempts_1", "dpo",
    ]  # fmt: skip
    assert [arms.label(a) for a in ("attempts_1", "attempts_10", "init")] == [
        "one attempt", "attempts 10", "Init",
    ]  # fmt: skip
    assert len({arms.colour(arm) for arm in ("init", *kinds)}) == 6
    assert arms.colour("tuned") == Arms({"sft": "sft"}).colour("sft")
    assert arms.colour("attempts_10") == Arms({"rl": "rl"}).colour("rl")
    assert arm_label("sft_frozen_vision") == "SFT frozen vision"
    assert arm_label("dpo_long") == "dpo long"


def test_numbers_of_the_paper():
    entry = {
        "source": "Fig 6",
        "split": "rule_ood",
        "sft": 3.4,
        "rl": 15,
        "model": "Llama-3.2-11B-Vision-Instruct",
    }
    (found,) = expected([entry])
    assert found.values == {"sft": 3.4, "rl": 15.0}
    assert found.label == "paper, Llama-3.2-11B"
    assert expected([]) == []
    named = {"split": "rule_ood", "says": "at_most", "arms": {"base_rl": 0.4}, "sft": None}
    (found,) = expected([named])
    assert found.values == {"base_rl": 0.4} and found.text("base_rl") == "≤ 0.4"
    with pytest.raises(SftrlError, match=r"'expected\[0\]\.split'"):
        expected([{"sft": 3.4}])


def expected(entries):
    return expected_numbers(from_json(StoredRecipe, {"expected": entries}, "recipe.yaml"))


LOGGED = [
    "actor/entropy", "actor/kl_coef", "actor/pg_clipfrac", "actor/pg_clipfrac_lower", "actor/ppo_kl",
    "critic/score/mean", "critic/turn_value_rmse", "critic/vf_loss", "episode/outcome/correct",
    "episode/reward_total", "episode/solved", "policy/entropy", "policy/kl_start_k1", "policy/kl_start_k3",
    "train/loss", "val-aux/gp_l/id/solved/mean@1", "val/loss",
]  # fmt: skip


@pytest.mark.parametrize(
    ("title", "metric"),
    [
        ("Loss", "train/loss"),
        ("Validation loss", "val/loss"),
        ("Reward per episode", "episode/reward_total"),
        ("Solved", "episode/solved"),
        ("KL to the start model", "policy/kl_start_k3"),
        ("Entropy", "actor/entropy"),
        ("Clip fraction", "actor/pg_clipfrac"),
        ("Value error", "critic/turn_value_rmse"),
    ],
)
def test_quantities_find_their_metric(title, metric):
    quantity = next(q for q in QUANTITIES if q.title == title)
    assert find_metric(LOGGED, quantity) == metric
    assert find_metric(["response_length/mean", "actor/lr", "perf/throughput"], quantity) is None


def test_units():
    assert [duration(s) for s in (None, 4.2, 48, 455, 7500)] == [
        "–",
        "4.2 s",
        "48 s",
        "7 min 35 s",
        "2 h 05 min",
    ]
    assert [memory(m) for m in (None, 310.4, 4198)] == ["–", "310 MB", "4.1 GB"]


def test_a_bar_in_a_cell_does_not_break_a_table():
    assert Table(["a"], [["x|y"]]).to_markdown().splitlines()[-1] == "| x\\|y |"

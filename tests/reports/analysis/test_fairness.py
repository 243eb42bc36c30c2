"""The fairness card: what each arm had, and which lines are marked."""

from __future__ import annotations

import json

import pytest
import yaml

from sftrl_ext.reports.analysis.fairness import fairness_card
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.pages.render import report_pages
from sftrl_ext.reports.summary import summarize
from tests.reports.synthetic_run import make_run, rewrite

BUDGET = {
    "sft": {"batch_size": 64},
    "sft_by_rows": {"suboptimal": {"batch_size": 16}},
    "rl": {
        "episodes": 32, "group": 8, "epochs": 4, "minibatches": 2, "temperature": 1.0, "responses": None,
    },
    "eval": {"temperature": 0.2},
}  # fmt: skip
ARMS = {
    "sft": {"kind": "sft", "rows": "suboptimal"},
    "rl": {"kind": "rl", "budget": {"minibatches": 1}, "times": {"episodes": 2.0}, "max_attempts": 3},
}


def run_with(folder, arms=ARMS, keys=None, **options):
    run_dir = make_run(folder, points=2, splits=("id", "rule_ood"), **options)
    recipe = yaml.safe_load((run_dir / "recipe.yaml").read_text())
    recipe |= {"budget": BUDGET, "arms": arms, "task": {"train_split": "id", "max_attempts": 5}}
    (run_dir / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    state = json.loads((run_dir / "state.json").read_text())
    for stage in state["stages"]:
        stage["key"] = (keys or {}).get(stage["name"])
    (run_dir / "state.json").write_text(json.dumps(state))
    return analyse(run_dir)


def lines(analysis):
    return {line.name: (*line.values.values(), line.differs) for line in fairness_card(analysis)}


def test_each_line_counts_what_the_arms_had(tmp_path):
    # Without token counts the arms are compared at their last checkpoints: 100 steps of SFT, 8 updates of RL.
    card = lines(run_with(tmp_path, tokens=False, keys={"init": "0123456789abcdef"}))
    assert card["Start (digest of its stage)"] == ("init@100 (01234567)", "init@100 (01234567)", False)
    assert card["Trained on"] == ("id", "id", False)
    assert card["Updates (SFT: steps)"] == ("100", "8", True)
    assert card["Optimizer steps"] == ("100", "32", True)  # 4 epochs of one minibatch
    assert card["Prompts seen (SFT: rows)"] == ("1,600", "64", True)  # 16 x 100, 2 x 32 / 8 x 8
    assert card["Episodes generated"] == ("–", "512", False)
    assert card["Attempts in training"] == ("rows: suboptimal", "3", True)
    assert card["Temperature in training"] == ("–", "1", False)
    assert card["Temperature in evaluation"] == ("0.2", "0.2", False)
    assert "Tokens trained on" not in card and "Best rate by split" not in card


def test_tokens_and_compute_are_those_of_the_compared_checkpoints(tmp_path):
    # RL trains four epochs on a million tokens, generates or reads each once, and reads each twice more:
    # 6 x 4 + 2 x 1 + 2 x 2 = 30 FLOPs a parameter and million, as SFT's 6 x 5. The init has 6 x 0.6.
    card = lines(run_with(tmp_path, rl_tokens=4e6, critic=False))
    assert card["Tokens trained on"] == ("5 M", "4 M", True)
    assert card["Tokens generated and read"] == ("0", "1 M", True)
    assert card["Compute, counted"] == ("35.3 TFLOP", "35.3 TFLOP", False)


def test_rates_are_listed_with_the_best_on_each_split(tmp_path):
    run_dir = tmp_path / "run"
    make_run(run_dir, points=1, rates=(1e-5, 5e-5), splits=("id", "rule_ood"))

    def change(record):
        better = record["lr"] == (5e-5 if record["split"] == "id" else 1e-5)
        return record | {"solved": 200 if better else 100}

    rewrite(run_dir, change)
    card = lines(analyse(run_dir))
    assert card["Learning rates tried"] == ("1e-5, 5e-5", "1e-5, 5e-5", False)
    assert card["Rate of the verdict (best in distribution)"][0] == "5e-5"
    assert card["Best rate by split"][0] == "id 5e-5; rule_ood 1e-5"


def test_arms_from_other_starts_or_with_more_rates_are_marked(tmp_path):
    analysis = run_with(tmp_path, starts={"rl": "sft-s0@50"})
    card = lines(analysis)
    assert card["Start (digest of its stage)"] == ("init@100", "sft-s0@50", True)
    pages = report_pages(analysis, [], [], [])
    assert "| ! | Start (digest of its stage) | init@100 | sft-s0@50 |" in pages["report.md"]
    assert pages["report.html"].count('<tr class="differs">') == sum(line[-1] for line in card.values())
    stored = {entry["setting"]: entry for entry in summarize(analysis)["fairness"]}
    assert stored["Start (digest of its stage)"]["differs"] is True
    assert stored["Seeds"] == {"setting": "Seeds", "arms": {"sft": "0", "rl": "0"}, "differs": False}


@pytest.mark.parametrize(("budget", "prompts"), [({"responses": 64}, "–"), ({}, "64")])
def test_updates_of_a_number_of_responses_have_no_fixed_prompts(tmp_path, budget, prompts):
    arms = {**ARMS, "rl": {**ARMS["rl"], "budget": {"minibatches": 1, **budget}}}
    assert lines(run_with(tmp_path, arms=arms, tokens=False))["Prompts seen (SFT: rows)"][1] == prompts

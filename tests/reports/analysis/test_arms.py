"""Reports of any set of arms: several of a kind, other starts, numbers of the paper by arm."""

from __future__ import annotations

import pytest
import yaml

from sftrl_ext.reports import build_report
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.figures.bar_figure import bars_of
from tests.reports.synthetic_run import PARAMETERS, make_run

SPLITS = ("id", "rule_ood")


def with_recipe(run_dir, **keys):
    path = run_dir / "recipe.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | keys))
    return run_dir


def test_arms_of_one_kind_have_names_colours_and_bars_of_their_own(tmp_path):
    kinds = {"attempts_1": "rl", "attempts_10": "rl"}
    make_run(
        tmp_path, arms=("attempts_10", "attempts_1"), kinds=kinds, rates=(1e-5, 2e-5), points=2, splits=SPLITS
    )
    told = {name: {"kind": "rl", "title": name.replace("_", " x ")} for name in kinds}
    expected = [{"split": "rule_ood", "says": "change", "arms": {"attempts_1": 0.48, "attempts_10": 5.99}}]
    found = analyse(with_recipe(tmp_path, arms=told, expected=expected))
    assert found.curves.arm_names() == ["attempts_1", "attempts_10"]  # as the recipe has them
    assert found.contest == "Start and arms"
    assert [bar.name.replace("\n", " ") for bar in bars_of(found)] == [
        "Init", "attempts x 1 1e-5", "attempts x 1 2e-5", "attempts x 10 1e-5", "attempts x 10 2e-5",
    ]  # fmt: skip
    assert len({found.arms.colour(arm) for arm in kinds}) == 2
    assert found.verdict.pattern == "unknown" and "no SFT arm" in found.verdict.headline
    page = build_report(tmp_path).markdown.read_text()
    assert "attempts x 10 (paper, Llama-3.2-11B) | – | – | +5.99 |" in page
    assert "5.99" not in page.split("Change from the start ± SE")[0]


def test_an_arm_from_anothers_checkpoint_costs_what_led_there_and_is_measured_from_it(tmp_path):
    kinds, starts = {"late": "rl"}, {"late": "sft-s0@100"}
    found = analyse(
        make_run(tmp_path, arms=("sft", "late"), kinds=kinds, starts=starts, points=2, splits=SPLITS)
    )
    sft, late = found.curves.arms
    assert [(c.stage, c.step) for c in late.start] == [("sft-s0", 100)]
    assert [c.arm for c in sft.start] == ["init"]
    cost = late.seeds[0][-1].cost
    assert cost.paper == pytest.approx(6 * PARAMETERS * (6e5 + 5e6 + 1.8e6) + 2 * PARAMETERS * 6 * 1.8e6)
    assert any("compared at their last checkpoints: late." in note for note in found.notes)
    assert found.equal.budget == sft.reach("counted") and found.equal.chosen[late.key][0].step == 8
    sentence = next(f.sentence for f in found.verdict.findings if f.key[0] == "late")
    assert "from its start (SFT, step 100)" in sentence
    assert found.verdict.pattern == "unknown" and "late began at its start" in found.verdict.headline
    assert "success_vs_compute" in build_report(tmp_path).figures


def test_arms_from_the_base_model_are_measured_from_it(tmp_path):
    make_run(
        tmp_path, arms=("cold",), kinds={"cold": "rl"}, starts={"cold": "base@300"}, points=2, splits=SPLITS
    )
    path = tmp_path / "eval" / "records.jsonl"
    text = path.read_text().replace('"stage": "init", "arm": "init"', '"stage": "base", "arm": "base"')
    path.write_text(text.replace('"step": 100,', '"step": 300,'))
    expected = [{"split": "rule_ood", "says": "at_most", "arms": {"cold": 0.4}}]
    found = analyse(with_recipe(tmp_path, expected=expected))
    assert [c.arm for c in found.curves.start] == ["base"] and found.curves.start_arm == "base"
    assert found.curves.start[0].cost.paper == 0
    assert found.curves.arms[0].start == found.curves.start
    assert [bar.name for bar in bars_of(found)] == ["Base", "cold"]
    page = build_report(tmp_path).markdown.read_text()
    assert "≤ 0.4" in page and "Base (shared start)" not in page

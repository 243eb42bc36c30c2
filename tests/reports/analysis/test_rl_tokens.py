"""Both readings of the paper's D_RL: a switch of the recipe and of `sftrl report`, stated in the report."""

from __future__ import annotations

import json

import pytest
import yaml

from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.reports.analysis.curves import paper_ends
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.pages.method import axis_sentences, method_notes
from tests.reports.synthetic_run import make_run


def end_of(found, arm):
    [curve] = [curve for curve in found.curves.arms if curve.arm == arm]
    return curve.reach("paper")


def test_once_counts_a_quarter_of_every_epoch(tmp_path):
    run = make_run(tmp_path / "run", points=3)
    each, once = analyse(run), analyse(run, rl_tokens="once")
    init = each.curves.start[0].cost.paper
    assert (end_of(each, "rl") - init) / (end_of(once, "rl") - init) == pytest.approx(4, rel=0.01)
    assert end_of(each, "sft") == end_of(once, "sft")
    assert end_of(each, "rl") == pytest.approx(paper_ends(once.run, once.curves, "per_epoch")["rl"])
    assert end_of(once, "rl") == pytest.approx(paper_ends(each.run, each.curves, "once")["rl"])
    counted = [curve.reach("counted") for found in (each, once) for curve in found.curves.arms]
    assert counted[:2] == counted[2:]  # the headline axis has no such choice


def test_the_report_states_both_readings(tmp_path):
    run = make_run(tmp_path / "run", points=3)
    text = " ".join(axis_sentences(analyse(run)))
    assert "counts a token in every epoch" in text and "counted once (`--rl-tokens once`), RL ends at" in text
    found = analyse(run, rl_tokens="once")
    assert "counts a token once, which" in " ".join(axis_sentences(found))
    assert "D_RL counts a token once. It has" in " ".join(method_notes(found))


def test_the_recipe_and_the_command_choose(tmp_path):
    run = make_run(tmp_path / "run", points=3)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    (run / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "rl_tokens": "once"}))
    assert end_of(analyse(run), "rl") == end_of(analyse(run, rl_tokens="once"), "rl")
    for words, reading in (([], "once"), (["--rl-tokens", "per_epoch"], "per_epoch")):
        assert main(["report", str(run), *words]) == 0
        summary = json.loads((run / "report" / "summary.json").read_text())
        assert summary["compute_axes"]["rl_tokens"] == reading
    with pytest.raises(SftrlError, match="rl_tokens: unknown reading of D_RL 'twice'"):
        load_recipe("fig6_gp_l", "node", ["rl_tokens=twice"])

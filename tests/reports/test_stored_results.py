"""Results files alone give the verdicts and the compute figure of the run they were written from."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("matplotlib")

from matplotlib.image import imread

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_json, write_json
from sftrl_ext.paths import recipes_dir
from sftrl_ext.reports.analysis import analyse
from sftrl_ext.reports.results_file import results_of
from sftrl_ext.reports.stored_results import (
    ArmPasses,
    analyse_results,
    comparisons,
    load_results,
    main,
    rewritten,
)
from sftrl_ext.runs.compute import flops_counted, flops_rl, flops_sft
from sftrl_ext.runs.token_counts import TokenCount
from tests.reports.synthetic_run import make_run, rewrite
from tests.reports.test_routes import walked

RESULTS = recipes_dir().parent / "results"
DERIVED = ("beyond_losses", "fig6_gp_l", "fig6_virl_l", "fig7_gp_vl", "fig7_virl_vl")


@pytest.mark.parametrize("epochs", [1, 4])
@pytest.mark.parametrize("forward", [0, 2])
def test_counted_compute_follows_from_the_papers(epochs, forward):
    tokens = TokenCount(epochs * 1000, 300, 700, forward * 1000, sequence=1000)
    rl = ArmPasses("rl", forward, epochs).counted_of_paper(5.1)
    assert flops_counted(7, tokens) == pytest.approx(rl * flops_rl(7, 0, tokens.trained, buffer_ratio=5.1))
    sft = ArmPasses("sft", forward).counted_of_paper(5.1)
    tokens = TokenCount(1000, forward=forward * 1000)
    assert flops_counted(7, tokens) == pytest.approx(sft * flops_sft(7, 0, 1000))


def stored(tmp_path, change=None, **options):
    run = make_run(tmp_path / "run", splits=("id", "rule_ood"), critic=False, **options)
    if change is not None:
        rewrite(run, change)
    found = analyse(run)
    told = results_of(found)
    write_json(tmp_path / "results.json", told)
    return found, told, tmp_path / "results.json"


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_results_file_gives_the_verdict_of_its_run(tmp_path, seeds):
    found, _, path = stored(tmp_path, seeds=seeds, points=3)
    again = analyse_results(load_results(path))
    assert again.verdict.pattern == found.verdict.pattern
    assert again.equal.budget == pytest.approx(found.equal.budget, rel=0.002)
    for mine, theirs in zip(again.verdict.findings, found.verdict.findings, strict=True):
        assert mine.steps[0] == theirs.steps[0] and mine.ood.seeds == len(seeds)
        assert mine.ood_change.delta == pytest.approx(theirs.ood_change.delta, abs=0.002)
        assert mine.ood_change.se == pytest.approx(theirs.ood_change.se, abs=0.002)
    (one,) = comparisons(again)
    compared = found.judged[0].comparison
    assert (one.counted, one.paper, one.flips) == (compared.counted, compared.paper, compared.flips)


def test_a_file_without_counted_compute_is_derived_from_its_passes(tmp_path):
    """The file is cut down to the paper's formula and the passes of each arm."""
    found, told, path = stored(tmp_path, points=3, epochs=4)
    for measurement in told["measurements"]:
        for row in measurement["rows"]:
            row["counted"] = row.pop("tflop_counted")
    told.pop("paper_formula_absent")
    with pytest.raises(SftrlError, match=r"arm 'rl' has no tflop_counted"):
        write_json(path, told)
        load_results(path)
    told["compute"] = {"paper_ratio": 6.0, "passes": {"sft": {}, "rl": {"epochs": 4, "forward": 2}}}
    write_json(path, told)
    results = load_results(path)
    assert len(results.rows) > 4
    for row in results.rows:
        assert results.counted(row) == pytest.approx(row["counted"], rel=0.002)
    again = analyse_results(results)
    assert again.curves.paper_absent is None
    assert again.verdict.headline.split(" (")[0] == found.verdict.headline.split(" (")[0]


def test_errors_per_response_stay_marked(tmp_path):
    _, told, path = stored(tmp_path, change=walked, points=2)
    assert {row["se_unit"] for row in told["measurements"][0]["rows"]} == {"response"}
    found = analyse_results(load_results(path))
    assert found.metric == "steps" and found.per_response
    assert "†" in found.verdict.findings[0].sentence


@pytest.mark.parametrize("name", DERIVED)
def test_the_files_of_this_repository_hold_what_follows_from_them(name):
    results = load_results(RESULTS / f"{name}-laptop.json")
    found = analyse_results(results)
    assert rewritten(results, found) == results.content
    assert "counted tokens" in results.content["measurements"][0]["what"]
    assert any(m["name"] == "compared by the paper's formula" for m in results.content["measurements"])
    if name != "beyond_losses":
        assert "arm `rl` makes 1" in found.curves.paper_absent


def test_the_command_draws_and_says_what_changed(tmp_path, capsys):
    assert main([str(RESULTS / "fig6_gp_l-laptop.json"), "--figures", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "The paper's pattern appears: at equal compute, from counted tokens (16.2 TFLOP)" in said
    assert "`rule_ood_unseen`: the verdict flips between the compute axes" in said
    assert imread(tmp_path / "fig6_gp_l-laptop-compute.png").std() > 0.01


def test_a_file_without_checkpoints_is_refused(tmp_path, capsys):
    assert main([str(RESULTS / "fig6_gp_l-laptop_first_baseline.json")]) == 2
    assert "no measurement 'checkpoints'" in capsys.readouterr().err
    (tmp_path / "x.json").write_text(json.dumps([]))
    assert main([str(tmp_path / "x.json")]) == 2


def test_written_results_are_read_back(tmp_path):
    path = tmp_path / "one.json"
    write_json(path, read_json(RESULTS / "fig6_virl_l-laptop.json"))
    before = path.read_text()
    assert main([str(path), "--write"]) == 0
    assert path.read_text() == before

"""Results files alone give the verdicts and the compute figure of the run they were written from."""

from __future__ import annotations

import json

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from matplotlib.image import imread

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_json, write_json
from sftrl_ext.paths import recipes_dir
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.results_file import results_json, results_of
from sftrl_ext.reports.stored_results import (
    analyse_results,
    comparisons,
    main,
)
from tests.reports.analysis.test_routes import walked
from tests.reports.synthetic_run import make_run, rewrite

RESULTS = recipes_dir().parent / "results"
NAMES = ("beyond_losses", "fig6_gp_l", "fig6_virl_l", "fig7_gp_vl", "fig7_virl_vl")


def stored(tmp_path, change=None, **options):
    run = make_run(tmp_path / "run", splits=("id", "rule_ood"), critic=False, **options)
    if change is not None:
        rewrite(run, change)
    found = analyse(run)
    told = results_json(results_of(found))
    write_json(tmp_path / "results.json", told)
    return found, told, tmp_path / "results.json"


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_a_results_file_gives_the_verdict_of_its_run(tmp_path, seeds):
    found, _, path = stored(tmp_path, seeds=seeds, points=3)
    again = analyse_results(path)
    assert again.verdict.pattern == found.verdict.pattern
    assert again.equal.budget == pytest.approx(found.equal.budget, rel=0.002)
    for mine, theirs in zip(again.verdict.findings, found.verdict.findings, strict=True):
        assert mine.steps[0] == theirs.steps[0] and mine.ood.seeds == len(seeds)
        assert mine.ood_change.delta == pytest.approx(theirs.ood_change.delta, abs=0.002)
        assert mine.ood_change.se == pytest.approx(theirs.ood_change.se, abs=0.002)
    (one,) = comparisons(again)
    compared = found.verdicts[0].between_axes
    assert (one.counted, one.paper, one.flips) == (compared.counted, compared.paper, compared.flips)


@pytest.mark.parametrize(("seeds", "method"), [((0,), "mcnemar"), ((0, 1), "bootstrap")])
def test_paired_differences_outlive_the_records(tmp_path, seeds, method):
    found, told, path = stored(tmp_path, change=with_outcomes, seeds=seeds, points=3, rl_tokens=2.2e6)
    again = analyse_results(path)
    pairs = [(again.verdict.difference, found.verdict.difference)]
    for mine, theirs in zip(again.verdict.findings, found.verdict.findings, strict=True):
        pairs += [(mine.ood_change, theirs.ood_change), (mine.id_change, theirs.id_change)]
    for mine, theirs in pairs:
        assert mine.method == theirs.method == method and mine.direction == theirs.direction
        assert mine.delta == pytest.approx(theirs.delta, abs=1e-4)
        assert mine.se == pytest.approx(theirs.se, abs=1e-4)
        assert mine.p_value == (theirs.p_value and pytest.approx(theirs.p_value, rel=1e-3))
    compared, every = (measurement["rows"] for measurement in told["measurements"])
    assert all("differences" in row for row in compared if row["arm"] in ("sft", "rl"))
    assert sum("differences" in row for row in every) == 2, "of the compared checkpoints alone"


def with_outcomes(record):
    order = np.random.default_rng(3).permutation(record["episodes"])
    return record | {"successes": [int(rank < record["solved"]) for rank in order], "instances": "0a"}


def test_errors_per_response_stay_marked(tmp_path):
    _, told, path = stored(tmp_path, change=walked, points=2)
    assert {row["se_unit"] for row in told["measurements"][0]["rows"]} == {"response"}
    found = analyse_results(path)
    assert found.metric == "steps" and found.per_response
    assert "†" in found.verdict.findings[0].sentence


@pytest.mark.parametrize("name", NAMES)
def test_the_files_of_this_repository_are_read(name):
    found = analyse_results(RESULTS / f"{name}-laptop.json")
    assert found.equal.axis == "counted" and found.equal.budget > 0
    assert all(c.cost.counted is not None for c in found.curves.checkpoints())
    if name != "beyond_losses":
        assert "arm `rl` makes 1" in found.curves.paper_absent


def test_the_command_draws_and_says_what_changed(tmp_path, capsys):
    assert main([str(RESULTS / "fig6_gp_l-laptop.json"), "--figures", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "The paper's pattern appears: at equal compute, from counted tokens (16.2 TFLOP)" in said
    assert "`rule_ood_unseen`: the verdict flips between the compute axes" in said
    for name in ("compute", "ood-vs-id"):
        light, dark = (imread(tmp_path / f"fig6_gp_l-laptop-{name}{end}.png") for end in ("", "-dark"))
        assert light.shape == dark.shape and light.std() > 0.01
        for image, is_dark in ((light, False), (dark, True)):
            brightness = image[..., :3].mean(axis=2)
            assert (brightness[0, 0] < 0.1) == is_dark == (np.median(brightness) < 0.1)
        # The arms keep their colours.
        for colour in ((0xD5, 0x5E, 0x00), (0x00, 0x72, 0xB2)):
            near = [np.abs(image[..., :3] * 255 - colour).max(axis=2) < 2 for image in (light, dark)]
            assert near[0].sum() > 100 and near[1].sum() > 100


def test_a_file_without_checkpoints_is_refused(tmp_path, capsys):
    assert main([str(RESULTS / "fig6_gp_l-laptop_first_baseline.json")]) == 2
    assert "no measurement 'checkpoints'" in capsys.readouterr().err
    (tmp_path / "x.json").write_text(json.dumps([]))
    assert main([str(tmp_path / "x.json")]) == 2


def test_a_wrong_value_is_named(tmp_path):
    _, _, path = stored(tmp_path, points=1)
    content = read_json(path)
    content["measurements"][1]["rows"][0]["percent"] = 7
    write_json(path, content)
    with pytest.raises(SftrlError, match=r"results\.json: key 'measurements\[0\]\.rows\[0\]\.percent'"):
        analyse_results(path)

"""Several runs against the key that sets them apart."""

from __future__ import annotations

import json
import shutil

import pytest
import yaml

pytest.importorskip("matplotlib")

from sftrl_ext.cli import main
from sftrl_ext.errors import SftrlError
from sftrl_ext.reports.against import write_against
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.varied_runs import read_varied_runs
from tests.reports.synthetic_run import SPLITS, make_run

KEY = "task.exposure.rule_ood"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs whose changes shrink with the value, not in its order."""
    folder = tmp_path_factory.mktemp("runs")
    return [
        varied(folder / f"run-{share}", share, sign) for share, sign in ((0.5, 0.0), (0, 1.0), (0.01, 0.5))
    ]


def varied(run_dir, share, sign=1.0):
    make_run(run_dir, sign=sign, seeds=(0, 1))
    recipe = yaml.safe_load((run_dir / "recipe.yaml").read_text())
    recipe.setdefault("task", {})["exposure"] = {"rule_ood": share}
    (run_dir / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return run_dir


def test_each_run_is_read_where_its_own_arms_are_compared(runs):
    varied_runs = read_varied_runs(runs, KEY)
    assert [run.value for run in varied_runs.runs] == [0, 0.01, 0.5]
    assert varied_runs.arm_names == ["init", "sft", "rl"] and varied_runs.splits == list(SPLITS)
    for run in varied_runs.runs:
        verdict = analyse(run.analysis.run.folder).verdict
        moved = {finding.key[0]: finding.ood_change for finding in verdict.findings}
        assert {arm: run.change(arm, "rule_ood") for arm in ("sft", "rl")} == moved
        assert run.change("init", "rule_ood") is None
    lost = [run.change("sft", "rule_ood").delta for run in varied_runs.runs]
    assert lost[0] < lost[1] < lost[2]


def test_the_files_hold_the_same_numbers(runs, tmp_path, capsys):
    assert main(["report", *map(str, runs), "--against", KEY, "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    stem = tmp_path / "out" / f"against-{KEY}"
    for suffix in (".png", ".svg", ".md", ".json"):
        assert f"{stem}{suffix}" in printed
    varied_runs = read_varied_runs(runs, KEY)
    numbers = json.loads((tmp_path / "out" / f"against-{KEY}.json").read_text())
    assert numbers["key"] == KEY and [run["value"] for run in numbers["runs"]] == [0, 0.01, 0.5]
    for stored, run in zip(numbers["runs"], varied_runs.runs, strict=True):
        measure = run.measure("sft", "rule_ood")
        assert stored["splits"]["rule_ood"]["sft"]["percent"] == 100 * measure.p
        assert f"{measure} ({100 * run.change('sft', 'rule_ood').delta:+.1f})" in printed
    table = (tmp_path / "out" / f"against-{KEY}.md").read_text()
    assert f"against-{KEY}.png" in table and table.count("\n| 0.01 |") == len(SPLITS)


def test_the_figure_has_every_value_and_arm(runs):
    from sftrl_ext.reports.figures.against_figure import success_against_key

    figure = success_against_key(read_varied_runs(runs, KEY))
    shown = [axes for axes in figure.axes if axes.get_title()]
    assert len(shown) == len(SPLITS)
    for axes in shown:
        assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "0.01", "0.5"]
        assert len(axes.containers) == 3
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["Init", "SFT", "RL"]


def test_runs_that_cannot_be_compared_are_named(runs, tmp_path):
    with pytest.raises(SftrlError, match=r"run-0/recipe.yaml: task.cards: there is no such key"):
        read_varied_runs(runs[1:], "task.cards")
    again = tmp_path / "again"
    shutil.copytree(runs[0], again)
    with pytest.raises(SftrlError, match=r"again/recipe.yaml: task.exposure.rule_ood: 0.5, as in .*run-0.5"):
        read_varied_runs([*runs, again], KEY)
    with pytest.raises(SftrlError, match="found 1 run to draw"):
        write_against(runs[:1], KEY, tmp_path)
    empty = varied(tmp_path / "empty", 0.3)
    (empty / "eval" / "records.jsonl").write_text("")
    with pytest.raises(SftrlError, match="empty: no arm has been evaluated"):
        read_varied_runs([*runs, empty], KEY)
    assert not list(tmp_path.glob("against-*"))


def test_numbers_that_mean_nothing_are_marked(tmp_path):
    run_dirs = [varied(tmp_path / f"run-{share}", share) for share in (0, 0.5)]
    state = json.loads((run_dirs[0] / "state.json").read_text())
    (run_dirs[0] / "state.json").write_text(json.dumps({**state, "scale": "smoke"}))
    written = write_against(run_dirs, KEY, tmp_path)
    assert written.table.startswith("No verdict at scale smoke")
    assert (tmp_path / f"against-{KEY}.md").read_text().startswith("No verdict at scale smoke")

"""The divergence from the start in the report: figure, correlation, tables, and runs that do not have it."""

import json

import pytest

pytest.importorskip("matplotlib")

from matplotlib.image import imread

from sftrl_ext.reports import build_report
from sftrl_ext.reports.analysis.forgetting import correlations, drift, forgetting_sentences
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.figures.forgetting_figure import change_against_divergence
from sftrl_ext.reports.figures.style import look, save
from sftrl_ext.reports.pages.tables import divergence_table
from sftrl_ext.reports.results_file import results_json, results_of
from tests.reports.synthetic_run import make_run, rewrite

FIGURE = "forgetting_vs_divergence"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    run_dir = make_run(tmp_path_factory.mktemp("run"), splits=("id", "rule_ood"), seeds=(0, 1))
    return run_dir, build_report(run_dir)


def records_of(run_dir):
    return [json.loads(line) for line in (run_dir / "eval" / "records.jsonl").read_text().splitlines()]


def test_a_point_is_the_divergence_and_the_change_of_its_seeds(built):
    found = analyse(built[0])
    records = records_of(built[0])
    curve = next(curve for curve in found.curves.arms if curve.arm == "sft")
    point = drift(curve.steps()[-1], curve, "rule_ood")
    own = [r for r in records if r["arm"] == "sft" and r["step"] == 250]
    told = [r["divergence"]["forward"]["nats"] for r in own if r["split"] == "id"]
    assert len(told) == 2 and point.divergence.nats == pytest.approx(sum(told) / 2)
    assert point.divergence.se >= abs(told[0] - told[1]) / 2 - 1e-12
    after = sum(r["solved"] for r in own if r["split"] == "rule_ood") / 600
    before = next(r["solved"] for r in records if r["arm"] == "init" and r["split"] == "rule_ood") / 300
    assert point.change.delta == pytest.approx(after - before)
    back = drift(curve.steps()[-1], curve, "rule_ood", "reverse")
    assert back.divergence.nats == pytest.approx(0.7 * point.divergence.nats)


def test_the_figure_is_made_and_has_a_point_for_every_checkpoint(built, tmp_path):
    png, svg = built[1].figures[FIGURE]
    assert imread(png).std() > 0.01 and svg.stat().st_size > 5000
    found = analyse(built[0])
    with look():
        figure = change_against_divergence(found)
        (panel,) = figure.axes
        lines = [container.lines[0] for container in panel.containers]
        assert [len(line.get_xdata()) for line in lines] == [5, 5]
        assert [line.get_color() for line in lines] == [found.arms.colour(arm) for arm in ("sft", "rl")]
        low, high = panel.get_xlim()
        assert low == 0.0 and all(0 < x < high for line in lines for x in line.get_xdata())
        first, second = (
            [p.read_bytes() for p in save(change_against_divergence(found), tmp_path, n)] for n in "ab"
        )
    assert first == second


def test_the_correlation_is_over_every_checkpoint(built):
    found = analyse(built[0])
    whole, *arms = correlations(found)
    assert whole.arm is None and whole.split == "rule_ood" and whole.checkpoints == 20
    assert -1 <= whole.values["forward"] < -0.5  # the invented story: far from the start, much is lost
    assert [(one.arm, one.checkpoints) for one in arms] == [("sft", 10), ("rl", 10)]
    (sentence,) = forgetting_sentences(found)
    assert f"n = 20 checkpoints: {whole.values['forward']:+.2f}" in sentence
    for page in (built[1].markdown, built[1].html):
        assert sentence.partition("`: ")[2] in page.read_text()
    told = json.loads(built[1].summary.read_text())["divergence_and_change"]
    assert told[0] == {
        "split": "rule_ood", "arm": None, "checkpoints": 20, "spearman": whole.values,
    }  # fmt: skip


def test_two_verdicts_give_two_panels(tmp_path):
    found = analyse(make_run(tmp_path, pictures=True, splits=("id", "rule_ood", "visual_ood")))
    with look():
        titles = [axes.get_title(loc="left") for axes in change_against_divergence(found).axes]
    assert titles == [found.split_title(split) for split in found.main_splits]
    assert len(forgetting_sentences(found)) == 2


def test_an_arm_is_measured_from_its_own_start(tmp_path):
    made = make_run(
        tmp_path,
        arms=("sft", "rl", "rl_late"),
        kinds={"rl_late": "rl"},
        starts={"rl_late": "sft-s0@250"},
        splits=("id", "rule_ood"),
    )
    found = analyse(made)
    late = next(curve for curve in found.curves.arms if curve.arm == "rl_late")
    solved = {(r["stage"], r["step"], r["split"]): r["solved"] for r in records_of(made)}
    point = drift(late.steps()[0], late, "rule_ood")
    expected = solved["rl_late-s0", 4, "rule_ood"] - solved["sft-s0", 250, "rule_ood"]
    assert point.change.delta == pytest.approx(expected / 300)
    legend = change_against_divergence(found).legends[0]
    assert "Start of each arm" in [text.get_text() for text in legend.get_texts()]


def test_tables_and_results_have_the_nats(built):
    found = analyse(built[0])
    table = divergence_table(found)
    assert [row[:4] for row in table.rows][0] == ["SFT", "5e-5", "50", "2"]
    assert len(table.rows) == 10 and table.header[-1] == "Change, rule_ood"
    assert table.rows[-1][4].count("±") == 1 and table.rows[-1][6].endswith("SE)")
    # The bars of the names do not end a column.
    assert {line.replace("\\|", "").count("|") for line in table.to_markdown().splitlines()} == {8}
    rows = results_json(results_of(found))["measurements"][1]["rows"]
    row = next(row for row in rows if row["arm"] == "rl" and row["step"] == 20)
    own = [r for r in records_of(built[0]) if (r["arm"], r["step"], r["split"]) == ("rl", 20, "id")]
    told = [r["divergence"] for r in own]
    mean = sum(one["forward"]["nats"] for one in told) / 2
    assert row["divergence"]["forward"]["nats"] == pytest.approx(mean, abs=1e-5)
    assert set(row["divergence"]) == {"forward", "reverse"}
    assert all("divergence" not in row for row in rows if row["arm"] == "init")


def test_records_of_older_runs_have_none_and_the_report_is_smaller(tmp_path):
    run_dir = make_run(tmp_path, divergence=False, points=2, splits=("id", "rule_ood"))
    (run_dir / "report").mkdir()
    (run_dir / "report" / f"{FIGURE}.png").write_bytes(b"of an earlier state")
    paths = build_report(run_dir)
    assert FIGURE not in paths.figures and not (run_dir / "report" / f"{FIGURE}.png").exists()
    assert "ivergence" not in paths.markdown.read_text() + " ".join(paths.notes)
    summary = json.loads(paths.summary.read_text())
    assert "divergence_and_change" not in summary
    assert all("divergence" not in line for line in summary["checkpoints"])


def test_why_nothing_was_measured_is_noted_once(tmp_path):
    def absent(record):
        if "divergence" in record:
            reason = "engine 'vllm' does not give whole distributions"
            record["divergence"] = {"start": "init@100", "absent": reason}
        return record

    run_dir = make_run(tmp_path, points=2, splits=("id", "rule_ood"))
    rewrite(run_dir, absent)
    paths = build_report(run_dir)
    said = [note for note in paths.notes if "divergence" in note]
    assert said == [
        "The divergence from the start was not measured: engine 'vllm' does not give whole distributions."
    ]
    assert FIGURE not in paths.figures


def test_a_single_episode_has_no_error(tmp_path):
    def alone(record):
        if "divergence" in record:
            record["divergence"]["forward"] |= {"se": None, "episodes": 1}
        return record

    run_dir = make_run(tmp_path, points=2, splits=("id", "rule_ood"))
    rewrite(run_dir, alone)
    paths = build_report(run_dir)
    found = analyse(run_dir)
    assert FIGURE in paths.figures
    assert {("±" in row[4], "±" in row[5]) for row in divergence_table(found).rows} == {(False, True)}
    told = [
        row["divergence"]
        for row in results_json(results_of(found))["measurements"][1]["rows"]
        if "divergence" in row
    ]
    assert {one["forward"]["se"] for one in told} == {None} and told[0]["forward"]["nats"] > 0


def test_too_few_checkpoints_have_no_correlation(tmp_path):
    found = analyse(make_run(tmp_path, points=1, splits=("id", "rule_ood")))
    assert forgetting_sentences(found) == ["`rule_ood`: n = 2 checkpoints are too few to correlate."]
    assert change_against_divergence(found) is not None

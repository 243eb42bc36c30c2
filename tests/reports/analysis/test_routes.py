"""Reports of routes: per-step accuracy is the main measure, whole routes the second."""

from __future__ import annotations

import json

import pytest
import yaml

pytest.importorskip("matplotlib")

from sftrl_ext.errors import SftrlError
from sftrl_ext.reports import build_report, results_table
from sftrl_ext.reports.analysis.curves import mean_over_seeds
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.runs.stats import binomial_se, clustered_se
from tests.reports.synthetic_run import make_run, rewrite


def walked(record):
    """Ten responses a route; a route is walked to the end far more rarely than a step is right."""
    responses = 10 * record["episodes"]
    return record | {
        "data_source": f"virl_vl/{record['split']}",
        "responses": responses,
        "correct_actions": round(responses * record["solved"] / record["episodes"]),
        "solved": record["solved"] // 5,
    }


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("routes"), splits=("id", "rule_ood", "visual_ood"))
    rewrite(folder, walked)
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["expected"] = [
        {"source": "Figure 6", "metric": "per_step", "split": "rule_ood", "sft": 2.5, "rl": 45.0},
        {"source": "Figure 7", "metric": "success", "split": "visual_ood", "sft": 11.1, "rl": 77.8},
    ]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def test_steps_are_the_main_measure_and_routes_the_second(run_dir):
    made = build_report(run_dir)
    assert {"bars", "route_bars", "success_vs_compute", "routes_vs_compute"} <= set(made.figures)
    for page in (made.markdown.read_text(), made.html.read_text()):
        for words in ("Per-step accuracy against compute", "Whole routes at equal compute", "OOD"):
            assert words in page
        assert "Routes walked to the end ± SE" in page and "{measure}" not in page
    assert "per-step accuracy on `rule_ood`" in " ".join(made.verdict)
    table, second = made.markdown.read_text().split("Routes walked to the end ± SE in percent.")
    assert "45.0" in table and "77.8" not in table
    assert "77.8" in second and "45.0" not in second.split("##")[0]


def test_the_summary_has_both(run_dir):
    build_report(run_dir)
    lines = json.loads((run_dir / "report" / "summary.json").read_text())["compared"]
    for line in lines:
        assert line["routes"]["percent"] < line["percent"]
        assert line["episodes"] == 10 * line["routes"]["episodes"]


def test_a_run_of_hands_says_nothing_of_steps(tmp_path):
    folder = make_run(tmp_path / "run")
    made = build_report(folder)
    assert "route_bars" not in made.figures and analyse(folder).metric == "success"
    assert "routes" not in made.summary.read_text()
    assert "Per-step" not in made.markdown.read_text() + made.html.read_text()


def test_more_right_actions_than_responses_are_refused(tmp_path):
    folder = make_run(tmp_path / "run", splits=("id",))
    rewrite(folder, lambda record: record | {"responses": 5, "correct_actions": 6})
    with pytest.raises(SftrlError, match="correct_actions"):
        build_report(folder)


def by_route(record):
    """The same counts route by route: half of the routes right throughout, the rest share what is left."""
    record = walked(record)
    routes, left, counts = record["episodes"], record["correct_actions"], []
    for index in range(routes):
        right = min(10, left) if index % 2 else min(10, max(0, left - 10 * (routes - index - 1)))
        counts.append([right, 10])
        left -= right
    return record | {"step_counts": counts}


def test_counts_per_route_give_clustered_errors_everywhere(tmp_path):
    folder = make_run(tmp_path / "run", splits=("id", "rule_ood"), points=2)
    rewrite(folder, by_route)
    found = analyse(folder)
    start = found.curves.start[0]
    measure, record = mean_over_seeds([start], "rule_ood"), start.results["rule_ood"]
    assert measure.se == pytest.approx(clustered_se(record.step_counts))
    assert measure.se > 2 * binomial_se(record.correct_actions, record.responses)
    assert found.verdict.findings[0].ood.se > 0.02 and not found.per_response
    made = build_report(folder)
    page = made.markdown.read_text() + made.html.read_text()
    assert "clustered by route" in page and "†" not in page and "per response" not in page
    summary = json.loads(made.summary.read_text())
    assert {line["se_unit"] for line in summary["compared"]} == {"route"}
    assert f"{measure}" in results_table([folder])


def test_errors_per_response_are_marked_wherever_they_stand(run_dir):
    made = build_report(run_dir)
    page = made.markdown.read_text()
    assert "† marks errors per response" in page and "†" in made.verdict[1]
    rows = [line for line in page.split("Routes walked")[0].splitlines() if line.startswith("| SFT |")]
    assert rows and all("†" in row for row in rows)
    assert "†" not in page.split("Routes walked to the end ± SE in percent.")[1].split("##")[0]
    assert {one["se_unit"] for one in json.loads(made.summary.read_text())["compared"]} == {"response"}
    assert "SE per response" in analyse(run_dir).axis_label("steps")


def test_counts_per_route_that_do_not_add_up_are_refused(tmp_path):
    folder = make_run(tmp_path / "run", splits=("id",), points=1)
    rewrite(folder, lambda record: by_route(record) | {"responses": 10 * record["episodes"] + 1})
    with pytest.raises(SftrlError, match="step_counts"):
        build_report(folder)


def test_the_table_of_runs_has_steps(run_dir):
    start = analyse(run_dir).curves.start[0].results["id"]
    assert f"{100 * start.correct_actions / start.responses:.1f} ±" in results_table([run_dir])

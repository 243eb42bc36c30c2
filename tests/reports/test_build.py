"""The report: complete, self-contained, the same twice, and smaller where something is missing."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import yaml
from matplotlib.image import imread

from sftrl_ext.reports import build_report, results_table
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.figures.style import look, save
from sftrl_ext.reports.figures.success_figure import success_against_compute
from tests.reports.pages.page_content import dialogue_texts, markup, page_data
from tests.reports.synthetic_run import make_run

ALL_FIGURES = {
    "bars",
    "ood_vs_id",
    "forgetting_vs_divergence",
    "success_vs_compute",
    "success_vs_compute_paper",
    "success_vs_tokens",
    "outcomes",
    "training",
}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    run_dir = make_run(tmp_path_factory.mktemp("run"), points=3, splits=("id", "rule_ood"), rl_tokens=2.2e6)
    return run_dir, build_report(run_dir)


def test_every_file_is_there(built):
    run_dir, paths = built
    assert set(paths.figures) == ALL_FIGURES
    for png, svg in paths.figures.values():
        assert imread(png).std() > 0.01
        assert svg.read_text().startswith("<?xml")
    assert paths.folder == run_dir / "report"
    assert paths.verdict[0] in paths.markdown.read_text()


def test_links_of_the_markdown_page_lie_beside_it(built):
    _, paths = built
    links = re.findall(r"\]\(([^)]+)\)", paths.markdown.read_text())
    assert len(links) >= 2 * len(ALL_FIGURES)
    assert all((paths.folder / link).is_file() for link in links)


def test_every_rl_stage_says_how_far_sampler_and_trainer_disagree(built):
    run_dir, paths = built
    stages = sorted(path.parent.name for path in (run_dir / "stages").glob("rl*/metrics.jsonl"))
    steps = len((run_dir / "stages" / stages[0] / "metrics.jsonl").read_text().splitlines())
    page = paths.markdown.read_text()
    section = page.split("## Sampler and trainer\n\n")[1].split("\n\n")[0].splitlines()
    header = [cell.strip() for cell in section[0].strip("|").split("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section[2:]]
    assert [row[0] for row in rows] == stages
    for row in rows:
        assert float(row[header.index("clipped at first")]) == 0.0
        assert float(row[header.index("mean staleness")]) == 0.5
        assert row[1:3] == ["0.002", f"{0.01 * steps:.2g}"] and row[3] == "–"
    assert "Sampler and trainer</h2>" in paths.html.read_text()
    assert "KL(sampler || trainer)" in page


def test_html_needs_nothing_else(built):
    page = built[1].html.read_text()
    sources = re.findall(r'(?:src|href)="([^"]{0,30})', markup(page))
    assert len(sources) == len(ALL_FIGURES)
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "<b>other numbers</b>" not in page and "://" not in markup(page)
    assert "<b>other numbers</b> & fails" in dialogue_texts(page)
    assert len(page.encode()) < 5_000_000


def test_every_kept_episode_is_in_the_page(built):
    stored = (built[0] / "eval" / "episodes.jsonl").read_text().splitlines()
    data = page_data(built[1].html.read_text())["episodes"]
    assert [arm["name"] for arm in data["arms"]] == ["sft", "init", "rl"]
    assert len(data["episodes"]) == len(stored) and data["left_out"] == 0
    assert {line[2] for e in data["episodes"] for part in e["parts"] for line in part["lines"]} == {
        None, "correct", "wrong_numbers", "wrong_value", "unparsable",
    }  # fmt: skip
    assert {"3 3 8 8"} < {instance["label"] for instance in data["instances"]}


def test_summary_holds_the_numbers_of_the_records(built):
    run_dir, paths = built
    summary = json.loads(paths.summary.read_text())
    records = [json.loads(line) for line in (run_dir / "eval" / "records.jsonl").read_text().splitlines()]
    last = next(r for r in reversed(records) if r["arm"] == "sft" and r["split"] == "rule_ood")
    row = next(r for r in summary["compared"] if r["arm"] == "sft" and r["split"] == "rule_ood")
    assert row["percent"] == pytest.approx(100 * last["solved"] / last["episodes"])
    assert row["steps"] == [last["step"]]
    assert len(summary["checkpoints"]) == len(records)
    assert summary["paper"][0]["values"] == {"sft": 3.4, "init": 11.5, "rl": 15.0}
    assert summary["verdict"]["pattern"] == "appears"
    assert summary["commit"].startswith("0123456")


def test_pages_say_what_the_run_was(built):
    for page in (built[1].markdown.read_text(), built[1].html.read_text()):
        for fact in ("Synthetic CPU", "0123456789abcdef", "7 min 35 s", "4.1 GB", "5e-5", "3.4", "retention"):
            assert fact in page


def test_the_same_metrics_give_the_same_bytes(tmp_path):
    found = analyse(make_run(tmp_path, points=2, splits=("id", "rule_ood")))
    with look():
        first = [p.read_bytes() for p in save(success_against_compute(found, "paper"), tmp_path, "a")]
        second = [p.read_bytes() for p in save(success_against_compute(found, "paper"), tmp_path, "b")]
    assert first == second


def test_without_arms_tokens_or_training_the_report_is_smaller(tmp_path):
    make_run(tmp_path, arms=("sft",), points=2, splits=("id",), tokens=False, training=False)
    shutil.rmtree(tmp_path / "eval" / "report", ignore_errors=True)
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "success_vs_compute.png").write_bytes(b"of an earlier state")
    (tmp_path / "eval" / "episodes.jsonl").unlink()
    paths = build_report(tmp_path)
    assert set(paths.figures) == {"bars", "outcomes"}
    assert not (tmp_path / "report" / "success_vs_compute.png").exists()
    notes = " ".join(paths.notes)
    assert "No token counts" in notes and "Only SFT" in notes and "No sample episodes" in notes
    assert paths.verdict[0].startswith("No verdict")


def test_a_run_that_has_just_begun_has_a_report(tmp_path):
    (tmp_path / "state.json").write_text('{"stages": [{"name": "data", "status": "running"}]}')
    paths = build_report(tmp_path)
    assert paths.figures == {}
    assert "No evaluation records yet" in paths.html.read_text()


def test_results_table_has_one_row_per_arm_and_run(tmp_path):
    make_run(tmp_path / "a", points=2, splits=("id", "rule_ood"))
    make_run(tmp_path / "b", points=2, arms=("rl",), splits=("id", "rule_ood", "all_5"))
    lines = results_table([tmp_path / "a", tmp_path / "b"]).splitlines()
    assert len(lines) == 2 + 3 + 2
    assert lines[0].startswith("| Run | Arm | lr | Seeds | id (%) | rule_ood (%) | all_5 (%)")
    assert all(line.count("|") == lines[0].count("|") for line in lines)
    assert "0123456 |" in lines[-1]


def test_titles_of_a_foreign_run_are_no_markup(built, tmp_path):
    run_dir = shutil.copytree(built[0], tmp_path / "run")
    evil = "A\n\n# <script>alert(1)</script> ![x](http://a/b)"
    state = json.loads((run_dir / "state.json").read_text())
    (run_dir / "state.json").write_text(json.dumps({**state, "title": evil}))
    recipe = yaml.safe_load((run_dir / "recipe.yaml").read_text())
    arms = {"sft": {"kind": "sft", "title": evil}}
    (run_dir / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "arms": arms}))
    paths = build_report(run_dir)
    pages = paths.markdown.read_text(), paths.html.read_text()
    safe = r"A # \<script>alert(1)\</script> !\[x](http://a/b)"
    assert pages[0].startswith(f"# {safe} (scale synthetic)\n")
    assert f"| {safe} |" in pages[0] and f"- Learning rate, {safe}:" in pages[0]
    for page in (pages[0], markup(pages[1])):
        assert not re.search(r"(?<!\\)<script|^# <", page, re.MULTILINE)

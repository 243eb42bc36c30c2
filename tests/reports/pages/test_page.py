"""Data and policy of the interactive page, without a browser."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re

import pytest

from sftrl_ext.errors import SftrlError
from sftrl_ext.plain_text import printable
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.episodes.show import kept_episodes
from sftrl_ext.reports.pages import episode_data as episode_module
from sftrl_ext.reports.pages.chart_data import chart_data
from sftrl_ext.reports.pages.episode_data import episode_data
from sftrl_ext.reports.pages.glossary import glossary
from sftrl_ext.reports.pages.inline import scripts
from sftrl_ext.reports.pages.libraries import FOLDER, LIBRARIES, Library
from sftrl_ext.reports.pages.render import live_page
from sftrl_ext.reports.summary import summarize
from sftrl_ext.runs.episode_files import FORMAT
from tests.reports.pages.page_content import SCRIPT, markup, page_data
from tests.reports.synthetic_run import make_run


@pytest.fixture(scope="module")
def analysis(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("run"), seeds=(0, 1), points=3, splits=("id", "rule_ood"))
    return analyse(folder)


def test_bundled_files_are_those_of_the_pinned_packages():
    for library in LIBRARIES:
        assert printable(library.text()) == library.text()  # a page must not change it
        assert "Redistribution" in library.licence.read_text()
    files = {path for library in LIBRARIES for path in (library.script, library.licence)}
    assert set(FOLDER.iterdir()) == files


def test_a_changed_library_is_refused():
    with pytest.raises(SftrlError, match=r"vega-interpreter.min.js: expected sha256 0+, found ee191cf0"):
        Library("vega-interpreter", "1.2.1", "build/vega-interpreter.min.js", 64 * "0").text()


def test_points_are_the_numbers_of_the_summary(analysis):
    points = chart_data(analysis)["points"]
    pooled = {
        (p["arm"], p["at_step"], p["split"]): (p["percent"], p["se"], p["n"])
        for p in points
        if p["seed"] is None and p["metric"] == "success" and not p.get("start")
    }
    rows = summarize(analysis)["checkpoints"]
    assert len(pooled) == len(rows)
    for row in rows:
        percent, se, n = pooled[row["arm"], row["steps"][0], row["split"]]
        assert (percent, se, n) == (round(row["percent"], 3), round(row["se"], 3), row["episodes"])


def test_each_seed_has_a_line_of_its_own_beside_the_mean(analysis):
    points = [p for p in chart_data(analysis)["points"] if p["arm"] == "rl" and p["split"] == "id"]
    last = [p for p in points if p["at_step"] == 12]
    assert [(p["seed"], p["at"]) for p in last] == [
        (None, ["rl-s0@12", "rl-s1@12"]), (0, ["rl-s0@12"]), (1, ["rl-s1@12"]),
    ]  # fmt: skip
    assert {p["seed"] for p in points if p.get("start")} == {None, 0, 1}


def test_the_equal_compute_is_that_of_the_verdict(analysis):
    data = chart_data(analysis)
    axis = next(axis for axis in data["axes"] if axis["name"] == data["budget"]["axis"])
    assert data["budget"]["value"] * axis["divisor"] == pytest.approx(analysis.equal.budget, rel=1e-5)
    assert {"init@100"} < set(data["compared"])


def test_only_the_scripts_of_the_page_may_run(analysis):
    page = live_page(analysis, "stamp")
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', page)[1])
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"
    assert "unsafe" not in policy and rules["connect-src"] == "'self'"

    def digest(text):
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    run = [match["text"] for match in SCRIPT.finditer(page) if "json" not in match["kind"]]
    assert tuple(run) == scripts() and rules["script-src"] == " ".join(map(digest, run))
    assert rules["style-src"] == digest(re.search(r"(?s)<style>(.*?)</style>", page)[1])
    assert not re.search(r"\s(?:on\w+|style)=", markup(page))


def test_hostile_text_stays_in_the_data(analysis):
    evil = "</script><script>alert(1)</script><!--\u202e\x1b[2J"
    episode = analysis.run.episodes[0]
    episodes = [episode.__class__(**{**episode.__dict__, "messages": ({"role": "user", "content": evil},)})]
    run = analysis.run.__class__(**{**analysis.run.__dict__, "episodes": episodes})
    page = live_page(analysis.__class__(**{**analysis.__dict__, "run": run}), "stamp")
    assert "</script><script>alert" not in page and "\u202e" not in page and "\\u001b" not in page
    assert page_data(page)["episodes"]["texts"] == ["</script><script>alert(1)</script><!--\ufffd␛[2J"]


def test_a_text_is_stored_once(analysis):
    data = episode_data(analysis.run.episodes, analysis.arms)
    assert len(data["texts"]) == len(set(data["texts"]))
    lines = [line for e in data["episodes"] for part in e["parts"] for line in part["lines"]]
    assert len(lines) > 10 * len(data["texts"])
    assert {arm["name"] for arm in data["arms"]} == {"sft", "init", "rl"}


def test_episodes_that_do_not_fit_are_counted(analysis, monkeypatch):
    monkeypatch.setattr(episode_module, "MOST_TEXT", 10)
    data = episode_data(analysis.run.episodes, analysis.arms, first={"sft-s1@50"})
    assert [episode["stage"] for episode in data["episodes"]] == ["sft-s1"]
    assert data["left_out"] == len(analysis.run.episodes) - 1


def test_rows_of_several_terms_explain_each():
    terms = glossary()
    assert terms["turn"] == terms["attempt"] and terms["id"] == terms["in distribution"]
    assert terms["arm"].startswith("one variant that a recipe compares") and "term" not in terms


def episode_file(path, model, episodes):
    lines = [{"format": FORMAT, "model": model, "data": []}, *episodes]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_files_of_evaluations_stand_beside_a_run(analysis, tmp_path):
    facts = dict(analysis.run.episodes[0].facts)
    line = {
        "set": 0,
        "split": "id",
        "index": 0,
        "facts": facts,
        "messages": [],
        "solved": True,
        "error": None,
    }
    failed = {**line, "index": 1, "solved": False, "error": "no answer"}
    file = episode_file(tmp_path / "a.jsonl", "hub/My_Model", [line, failed, {**line, "solved": False}])
    episodes, arms = kept_episodes([analysis.run.folder, file])
    assert len(episodes) == len(analysis.run.episodes) + 1
    assert (episodes[-1].arm, episodes[-1].solved) == ("My_Model", False)
    assert arms.label("My_Model") == "My_Model" and arms.label("rl") == "RL"


def test_other_files_are_no_episodes(analysis, tmp_path):
    path = tmp_path / "records.jsonl"
    path.write_text('{"format": "other"}\n')
    with pytest.raises(SftrlError, match="expected a file of episodes .sftrl-episodes-1., found 'other'"):
        kept_episodes([path])
    with pytest.raises(SftrlError, match="expected one run folder"):
        kept_episodes([analysis.run.folder, tmp_path])

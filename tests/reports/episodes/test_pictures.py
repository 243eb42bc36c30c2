"""Runs with pictures: a verdict for each kind of OOD, recognition, the sample hands drawn again."""

from __future__ import annotations

import io
import json
import re

import pytest
from PIL import Image
from rich.console import Console

from sftrl_ext.reports import build_report, results_table, show_episodes
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.episodes.pictures import in_words, pngs
from sftrl_ext.reports.figures.recognition_figure import (
    recognition_against_compute,
    recognition_against_success,
)
from sftrl_ext.reports.figures.run_figures import FIGURES
from sftrl_ext.reports.figures.style import look, save
from tests.reports.pages.page_content import page_data
from tests.reports.synthetic_run import make_run, rewrite

SPLITS = ("id", "rule_ood", "visual_ood", "visual_ood_table")
OF_PICTURES = {"recognition_vs_success", "recognition_vs_compute"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    run_dir = make_run(
        tmp_path_factory.mktemp("run"), points=3, splits=SPLITS, pictures=True, rl_tokens=2.2e6
    )
    return run_dir, build_report(run_dir)


def test_every_figure_is_there(built):
    assert set(built[1].figures) == {spec.name for spec in FIGURES} | {"fig8"}


@pytest.mark.parametrize("draw", [recognition_against_success, recognition_against_compute])
def test_the_same_metrics_give_the_same_figures(built, tmp_path, draw):
    found = analyse(built[0])
    with look():
        first, second = ([p.read_bytes() for p in save(draw(found), tmp_path, n)] for n in "ab")
    assert first == second


def test_without_recognition_there_are_no_such_figures_or_words(tmp_path):
    run_dir = make_run(tmp_path, points=2, splits=("id", "rule_ood"), training=False)
    paths = build_report(run_dir)
    assert not OF_PICTURES & set(paths.figures)
    assert "ecogni" not in paths.markdown.read_text()
    assert not list(paths.folder.glob("episode-*.png"))
    assert {"verdicts", "reading"}.isdisjoint(json.loads(paths.summary.read_text()))


def test_each_kind_of_ood_has_a_verdict(built):
    found = analyse(built[0])
    assert found.main_splits == ["rule_ood", "visual_ood"]
    rule, visual = found.verdicts
    assert "SFT loses the other rule" in rule.verdict.headline
    assert "SFT loses the other look" in visual.verdict.headline
    for page in (built[1].markdown.read_text(), built[1].html.read_text()):
        assert "SFT loses the other rule" in page and "SFT loses the other look" in page
    sentences = " ".join(built[1].verdict)
    assert (
        sentences.count("in distribution it gains") == 2
    )  # said once for each arm, not once more for each kind
    assert "Its other splits: SFT gains on `visual_ood_table`" in sentences
    assert "Its other splits" in sentences and "`rule_ood_unseen`" not in sentences


def test_what_training_has_shown_already_is_said(tmp_path):
    make_run(tmp_path, points=1, splits=("id", "visual_ood"), pictures=True, training=False)
    recipe = tmp_path / "recipe.yaml"
    written = recipe.read_text()
    recipe.write_text(written + "task: {suits: mixed, pretrain_splits: [id, visual_ood]}\n")
    notes = analyse(tmp_path).notes
    assert "on `id`, `visual_ood`" in notes[0] and "nothing new" in notes[1]
    recipe.write_text(written + "task: {suits: black, pretrain_splits: [id, rule_ood]}\n")
    notes = analyse(tmp_path).notes
    assert "on both rules" in notes[0] and not any("nothing new" in note for note in notes)


def test_numbers_of_the_paper_stand_at_their_metric(built):
    page = built[1].markdown.read_text()
    rows = [line for line in page.splitlines() if line.startswith("| SFT (paper")]
    assert [re.findall(r"\d+\.\d", row.split(")", 1)[1]) for row in rows] == [["5.6"], ["13.7"], ["40.0"]]
    recognition = page.split("First responses that name the right cards ±")[1]
    assert rows[2] in recognition and rows[0] not in recognition


def test_summary_holds_recognition(built):
    run_dir, paths = built
    summary = json.loads(paths.summary.read_text())
    records = [json.loads(line) for line in (run_dir / "eval" / "records.jsonl").read_text().splitlines()]
    last = next(r for r in reversed(records) if r["arm"] == "sft" and r["split"] == "visual_ood")
    rows = summary["compared"]
    row = next(r for r in rows if r["arm"] == "sft" and r["split"] == "visual_ood")
    assert row["recognized"]["percent"] == pytest.approx(100 * last["recognized_first"] / last["episodes"])
    assert row["numbers_right"]["percent"] == pytest.approx(
        100 * last["number_right_first"] / last["episodes"]
    )
    if_read = row["first_correct_if_recognized"]["percent"]
    assert if_read == pytest.approx(100 * last["solved_first"] / last["recognized_first"])
    assert [v["split"] for v in summary["verdicts"]] == ["rule_ood", "visual_ood"]
    assert len(summary["reading"]) == 2 * 3


def counts(solved, first, read, numbers):
    """Percent of 300 episodes, as record fields."""
    names = ("solved", "solved_first", "recognized_first", "number_right_first")
    return dict(zip(names, (3 * v for v in (solved, first, read, numbers)), strict=True))


CASES = [
    (counts(10, 8, 20, 18), "The cards are read less often"),
    (counts(10, 5, 80, 10), "Cards that are read get the wrong numbers: the rule is misapplied"),
    (counts(10, 5, 80, 78), "Hands that are read are solved less often"),
    (counts(10, 2, 50, 5), "The cards are read less often and cards that are read get the wrong numbers"),
    (counts(25, 38, 79, 77), "Neither reading nor what follows it has moved that way"),
    (counts(41, 10, 80, 12), "Yet cards that are read get the wrong numbers"),
    (counts(80, 75, 81, 80), "Hands that are read are solved more often"),
]


@pytest.mark.parametrize(("after", "reason"), CASES)
def test_the_reason_follows_the_numbers(tmp_path, after, reason):
    run_dir = make_run(tmp_path, points=1, splits=("id", "rule_ood"), pictures=True, training=False)
    start = counts(40, 35, 80, 78)
    rewrite(run_dir, lambda r: r | (after if r["arm"] == "sft" and r["split"] == "rule_ood" else start))
    recognition_changes = analyse(run_dir).recognition_changes
    (found,) = [r for r in recognition_changes if (r.arm, r.split) == ("sft", "rule_ood")]
    assert found.reason.startswith(reason)
    assert found.reason in found.sentence
    assert {r.reason for r in recognition_changes if r is not found} == {""}


def test_what_cannot_be_told_is_said(tmp_path):
    run_dir = make_run(tmp_path, points=1, splits=("id", "visual_ood"), pictures=True, training=False)
    rewrite(
        run_dir, lambda r: {k: v for k, v in r.items() if k not in ("solved_first", "number_right_first")}
    )
    recognition_changes = analyse(run_dir).recognition_changes
    assert recognition_changes and all(
        "cannot be told" in reading.sentence for reading in recognition_changes
    )
    assert all("right numbers" not in reading.sentence for reading in recognition_changes)


def test_sample_hands_are_drawn_again(built):
    _, paths = built
    page = paths.html.read_text()
    instances = page_data(page)["episodes"]["instances"]
    written = sorted(paths.folder.glob("episode-*.png"))
    assert len(written) == 7 and all(len(instance["pictures"]) == 1 for instance in instances)
    for path in written:
        assert f"]({path.name})" in paths.markdown.read_text()
        assert Image.open(path).size == (240, 120)
    assert "8 of diamonds" in page and "(classic deck, row, blue table)" in page


def test_facts_that_cannot_be_drawn_leave_out_the_picture():
    facts = {"task": "general_points", "cards": ["KS", "5H", "2C", "4D"], "modality": "image"}
    assert len(pngs(facts)) == 1
    assert pngs(facts | {"modality": "text"}) == []
    assert pngs(facts | {"look": {"table": "no such table"}}) == []
    assert in_words(facts) == "king of spades, 5 of hearts, 2 of clubs, 4 of diamonds"
    assert in_words(facts | {"cards": ["Z"]}) == in_words({"cards": ["KS"]}) == ""


def test_the_viewer_says_the_cards_and_writes_the_pictures(built, tmp_path):
    out = io.StringIO()
    show_episodes(built[0], Console(file=out, width=200), split="visual_ood", limit=2, pictures=tmp_path)
    assert "shown: king of hearts, 5 of diamonds" in out.getvalue()
    assert [Image.open(path).size for path in tmp_path.glob("visual_ood-*.png")] == [(240, 120)] * 2


def test_results_table_has_a_second_one_for_recognition(built, tmp_path):
    text = make_run(tmp_path, points=1, splits=("id",), training=False)
    success, recognition = results_table([text, built[0]]).split("Cards recognized in the first response:")
    assert success.count("fig6_gp_l") == 3 and recognition.count("fig6_gp_l") == 0
    assert recognition.count("fig8_recognition") == 3


def with_arms(run_dir, names):
    """Replace the SFT records by a copy for each name, as arms of their own, each worse than the last."""
    path = run_dir / "eval" / "records.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    made = [r for r in records if r["arm"] != "sft"]
    for number, name in enumerate(names):
        for record in (r for r in records if r["arm"] == "sft"):
            stage = {"arm": name, "stage": record["stage"].replace("sft", name, 1)}
            made.append(record | stage | {"solved": record["solved"] // (number + 1)})
            tokens = run_dir / "stages" / record["stage"] / "tokens.jsonl"
            copy = run_dir / "stages" / made[-1]["stage"] / "tokens.jsonl"
            if copy != tokens:
                copy.parent.mkdir(exist_ok=True)
                copy.write_bytes(tokens.read_bytes())
    path.write_text("".join(json.dumps(record) + "\n" for record in made))


def test_further_arms_are_curves_and_rows_of_their_own(tmp_path):
    make_run(tmp_path, points=2, splits=("id", "rule_ood"))
    with_arms(tmp_path, ["sft", "sft_frozen_vision"])
    found = analyse(tmp_path)
    assert [c.arm for c in found.curves.arms] == ["sft", "sft_frozen_vision", "rl"]
    assert all(len(curve.steps()) == 2 for curve in found.curves.arms)
    assert [f.key[0] for f in found.verdict.findings] == ["sft", "sft_frozen_vision", "rl"]
    assert "SFT frozen vision" in build_report(tmp_path).markdown.read_text()


def test_of_several_arms_of_a_kind_the_best_in_distribution_is_judged(tmp_path):
    make_run(tmp_path, points=2, splits=("id", "rule_ood"), training=False)
    with_arms(tmp_path, ["sft_all", "sft_frozen_vision"])
    found = analyse(tmp_path)
    assert found.verdict.pattern != "unknown"
    assert any("distribution: SFT all." in note for note in found.notes)

"""The episode viewer on routes: every point once, the walk on a map, street views, older records."""

from __future__ import annotations

import io
import re
from dataclasses import replace

import pytest

pytest.importorskip("matplotlib")

from matplotlib.image import imread
from matplotlib.text import Text
from rich.console import Console

from sftrl_ext.cli import main
from sftrl_ext.envs.task import make_episode
from sftrl_ext.envs.virl.geo import distance_m
from sftrl_ext.envs.virl.route_view import action_heading, metres, read_action
from sftrl_ext.errors import SftrlError
from sftrl_ext.reports import build_report, show_episodes
from sftrl_ext.reports.analysis.arms import Arms
from sftrl_ext.reports.episodes.dialogue_figure import dialogue_figure
from sftrl_ext.reports.episodes.dialogues import dialogue, new_part
from sftrl_ext.reports.episodes.pictures import views_of
from sftrl_ext.reports.episodes.route_figure import map_figure, route_figure
from sftrl_ext.reports.episodes.route_map import COLOURS
from sftrl_ext.reports.episodes.walks import (
    AHEAD,
    CUT,
    FAILED,
    FIRST,
    LATER,
    NOT_STORED,
    parts,
    walk_of,
)
from sftrl_ext.reports.figures.style import look, write_figure
from sftrl_ext.runs.run_folder import load_run
from tests.reports.episodes.walked_routes import load_one, route_facts, route_run, small_city, walked
from tests.reports.pages.page_content import page_data
from tests.reports.synthetic_run import make_run

FAILS = (True, False, True, True, False, False)
"""Right; right after feedback; right; wrong twice: the episode ends at point 4."""


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    return small_city(tmp_path_factory.mktemp("city") / "plain")


@pytest.fixture(scope="module")
def facts(city):
    return route_facts(city)


@pytest.fixture(scope="module")
def seen_facts(tmp_path_factory):
    return route_facts(small_city(tmp_path_factory.mktemp("city") / "seen", pictures=True), modality="image")


@pytest.fixture
def failed(facts, tmp_path):
    episode = load_one(tmp_path, walked(facts, FAILS))
    return episode, walk_of(episode)


def texts_of(figure):
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def by_gid(figure, start):
    return {a.get_gid(): a for a in figure.findobj() if (a.get_gid() or "").startswith(start)}


def svg_of(figure, tmp_path):
    with look():
        write_figure(figure, tmp_path / "x.svg")
    return (tmp_path / "x.svg").read_text()


def test_segments_come_back_as_they_were_stored(facts, tmp_path):
    line = walked(facts, FAILS)
    episode = load_one(tmp_path, line)
    assert [s.point for s in episode.segments] == [0, 1, 2, 3]
    assert [list(s.messages) for s in episode.segments] == [s["messages"] for s in line["segments"]]
    assert episode.opening == episode.segments[0].messages
    answers = [part for part in dialogue(episode) if part.role == "assistant"]
    assert [(a.point, a.content, a.outcome, a.reward) for a in answers] == [
        (a["point"], a["response"], a["outcome"], a["reward"]) for a in line["attempts"]
    ]


def test_of_later_prompts_only_what_is_new_is_said(facts, tmp_path):
    lines = list(dialogue(load_one(tmp_path, walked(facts, FAILS))))
    prompts = [line.content for line in lines if line.role == "user" and "O_" in line.content]
    assert "Instructions" in prompts[0] and not any("Instructions" in prompt for prompt in prompts[1:])
    second = make_episode(facts | {"first_point": 1})
    assert prompts[1].splitlines() == [
        f"A_1: {second.rail.points[0].action}", f"O_2: {second.point.observation}", "A_2:",
    ]  # fmt: skip
    assert new_part("a\nb\nz", "a\nc\nd\nz") == "c\nd"
    assert new_part("a\nz", "a\nz") == "" and new_part("a\na", "a\na\na") == "a"


def test_a_walk_says_what_became_of_each_point(failed):
    episode, walk = failed
    states = [visit.state for visit in walk.visits]
    assert states == [FIRST, LATER, FIRST, FAILED] + [AHEAD] * (len(states) - 4)
    assert walk.verdict == f"not solved: ended at point 4 of {walk.points}, wrong twice"
    assert [visit.number for visit in walk.reached] == [1, 2, 3, 4]
    assert all(read_action(v.answers[-1].content) == v.point.action for v in walk.reached[:3])
    assert read_action(walk.reached[3].answers[0].content) != walk.reached[3].point.action


def test_walks_that_are_solved_or_cut_off(facts, tmp_path):
    assert walk_of(load_one(tmp_path / "a", walked(facts, ()))).verdict.startswith("solved: all ")
    line = walked(facts, FAILS)
    line["segments"][-1]["messages"] = line["segments"][-1]["messages"][:3]
    line["attempts"].pop()
    cut = walk_of(load_one(tmp_path / "b", line))
    assert cut.reached[-1].state == CUT
    assert cut.verdict == f"not solved: cut off at point 4 of {cut.points}"


def test_headings_of_actions():
    assert action_heading("forward()", 30.0) == 30.0
    assert action_heading("turn_direction(south)", 30.0) == 180.0
    assert action_heading("turn_direction(left)", 30.0) == 300.0
    assert {action_heading(a, 30.0) for a in ("stop()", "turn_direction(up)", "walk", None)} == {None}


def test_an_older_record_is_placed_on_its_route(facts, tmp_path):
    line = walked(facts, FAILS, old=True)
    assert "segments" not in line and "point" not in line["attempts"][0]
    episode = load_one(tmp_path, line)
    new = walk_of(load_one(tmp_path / "new", walked(facts, FAILS)))
    walk = walk_of(episode)
    assert [v.state for v in walk.visits] == [v.state for v in new.visits] and walk.verdict == new.verdict
    assert [len(v.answers) for v in walk.reached] == [1, 2, 1, 2]
    assert {a.content for v in walk.reached[:3] for a in v.answers} == {NOT_STORED}
    assert [a.content for a in walk.reached[3].answers] == [a.content for a in new.reached[3].answers]
    assert parts(episode, walk, skip=1)[3].lines == walk.reached[3].lines[1:]
    with look():
        words = texts_of(route_figure(Arms(), episode, walk))
    assert words.count("✓ correct") == 3 and words.count("✗ wrong action") == 1


def test_facts_that_do_not_suffice_give_no_walk(facts, tmp_path):
    line = walked(facts, FAILS)
    for number, change in enumerate(({"template": "gone.yaml"}, {"route": {}}, {"task": "general_points"})):
        assert walk_of(load_one(tmp_path / str(number), line | {"facts": facts | change})) is None


def test_metres_keep_distances():
    places = [(40.7, -74.0), (40.701, -74.0), (40.701, -73.998)]
    at = metres(places)
    for a, b in ((0, 1), (1, 2), (0, 2)):
        assert abs(float(((at[a] - at[b]) ** 2).sum() ** 0.5) / distance_m(places[a], places[b]) - 1) < 1e-3
    assert at[1][1] > 0 and at[2][0] > 0
    assert abs(metres([(10.0, 179.999), (10.0, -179.999)])[1][0]) < 300


def test_the_map_draws_every_point_and_marks_the_failed_one(failed, tmp_path):
    episode, walk = failed
    with look():
        figure = map_figure(Arms(), episode, walk)
    points = by_gid(figure, "point-")
    assert set(points) == {f"point-{visit.number}" for visit in walk.visits}
    for visit in walk.visits:
        assert points[f"point-{visit.number}"].get_markerfacecolor() == COLOURS[visit.state]
    assert set(by_gid(figure, "heading-")) == {f"heading-{visit.number}" for visit in walk.visits}
    ring, failed_point = by_gid(figure, "end")["end"], points["point-4"]
    assert ring.get_xydata().tolist() == failed_point.get_xydata().tolist()
    words = " ".join(texts_of(figure))
    assert "RL · rule_ood · step 8" in words and walk.verdict in words
    assert "ended at 4\nanswered: " in words and "N" in texts_of(figure)
    assert {v.point.landmark for v in walk.visits if v.point.landmark} <= set(texts_of(figure))
    svg = svg_of(figure, tmp_path)
    assert all(f'id="point-{visit.number}"' in svg for visit in walk.visits)
    assert all(f'id="{gid}"' in svg for gid in ("scale-bar", "north", "end", "ended", "verdict"))


def test_the_scale_bar_is_as_long_as_it_says(failed):
    episode, walk = failed
    with look():
        figure = map_figure(Arms(), episode, walk)
    (bar,) = by_gid(figure, "scale-bar").values()
    (label,) = [text for text in texts_of(figure) if re.fullmatch(r"\d+ m", text)]
    x = bar.get_xdata()
    assert x[1] - x[0] == pytest.approx(int(label.split()[0]))
    box = figure.axes[0].get_window_extent()
    (left, right), (low, high) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert (right - left) / box.width == pytest.approx((high - low) / box.height)


def test_labels_stay_apart_and_inside(failed):
    episode, walk = failed
    with look():
        figure = route_figure(Arms(), episode, walk)
        figure.canvas.draw()
    labels = [*by_gid(figure, "landmark-").values(), *by_gid(figure, "ended").values()]
    boxes = [label.get_window_extent() for label in labels]
    assert len(boxes) >= 2
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])
    whole = figure.axes[0].get_window_extent()
    assert all(box.x0 >= whole.x0 and box.x1 <= whole.x1 for box in boxes)


def test_the_figure_lists_what_was_right_and_what_was_answered(failed):
    episode, walk = failed
    with look():
        figure = route_figure(Arms(), episode, walk)
    answers = by_gid(figure, "answer-")
    assert set(answers) == {f"answer-{number}" for number in (1, 2, 3, 4)}
    assert sum("✗" in text for text in texts_of(figure)) == 3
    assert not by_gid(figure, "view-")


def test_street_views_of_every_point_that_was_reached(seen_facts, tmp_path):
    episode = load_one(tmp_path, walked(seen_facts, FAILS))
    walk = walk_of(episode)
    with look():
        figure = route_figure(Arms(), episode, walk)
    assert sorted(by_gid(figure, "view-")) == [f"view-{number}" for number in (1, 2, 3, 4)]
    first, second = views_of(seen_facts, [1, 2])
    assert first.image.size == (96, 96) and first.image.tobytes() != second.image.tobytes()
    assert first.image.tobytes() == make_episode(seen_facts).images()[0].tobytes()
    gone = seen_facts | {"street_views": str(tmp_path / "gone")}
    assert views_of(gone, [1]) == []
    with look():
        assert not by_gid(route_figure(Arms(), replace(episode, facts=gone), walk), "view-")


def shown(run_dir, width=100, **choice):
    out = io.StringIO()
    show_episodes(run_dir, Console(file=out, width=width, soft_wrap=True), **choice)
    return out.getvalue()


def test_the_terminal_shows_each_point_once(facts, tmp_path):
    text = shown(route_run(tmp_path, [walked(facts, FAILS)]))
    headings = re.findall(r"point (\d+) of \d+ · facing \w+ \(\d+°\) · right: ([a-z_()]+)", text)
    rail = make_episode(facts).rail.points
    assert headings == [(str(n), rail[n - 1].action) for n in (1, 2, 3, 4)]
    assert text.count("Instructions:") == 1
    assert text.count("✓ correct  +1") == 3 and text.count("✗ wrong_") == 3
    assert "ended at point 4" in text


def test_nothing_is_cut_off_at_the_console_s_width(facts, tmp_path):
    line = walked(facts, FAILS)
    text = shown(route_run(tmp_path, [line]), width=60)
    words = re.sub(r"[\s│]+", "", text)
    for attempt in line["attempts"]:
        assert re.sub(r"\s+", "", attempt["response"]) in words
    assert re.sub(r"\s+", "", line["messages"][0]["content"].splitlines()[-1]) in words


def test_the_terminal_shows_an_older_record(facts, tmp_path):
    text = shown(route_run(tmp_path, [walked(facts, FAILS, old=True)]))
    assert [int(n) for n in re.findall(r"point (\d+) of", text)][1:] == [1, 2, 3, 4]
    assert text.count(NOT_STORED) == 4


def test_files_of_the_viewer(facts, seen_facts, tmp_path):
    run_dir = route_run(tmp_path / "run", [walked(facts, FAILS), walked(seen_facts, (False, False))])
    text = shown(run_dir, out=tmp_path / "new" / "walk.png")
    assert [path.name for path in sorted((tmp_path / "new").iterdir())] == ["walk-2.png", "walk.png"]
    assert imread(tmp_path / "new" / "walk.png").std() > 0.01
    assert "walk-2.png" in text
    shown(run_dir, out=tmp_path / "folder", limit=1)
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["rule_ood-rl-8-1.png"]
    shown(run_dir, out=tmp_path / "walk.svg", limit=1)
    assert 'id="point-4"' in (tmp_path / "walk.svg").read_text()
    shown(run_dir, out=tmp_path / "walks.html")
    data = page_data((tmp_path / "walks.html").read_text())["episodes"]
    assert [len(instance["route"]) for instance in data["instances"]] == [
        len(e["walk"]["states"]) for e in data["episodes"]
    ]
    assert [len(episode["parts"]) for episode in data["episodes"]] == [4, 1]
    assert sorted(len(instance["pictures"]) for instance in data["instances"]) == [0, 1]
    shown(run_dir, pictures=tmp_path / "seen")
    assert [path.name for path in (tmp_path / "seen").iterdir()] == ["rule_ood-rl-8-2.png"]


def test_other_kinds_of_files_are_refused(facts, tmp_path, capsys):
    run_dir = route_run(tmp_path / "run", [walked(facts, FAILS)])
    with pytest.raises(SftrlError, match=r"\.png, \.svg, \.html"):
        shown(run_dir, out=tmp_path / "walk.gif")
    assert main(["show", str(run_dir), "--out", str(tmp_path / "walk.gif")]) == 2
    assert "walk.gif" in capsys.readouterr().err
    assert main(["show", str(run_dir), "--limit", "1", "--out", str(tmp_path / "walk.png")]) == 0
    assert (tmp_path / "walk.png").is_file()


@pytest.mark.parametrize("pictures", [False, True])
def test_a_hand_and_its_dialogue_in_one_picture(tmp_path, pictures):
    run_dir = make_run(
        tmp_path / "run", points=1, splits=("id", "visual_ood"), training=False, pictures=pictures
    )
    episode = next(e for e in load_run(run_dir).episodes if e.solved)
    with look():
        figure = dialogue_figure(Arms(), episode)
    words = texts_of(figure)
    assert "solved" in words and "✓ correct  +5" in words
    for line in dialogue(episode):
        assert line.content.splitlines()[0][:60] in " ".join(words)
    assert bool(by_gid(figure, "hand")) is pictures
    shown(run_dir, arm="rl", split="id", limit=1, out=tmp_path / "hand.html")
    (instance,) = page_data((tmp_path / "hand.html").read_text())["episodes"]["instances"]
    assert bool(instance["pictures"]) is pictures
    assert all(picture.startswith("data:image/webp;base64,") for picture in instance["pictures"])


def test_the_report_maps_the_sample_routes_of_each_arm(facts, seen_facts, tmp_path):
    arms = {"init": ("init", 100), "sft": ("sft-s0", 100), "rl": ("rl-s0", 8)}
    lines = [
        walked(where, tries, arm=arm, stage=stage, step=step, split=split)
        for arm, (stage, step) in arms.items()
        for where, split in ((facts, "rule_ood"), (seen_facts, "id"))
        for tries in ([(False, False) if arm == "sft" else FAILS])
    ]
    run_dir = route_run(tmp_path, lines)
    (run_dir / "report").mkdir()
    (run_dir / "report" / "episode-9.jpg").write_bytes(b"of an earlier state")
    made = build_report(run_dir)
    data, text = page_data(made.html.read_text())["episodes"], made.markdown.read_text()
    maps = sorted(path.name for path in made.folder.glob("episode-*.png"))
    assert maps == sorted(f"episode-{n}-{arm}.png" for n in (1, 2) for arm in arms)
    assert [bool(episode["walk"]) for episode in data["episodes"]] == [True] * 6
    assert [path.name for path in made.folder.glob("episode-*.jpg")] == ["episode-2.jpg"]
    assert sum(len(episode["parts"]) for episode in data["episodes"]) == 2 * (4 + 1 + 4)
    assert [bool(instance["pictures"]) for instance in data["instances"]].count(True) == 1
    assert all(f"]({name})" in text for name in [*maps, "episode-2.jpg"])
    assert text.count("#### point ") == 18
    first = {path.name: path.read_bytes() for path in made.folder.glob("episode-*")}
    build_report(run_dir)
    assert {path.name: path.read_bytes() for path in made.folder.glob("episode-*")} == first


def test_a_line_that_is_no_segment_is_named(facts, tmp_path):
    line = walked(facts, FAILS)
    line["segments"][1] = {"messages": []}
    with pytest.raises(SftrlError, match=r"episodes\.jsonl, line 1: key 'segments\[1\].point'"):
        load_one(tmp_path, line)

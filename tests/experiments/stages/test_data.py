"""Every kind of task builds the files of a run; what a route's evaluation records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from data_prep.validate import validate_file
from data_prep.virl_sources import held_out, read_route_set
from sftrl_ext.envs.task import make_episode
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.experiments.recipe.schema import SCALES
from sftrl_ext.experiments.stages.data import build_data
from sftrl_ext.runs.layout import RunLayout

NAVIGATION = ("fig6_virl_l", "fig6_virl_vl", "fig7_virl_vl", "fig18_virl_vl_overall", "fig19_overfit_init")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", NAVIGATION)
def test_recipes_of_routes_plan_at_every_scale(name, scale, tmp_path):
    from sftrl_ext.experiments.plan import make_plan

    recipe = load_recipe(name, scale)
    assert recipe.task.kind == "virl" and recipe.task.max_attempts == 2
    assert {"id", "rule_ood"} <= set(recipe.task.eval_splits)
    assert (recipe.task.modality == "image") == ("visual_ood" in recipe.task.eval_splits)
    stages = make_plan(recipe, tmp_path)
    chooses = any("@lowest:" in arm.start for arm in recipe.arms.values())
    kinds = {"data", "model", "sft", "rl", "eval", "report"} | ({"choice"} if chooses else set())
    assert {stage.kind for stage in stages} == kinds
    assert {stage.arm for stage in stages if stage.start} == set(recipe.arms)


def test_an_unknown_kind_or_split_is_named():
    with pytest.raises(SftrlError, match="Did you mean 'virl'"):
        load_recipe("fig6_virl_l", "smoke", ["task.kind=vril"])
    with pytest.raises(SftrlError, match="Did you mean 'rule_ood'"):
        load_recipe("fig6_virl_l", "smoke", ["+budget.eval.hands_of.rule_odd=3"])


def rows(layout, name):
    return pq.read_table(layout.rows(name)).to_pylist()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fig6_virl_l", ["task.routes.home.routes=40", "+budget.eval.hands_of.id=7"]),
        ("fig7_virl_vl", ["task.routes.home={routes: 6, width: 64}", "task.routes.holdout=0"]),
        ("fig6_gp_l", []),
    ],
)
def test_every_file_of_a_run_is_built_and_valid(name, words, tmp_path):
    recipe = load_recipe(name, "smoke", [*words, "budget.base.rows=150", "budget.sft.rows=60"])
    for city in (*recipe.task.routes.away, *recipe.task.routes.pretrain):
        city.width = 64
    layout = RunLayout(tmp_path)
    build_data(recipe, layout)
    for file in layout.data.glob("*.parquet"):
        limit = 12 if recipe.task.modality == "image" else 100
        report = validate_file(file, limit=limit)
        assert report.rows > 0
    sources = {row["data_source"] for row in rows(layout, "base")}
    assert sources == {f"{recipe.task.name}/{split}" for split in ("id", "rule_ood")}
    for split in recipe.task.eval_splits:
        count = recipe.budget.eval.hands_of.get(split, recipe.budget.eval.hands)
        assert len(rows(layout, f"eval-{split}")) == count
    before = {file: file.read_bytes() for file in layout.data.glob("*.parquet")}
    build_data(recipe, layout)
    assert before == {file: file.read_bytes() for file in before}, "a resumed run builds the same files"
    card = (layout.data / "dataset_card.md").read_text()
    assert ("Routes that two files share" in card) == (recipe.task.kind == "virl")


UNSEEN = [
    *("budget.base.rows=600", "budget.init.rows=64", "budget.sft.rows=100"),
    *("budget.rl.rows=50", "budget.eval.hands=20"),
]


def test_the_base_reads_no_rule_that_is_tested(tmp_path):
    recipe, layout = load_recipe("beyond_unseen_rules", "smoke", UNSEEN), RunLayout(tmp_path)
    build_data(recipe, layout)
    episodes = {
        file.stem: [make_episode(json.loads(row["extra_info"]["facts"])) for row in rows(layout, file.stem)]
        for file in layout.data.glob("*.parquet")
    }
    rules = {name: {episode.rule.name for episode in played} for name, played in episodes.items()}
    assert len(rules["base"]) > 400 and all(name.startswith("faces_") for name in rules["base"])
    for name in ("init", "sft-s0", "rl-s0", "eval-id"):
        assert rules[name] == {"face_10"}
    assert rules["eval-rule_ood"] == {"face_11_12_13"} and rules["eval-ood_all_5"] == {"all_5"}
    for played in episodes.values():
        assert {len(episode.cards) for episode in played} == {3}
    assert len({episode.target for episode in episodes["base"]}) == 30
    sets = {
        name: {(tuple(sorted(episode.numbers)), episode.target) for episode in played}
        for name, played in episodes.items()
    }
    for split in ("id_unseen", "rule_ood_unseen"):
        assert not sets[f"eval-{split}"] & set().union(*(sets[name] for name in ("base", "init", "sft-s0")))
    card = (layout.data / "dataset_card.md").read_text()
    assert "| base | 600 | `J=10`, `Q=10`, `K=10`, `J=11`, `Q=12`, `K=13`, `J=5 Q=5 K=5` |" in card


def test_a_base_reads_its_share_of_dialogues_and_every_answer_shows_its_working(tmp_path):
    words = ["budget.base.rows=200", "budget.base.dialogues=0.25", "task.working=true"]
    layout = RunLayout(tmp_path)
    build_data(load_recipe("beyond_unseen_rules", "smoke", [*UNSEEN, *words]), layout)
    base = rows(layout, "base")
    turns = [len(row["messages"]) for row in base]
    assert turns[:150] == [2] * 150 and max(turns[150:]) > 4
    for name in ("base", "init", "sft-s0"):
        answers = [row["messages"][-1]["content"] for row in rows(layout, name)]
        assert all('"working": ' in answer for answer in answers)


def test_a_base_reads_its_share_of_a_rule_that_is_held_out(tmp_path):
    words = ["task.exposure.rule_ood=0.1", "budget.base.dialogues=0.25"]
    layout = RunLayout(tmp_path)
    build_data(load_recipe("beyond_exposure", "smoke", [*UNSEEN, *words]), layout)
    base = rows(layout, "base")
    exposed = [row for row in base if row["extra_info"]["split"] == "rule_ood"]
    stated = {make_episode(json.loads(row["extra_info"]["facts"])).rule.name for row in exposed}
    assert stated == {"face_11_12_13"} and len(base) == 600
    dialogues = [row for row in exposed if len(row["messages"]) > 2]
    assert len(exposed) == 60 and 5 <= len(dialogues) <= 15
    for name in ("init", "sft-s0", "rl-s0"):
        assert {row["extra_info"]["split"] for row in rows(layout, name)} == {"id"}
    assert "| 60 rows of `rule_ood` |" in (layout.data / "dataset_card.md").read_text()


def test_a_share_of_nothing_changes_no_byte(tmp_path):
    for name, words in (("none", []), ("zero", ["task.exposure.rule_ood=0"])):
        build_data(load_recipe("beyond_unseen_rules", "smoke", [*UNSEEN, *words]), RunLayout(tmp_path / name))
    none, zero = (RunLayout(tmp_path / name).rows("base").read_bytes() for name in ("none", "zero"))
    assert none == zero


@pytest.mark.parametrize(
    ("scale", "word", "message"),
    [
        ("smoke", "task.exposure.rule_ood=1.5", "task.exposure.rule_ood: 1.5; expected 0 or more"),
        ("smoke", "task.exposure={rule_ood: 0.6, id: 0.6}", "expected shares with a sum of at most 1"),
        ("smoke", "task.exposure.rule_odd=0.1", "task.exposure: .*rule_odd.* rule_ood"),
        ("gpu", "task.exposure.rule_ood=0.1", "expected none where budget.base is null"),
    ],
)
def test_a_share_that_cannot_be_is_refused(scale, word, message):
    with pytest.raises(SftrlError, match=message):
        load_recipe("beyond_exposure", scale, [word])


@pytest.mark.parametrize("word", ["budget.base.dialogues=1.5", "budget.sft.dialogues=0.1"])
def test_a_share_of_dialogues_elsewhere_is_refused(word):
    key, _, share = word.partition("=")
    with pytest.raises(SftrlError, match=f"{key}: {share}; expected"):
        load_recipe("beyond_unseen_rules", "smoke", [word])


def test_routes_have_no_working():
    with pytest.raises(SftrlError, match="task.working: true is not for task kind 'virl'"):
        load_recipe("fig6_virl_l", "smoke", ["task.working=true"])


@pytest.mark.parametrize("scale", ["gpu", "node", "cluster"])
def test_where_nothing_is_pre_trained_it_is_the_papers_game(scale):
    recipe, plain = load_recipe("beyond_unseen_rules", scale), load_recipe("fig6_gp_l", scale)
    assert recipe.budget == plain.budget and recipe.budget.base is None
    assert (recipe.task.cards, recipe.task.targets, recipe.model) == (4, None, plain.model)


@pytest.mark.parametrize("scale", ["gpu", "node", "cluster"])
def test_where_nothing_is_pre_trained_shares_of_it_are_one_run_of_the_same(scale):
    exposure, unseen = load_recipe("beyond_exposure", scale), load_recipe("beyond_unseen_rules", scale)
    assert not exposure.sweep.runs.values
    assert replace(exposure, name=unseen.name, title=unseen.title, source=unseen.source) == unseen


def cities_of(layout, name):
    """The city and the words of a turn of each row of a file, with the numbers of its routes."""
    found = {}
    for row in rows(layout, name):
        facts = json.loads(row["extra_info"]["facts"])
        city = Path(facts["street_views"]).parent.name
        found.setdefault((city, facts["action_space"]), set()).add(facts["route"]["index"])
    return found


CITIES = [
    "task.routes.home={routes: 12, width: 64, most_legs: 2}",
    "task.routes.away=[{style: marble, seed: 1, routes: 3, width: 64, most_legs: 2}]",
    "task.routes.pretrain=[{style: pastel, seed: 7, routes: 3, width: 64, most_legs: 2}, "
    "{style: brick, seed: 8, routes: 3, width: 64, most_legs: 2}]",
    "task.routes.holdout=0.3",
    *("budget.base.rows=240", "budget.dialogues.rows=120", "budget.sft.rows=80", "budget.rl.rows=30"),
]


def test_only_the_base_is_trained_in_the_cities_of_pre_training(tmp_path):
    recipe = load_recipe("fig7_virl_vl", "smoke", CITIES)
    layout = RunLayout(tmp_path)
    build_data(recipe, layout)
    home, away, *further = ("0-brick-0", "1-marble-1", "2-pastel-7", "3-brick-8")
    assert sorted(path.name for path in (layout.data / "cities").iterdir()) == [home, away, *further]
    rules = ("absolute", "relative")
    seen = {
        route.index
        for route in read_route_set(layout.cities / home).routes
        if not held_out(route, recipe.task.routes.holdout)
    }
    assert 0 < len(seen) < 12
    for name in ("base", "dialogues"):
        found = cities_of(layout, name)
        assert set(found) == {(city, rule) for city in (home, *further) for rule in rules}
        assert found[home, "absolute"] <= seen and found[home, "relative"] <= seen
    assert cities_of(layout, "base")[home, "absolute"] == seen
    for name in ("init", "sft-s0", "rl-s0", "eval-id", "eval-rule_ood"):
        rule = "relative" if name == "eval-rule_ood" else "absolute"
        assert set(cities_of(layout, name)) == {(home, rule)}
    assert set(cities_of(layout, "eval-visual_ood")) == {(away, "absolute")}


def test_a_model_that_comes_trained_needs_no_cities_of_pre_training(tmp_path):
    words = ["budget.base=null", "budget.dialogues=null", "model.path=some/model"]
    layout = RunLayout(tmp_path)
    build_data(load_recipe("fig7_virl_vl", "smoke", [*CITIES, *words]), layout)
    assert sorted(path.name for path in (layout.data / "cities").iterdir()) == ["0-brick-0", "1-marble-1"]
    for scale in ("gpu", "node", "cluster"):
        assert not load_recipe("fig7_virl_vl", scale).task.routes.pretrain


def test_a_city_of_pre_training_is_not_tested_in(tmp_path):
    words = ["task.routes.pretrain=[{style: pastel}, {style: marble, seed: 1, routes: 30}]"]
    with pytest.raises(SftrlError, match=r"pretrain\[1\] is marble 1, one of task.routes.away"):
        build_data(load_recipe("fig7_virl_vl", "smoke", words), RunLayout(tmp_path))
    assert not (tmp_path / "data").exists()


def test_routes_in_words_may_have_cities_of_pre_training_too(tmp_path):
    words = ["task.routes.home.routes=20", "task.routes.pretrain=[{style: marble, seed: 3, routes: 20}]"]
    layout = RunLayout(tmp_path)
    build_data(load_recipe("fig6_virl_l", "smoke", [*words, "budget.base.rows=300"]), layout)
    starts = {
        name: {
            round(json.loads(row["extra_info"]["facts"])["route"]["start"][0]) for row in rows(layout, name)
        }
        for name in ("base", "sft-s0")
    }
    assert starts == {"base": {41, 45}, "sft-s0": {41}}
    assert not load_recipe("fig6_virl_l", "laptop").task.routes.pretrain


def test_arms_train_on_the_rows_they_ask_for(tmp_path):
    words = ["arms.old={kind: sft, rows: suboptimal, budget: {rows: 40}}", "arms.rl.max_attempts=2"]
    words += [
        "arms.mixed={kind: sft, splits: [id, all_5], budget: {rows: 40}}",
        "arms.dft={kind: sft, loss: dft}",
        "arms.cot={kind: sft, rows: reasoned, splits: [id, all_7], budget: {rows: 40}}",
    ]
    recipe = load_recipe("fig6_gp_l", "smoke", [*words, "budget.base.rows=60", "budget.sft.rows=40"])
    layout = RunLayout(tmp_path)
    build_data(recipe, layout)
    trained = {path.stem for path in layout.data.glob("*-s0.parquet")}
    assert trained == {"sft-s0", "rl-s0", "old-s0", "mixed-s0", "cot-s0"}  # dft trains on those of sft
    turns = [len(row["messages"]) for row in rows(layout, "old-s0")]
    assert min(turns) == 4 and max(turns) > 4  # an error and its feedback at least
    assert all(row["train_turns"] == [len(row["messages"]) - 1] for row in rows(layout, "old-s0"))
    assert {row["data_source"] for row in rows(layout, "mixed-s0")} == {"gp_l/id", "gp_l/all_5"}
    assert {row["data_source"] for row in rows(layout, "cot-s0")} == {"gp_l/id", "gp_l/all_7"}
    for name in ("sft-s0", "cot-s0"):
        answers = [json.loads(row["messages"][-1]["content"]) for row in rows(layout, name)]
        assert {"working" in answer for answer in answers} == {name == "cot-s0"}
    attempts = [json.loads(row["extra_info"]["facts"])["max_attempts"] for row in rows(layout, "rl-s0")]
    assert set(attempts) == {2}
    facts = json.loads(rows(layout, "eval-id")[0]["extra_info"]["facts"])
    assert facts.get("max_attempts", 5) == recipe.task.max_attempts == 5


def test_a_record_of_routes_counts_responses(tmp_path):
    pytest.importorskip("verl")
    from sftrl_ext.experiments.evaluation.evaluate import summarise
    from sftrl_ext.experiments.evaluation.one_model.console_tables import success_table
    from sftrl_ext.experiments.evaluation.targets import EvalSet
    from sftrl_ext.rollout.player import PlayedEpisode

    recipe = load_recipe("fig6_virl_l", "smoke", ["task.routes.home.routes=20", "budget.base.rows=10"])
    layout = RunLayout(tmp_path)
    build_data(recipe, layout)
    facts = [json.loads(row["extra_info"]["facts"]) for row in rows(layout, "eval-id")[:3]]
    played, right, made = [], 0, 0
    for number, one in enumerate(facts):
        episode, steps = make_episode(one), []
        while not episode.done:
            wrong = number == 1 and len(steps) in (1, 2)
            steps.append(episode.submit("" if wrong else episode.expert_answer()))
        right += sum(step.attempt.verdict.correct for step in steps)
        made += len(steps)
        played.append(PlayedEpisode(steps=steps, solved=episode.solved, metrics=episode.metrics()))
    record = summarise(EvalSet("id", "virl_l/id", facts), played)
    assert (record["correct_actions"], record["responses"]) == (right, made)
    assert (record["solved"], record["episodes"]) == (2, 3)
    assert record["recognized_responses"] == right
    by_route = [
        [sum(step.attempt.verdict.correct for step in episode.steps), len(episode.steps)]
        for episode in played
    ]
    assert record["step_counts"] == by_route and by_route[1][0] < by_route[1][1]
    assert "±" in str(list(success_table([{**record, "split": "id"}]).columns[2].cells)[0])
    assert not any(key.endswith("right_first") or key == "recognized_first" for key in record)
    cards = {"task": "general_points", "cards": ["6", "4", "A", "A"]}
    empty = summarise(EvalSet("id", "gp_vl/id", [{**cards, "modality": "image"}]), [PlayedEpisode()])
    assert list(empty) == [
        *("split", "data_source", "episodes", "solved", "successes", "instances"),
        *("solved_first", "attempts_mean"),
        *("recognized_first", "number_right_first", "outcomes", "errors", "out_of_tokens"),
        *("prompt_tokens", "generated_tokens", "feedback_tokens"),
    ]

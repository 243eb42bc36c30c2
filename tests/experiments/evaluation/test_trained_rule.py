"""First responses that solve by the rule that was trained in the place of the one stated."""

from __future__ import annotations

from dataclasses import replace

import pytest

from data_prep.hand_rows import HandRows
from data_prep.writer import write_rows
from sftrl_ext.envs.task import make_episode
from sftrl_ext.experiments.evaluation.targets import EvalSet, eval_set_of
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from sftrl_ext.runs.layout import RunLayout

HAND = {"task": "general_points", "rule": "face_11_12_13", "target": 24, "cards": ["K", "4", "10"]}


def test_facts_under_the_trained_rule():
    assert HandRows.under_trained_rule(HAND, "id") == {**HAND, "rule": "face_10"}
    assert HandRows.under_trained_rule({**HAND, "rule": "face_10"}, "id") is None
    assert HandRows.under_trained_rule(HAND, "other_faces") is None
    large = {**HAND, "rule": "large", "cards": ["14", "4", "6"]}
    assert HandRows.under_trained_rule(large, "id") is None, "the trained deck has no such card"


def test_a_run_knows_the_rule_of_its_training(tmp_path):
    recipe, layout = load_recipe("beyond_unseen_rules", "smoke"), RunLayout(tmp_path)
    make = HandRows(recipe.task, tmp_path)
    for split in ("id", "rule_ood"):
        write_rows(layout.eval_rows(split), make.prompts(split, 5, 0, train=False))
    assert eval_set_of(recipe, layout, "id").under_trained == ()
    chosen = eval_set_of(recipe, layout, "rule_ood")
    assert [facts and facts["rule"] for facts in chosen.under_trained] == ["face_10"] * 5
    assert [facts["rule"] for facts in chosen.facts] == ["face_11_12_13"] * 5


def test_responses_by_the_trained_rule_are_counted_once_and_only_at_first():
    pytest.importorskip("verl")
    from sftrl_ext.experiments.evaluation.evaluate import summarise
    from sftrl_ext.rollout.player import PlayedEpisode

    plain = {**HAND, "cards": ["2", "3", "4"]}
    played = []
    for facts, formulas in (
        (HAND, ["10+4+10"]),  # the king is read as 10
        (HAND, ["13+10+4", "10+4+10"]),
        (HAND, ["10+10+10"]),
        (plain, ["2*3*4"]),  # the same by either rule
    ):
        episode = make_episode(facts)
        steps = [episode.submit(f'{{"formula": "{formula}=24"}}') for formula in formulas]
        played.append(PlayedEpisode(steps=steps, solved=episode.solved, metrics=episode.metrics()))
    played.append(PlayedEpisode())
    facts = [HAND, HAND, HAND, plain, HAND]
    chosen = EvalSet("rule_ood", "gp_l/rule_ood", facts)
    assert "trained_rule_first" not in summarise(chosen, played)
    under = [HandRows.under_trained_rule(each, "id") for each in facts]
    record = summarise(replace(chosen, under_trained=under), played)
    assert (record["trained_rule_first"], record["solved_first"], record["episodes"]) == (1, 1, 5)

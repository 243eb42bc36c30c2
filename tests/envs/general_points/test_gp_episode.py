from __future__ import annotations

import json

import pytest

from sftrl_ext.envs import make_episode
from sftrl_ext.envs.base import facts_text
from sftrl_ext.envs.general_points.episode import GeneralPointsEpisode, PlaySettings, make_facts
from sftrl_ext.envs.general_points.prompts import OUTCOMES
from sftrl_ext.errors import SftrlError


def _facts(**changes):
    return make_facts(["6", "4", "A", "A"]) | changes


CORRECT = '{"cards": ["6", "4", "A", "A"], "number": [6, 4, 1, 1], "formula": "6*4*1*1=24"}'
VALUE = '{"cards": ["6", "4", "A", "A"], "number": [6, 4, 1, 1], "formula": "6*4+1+1=24"}'
NUMBERS = '{"cards": ["6", "4", "A", "A"], "number": [6, 4, 1, 1], "formula": "6*4*1=24"}'
ILLEGAL = '{"cards": ["6", "4", "A", "A"], "number": [6, 4, 1, 1], "formula": "6*(4*1*1=24"}'


def test_every_outcome_and_its_reward():
    episode = GeneralPointsEpisode(_facts(max_attempts=9))
    for text, outcome, reward in (
        ("no idea", "unparsable", -3),
        (ILLEGAL, "illegal_formula", -3),
        (NUMBERS, "wrong_numbers", -2),
        (VALUE, "wrong_value", -1),
    ):
        step = episode.submit(text)
        assert (step.attempt.verdict.outcome, step.reward) == (outcome, reward)
        assert not step.done
        assert step.attempt.verdict.feedback in step.reply
        assert episode.messages()[-2:] == [
            {"role": "assistant", "content": text},
            {"role": "user", "content": step.reply},
        ]
    step = episode.submit(CORRECT)
    assert (step.reward, step.terminated, step.truncated, step.reply) == (5, True, False, None)
    assert episode.solved
    assert episode.done
    assert episode.messages()[-1] == {"role": "assistant", "content": CORRECT}
    with pytest.raises(RuntimeError, match="over"):
        episode.submit(CORRECT)


@pytest.mark.parametrize("profile", ["exact", "authors"])
def test_the_last_failure_costs_its_own_grade_and_the_penalty(profile):
    episode = GeneralPointsEpisode(_facts(max_attempts=2, profile=profile, exceeded_penalty=-1))
    first, last = episode.submit(VALUE), episode.submit(VALUE)
    assert not first.done
    assert last.truncated
    assert not last.terminated
    assert last.reward == first.reward - 1
    assert last.attempt.verdict.reward == first.reward
    assert episode.metrics()["reward_total"] == first.reward + last.reward


def test_solving_at_the_last_attempt_costs_nothing():
    episode = GeneralPointsEpisode(_facts(max_attempts=1))
    step = episode.submit(CORRECT)
    assert (step.reward, step.terminated, step.truncated) == (5, True, False)


def test_metrics_have_the_same_keys_whatever_happens():
    keys = {"solved", "attempts", "first_try", "reward_total"} | {f"outcome/{name}" for name in OUTCOMES}
    episode = GeneralPointsEpisode(_facts())
    assert set(episode.metrics()) == keys
    assert set(episode.metrics().values()) == {0.0}
    episode.submit("x")
    episode.submit(CORRECT)
    metrics = episode.metrics()
    assert set(metrics) == keys
    assert all(type(value) is float for value in metrics.values())
    assert (metrics["solved"], metrics["attempts"], metrics["first_try"]) == (1, 2, 0)
    assert metrics["outcome/correct"] == metrics["outcome/unparsable"] == 0.5
    once = GeneralPointsEpisode(_facts())
    once.submit(CORRECT)
    assert once.metrics()["first_try"] == 1


def test_facts_rebuild_the_episode():
    settings = PlaySettings(3, "authors", "compact", exceeded_penalty=-0.5)
    facts = make_facts(["KS", "10H", "2", "4"], "face_11_12_13", 36, settings)
    episode = make_episode(json.loads(facts_text(facts)))
    assert isinstance(episode, GeneralPointsEpisode)
    assert episode.facts == facts
    assert episode.numbers == (13, 10, 2, 4)
    assert episode.messages() == make_episode(facts).messages()


def test_changing_the_messages_does_not_change_the_episode():
    episode = GeneralPointsEpisode(_facts())
    episode.messages()[0]["content"] = "hacked"
    assert episode.messages()[0]["content"] != "hacked"


@pytest.mark.parametrize(
    "text", ["", "\x00", "💥" * 1000, "(" * 100_000, '{"formula": ' * 1000, "9" * 100_000]
)
def test_any_text_can_be_submitted(text):
    assert GeneralPointsEpisode(_facts()).submit(text).reward < 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cards": None}, "must be a list"),
        ({"cards": ["6", "4", "A", "X"]}, "'X' is not a card"),
        ({"rule": "face_11_12"}, "Did you mean 'face_11_12_13'"),
        ({"profile": "author"}, "Did you mean 'authors'"),
        ({"modality": "image"}, "the card '6' has no suit"),
        ({"look": {"table": "green"}}, "expected modality 'image'"),
        ({"image_seed": 1}, "given with modality 'text'"),
        ({"modality": "txt"}, "Did you mean 'text'"),
        ({"max_attempts": 0}, "expected a whole number >= 1"),
        ({"max_attempts": True}, "expected a whole number >= 1"),
        ({"target": "24"}, "expected a whole number"),
        ({"exceeded_penalty": "much"}, "expected a number"),
        ({"exceeded_penalty": float("nan")}, "expected a number"),
        ({"exceeded_penalty": 10**400}, "expected a number"),
        ({"template": "defaul"}, "Did you mean 'default'"),
        ({"max_attemps": 3}, "Did you mean 'max_attempts'"),
    ],
)
def test_wrong_facts(change, words):
    with pytest.raises(SftrlError, match=words):
        make_episode(_facts(**change))


def test_missing_facts():
    with pytest.raises(SftrlError, match="'cards' is missing"):
        make_episode({"task": "general_points"})
    with pytest.raises(SftrlError, match="Did you mean 'general_points'"):
        make_episode({"task": "general_point"})

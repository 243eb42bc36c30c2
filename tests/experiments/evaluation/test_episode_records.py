"""What is stored of an episode."""

import asyncio
import json

import pytest

pytest.importorskip("verl")

from sftrl_ext.experiments.evaluation.episode_records import stored_episode
from sftrl_ext.rollout.player import Limits, play
from sftrl_ext.rollout.tokens import chat_tokens
from tests.rollout.tiny import Guess, Script, Walk, builder_for, tiny_tokenizer


def stored(episode, texts, facts=None, limits=None):
    tokenizer = tiny_tokenizer()
    limits = limits or Limits(prompt=200, response=400, turn=32)
    played = asyncio.run(play(episode, Script(tokenizer, texts), chat_tokens(builder_for(tokenizer)), limits))
    line = stored_episode(facts or {"task": "t"}, played)
    return json.loads(json.dumps(line))


def test_every_prompt_of_a_route_is_stored_with_its_attempts():
    line = stored(Walk(), ["a", "x", "b", "c"])
    assert [(s["point"], len(s["messages"])) for s in line["segments"]] == [(0, 2), (1, 4), (2, 2)]
    assert [s["messages"][0]["content"] for s in line["segments"]] == ["point 0", "point 1", "point 2"]
    assert line["segments"][-1]["messages"] == line["messages"]
    assert line["attempts"] == [
        {"outcome": "correct", "reward": 1.0, "point": 0, "response": "a"},
        {"outcome": "wrong", "reward": -1.0, "point": 1, "response": "x"},
        {"outcome": "correct", "reward": 1.0, "point": 1, "response": "b"},
        {"outcome": "correct", "reward": 1.0, "point": 2, "response": "c"},
    ]
    assert line["solved"] and line["facts"] == {"task": "t"}


def test_points_are_counted_from_the_first_of_the_episode():
    line = stored(Walk(), ["a", "x", "x"], facts={"first_point": 4})
    assert [s["point"] for s in line["segments"]] == [4, 5]
    assert [a["point"] for a in line["attempts"]] == [4, 5, 5]


def test_a_route_cut_off_by_the_budget_stores_what_was_played():
    limits = Limits(prompt=200, response=400, turn=32, prompts=2)
    line = stored(Walk(), ["a", "b", "never asked"], limits=limits)
    assert [s["point"] for s in line["segments"]] == [0, 1] and not line["solved"]


def test_an_episode_of_one_prompt_has_no_further_keys():
    line = stored(Guess(), ["no", "yes"])
    assert set(line) == {"facts", "messages", "attempts", "solved"}
    assert [set(attempt) for attempt in line["attempts"]] == [{"outcome", "reward"}] * 2

from __future__ import annotations

import random
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import sftrl_ext.envs  # noqa: F401
from sftrl_ext.envs.general_points.solver import solve
from sftrl_ext.envs.spaces import MessagesSpace, TextSpace
from sftrl_ext.errors import SftrlError

ID = "sftrl/GeneralPoints-v0"


@pytest.mark.parametrize("profile", ["exact", "authors"])
def test_gymnasiums_own_checker_passes_without_a_warning(profile):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(ID, rule="face_11_12_13", profile=profile, template="compact")
        check_env(env.unwrapped)


def test_the_public_surface():
    env = gymnasium.make(
        ID, rule="face_10", modality="text", profile="exact", target=24, max_attempts=5, suits="mixed"
    )
    obs, info = env.reset(seed=0, options={"cards": ["K", "5", "2", "4"]})
    assert obs["messages"][-1]["role"] == "user"
    assert info["cards"] == ["K", "5", "2", "4"]
    assert info["numbers"] == [10, 5, 2, 4]
    assert (info["target"], info["attempt"], info["solved"]) == (24, 0, False)
    obs, reward, terminated, truncated, info = env.step("what?")
    assert (reward, terminated, truncated) == (-3.0, False, False)
    assert (info["outcome"], info["grade_reward"], info["attempt"]) == ("unparsable", -3.0, 1)
    assert info["feedback"] in obs["messages"][-1]["content"]
    answer = (
        f'{{"cards": ["K", "5", "2", "4"], "number": [10, 5, 2, 4], "formula": "{solve([10, 5, 2, 4])[0]}"}}'
    )
    obs, reward, terminated, truncated, info = env.step(answer)
    assert (reward, terminated, truncated, info["solved"], info["outcome"]) == (
        5.0,
        True,
        False,
        True,
        "correct",
    )
    assert info["recognized"] is True
    assert env.observation_space.contains(obs)


def test_attempts_are_used_up():
    env = gymnasium.make(ID, max_attempts=3)
    env.reset(seed=1)
    results = [env.step("?") for _ in range(3)]
    assert [result[1] for result in results] == [-3.0, -3.0, -4.0]
    assert [result[3] for result in results] == [False, False, True]
    assert not any(result[2] for result in results)
    assert [result[4]["grade_reward"] for result in results] == [-3.0] * 3


@pytest.mark.parametrize("options", [None, {"suits": "red"}, {"cards": ["K", "5", "2", "4"]}])
def test_reset_with_a_seed_twice_gives_the_same_episode(options):
    env = gymnasium.make(ID, rule="face_11_12_13")
    random.seed(0)
    np.random.seed(0)
    first = env.reset(seed=11, options=options)
    random.seed(1)
    np.random.seed(1)
    assert env.reset(seed=11, options=options) == first
    assert gymnasium.make(ID, rule="face_11_12_13").reset(seed=11, options=options) == first


def test_reset_without_a_seed_goes_on():
    env = gymnasium.make(ID)
    env.reset(seed=5)
    assert len({tuple(env.reset()[1]["cards"]) for _ in range(10)}) > 5


def test_suits_and_cards_of_options():
    env = gymnasium.make(ID, suits="black")
    assert set(env.reset(seed=0)[1]["suits"]) <= {"S", "C"}
    assert set(env.reset(seed=0, options={"suits": "red"})[1]["suits"]) <= {"H", "D"}
    assert set(env.reset(seed=0)[1]["suits"]) <= {"S", "C"}
    info = env.reset(seed=0, options={"cards": ["K♦", "5", "2", "4H"]})[1]
    assert (info["suits"][0], info["suits"][3]) == ("D", "H")
    assert set(info["suits"][1:3]) <= {"S", "C"}


def test_further_settings():
    env = gymnasium.make(ID, rule="large", num_cards=5, target=36, draw="deck", need_face=True)
    info = env.reset(seed=0)[1]
    assert len(info["cards"]) == 5
    assert info["target"] == 36
    assert set(info["cards"]) & {"J", "Q", "K"}
    assert max(info["numbers"]) >= 14


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rule": "face10"}, "Did you mean 'face_10'"),
        ({"profile": "exat"}, "Did you mean 'exact'"),
        ({"modality": "texts"}, "Did you mean 'text'"),
        ({"modality": "image"}, "not available in this version"),
        ({"suits": "reds"}, "Did you mean 'red'"),
        ({"max_attempts": 0}, "expected a whole number"),
        ({"template": "compat"}, "Did you mean 'compact'"),
    ],
)
def test_wrong_settings(change, words):
    with pytest.raises(SftrlError, match=words):
        gymnasium.make(ID, **change)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"card": ["K"]}, "Did you mean 'cards'"),
        ({"cards": ["K", "5"]}, "has 2 cards, expected 3 to 6"),
        ({"cards": ["K", "5", "2", "19"]}, "has no card '19'"),
        ({"cards": "K524"}, "must be a list"),
        ({"suits": "blue"}, "unknown suits"),
    ],
)
def test_wrong_options(options, words):
    with pytest.raises(SftrlError, match=words):
        gymnasium.make(ID).reset(seed=0, options=options)


def test_spaces():
    text, dialogue = TextSpace(seed=1), MessagesSpace(seed=1)
    assert text.contains("x" * 10_000_000)
    assert text.contains("♠ ∑ \x00")
    assert not text.contains(3)
    for _ in range(20):
        assert text.contains(text.sample())
        assert dialogue.contains(dialogue.sample())
    assert not dialogue.contains([])
    assert not dialogue.contains([{"role": "boss", "content": "x"}])
    assert not dialogue.contains([{"role": "user"}])
    dialogue.seed(7)
    first = dialogue.sample()
    dialogue.seed(7)
    assert dialogue.sample() == first
    assert text == TextSpace()
    assert dialogue != text

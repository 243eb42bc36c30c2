from __future__ import annotations

import json
import random
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import sftrl_ext.envs  # noqa: F401
from sftrl_ext.envs.general_points.render import Look
from sftrl_ext.envs.general_points.solver import solve
from sftrl_ext.envs.spaces import ImagesSpace, MessagesSpace, TextSpace
from sftrl_ext.errors import SftrlError

ID = "sftrl/GeneralPoints-v0"


@pytest.mark.parametrize("profile", ["exact", "authors"])
def test_gymnasiums_own_checker_passes_without_a_warning(profile):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(ID, rule="face_11_12_13", profile=profile, template="compact")
        check_env(env.unwrapped)


SMALL = {"width": 96, "height": 64}


def test_gymnasiums_own_checker_passes_with_images():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(ID, modality="image", suits="black", look=SMALL | {"arrangement": "rotated"})
        check_env(env.unwrapped)


def test_images_are_observed():
    env = gymnasium.make(ID, modality="image", suits="red")
    obs, info = env.reset(seed=4)
    (image,) = obs["images"]
    assert (image.mode, image.size) == ("RGB", (1200, 1200))
    assert obs["messages"][0]["content"].count("<image>") == 1
    assert set(info["suits"]) <= {"H", "D"}
    assert "recognized" not in info
    image.paste((0, 0, 0), (0, 0, 1200, 1200))
    answer = {"cards": info["cards"], "number": info["numbers"], "formula": solve(info["numbers"])[0]}
    wrong, right = json.dumps(answer | {"cards": ["A"]}), json.dumps(answer)
    obs, reward, _, _, info = env.step(wrong)
    assert (reward, info["outcome"], info["recognized"]) == (-1.5, "cards_not_recognized", False)
    assert obs["images"] == env.reset(seed=4)[0]["images"]
    obs, reward, terminated, _, info = env.step(right)
    assert (reward, terminated, info["recognized"]) == (5.0, True, True)
    assert env.observation_space.contains(obs)


@pytest.mark.parametrize("arrangement", ["row", "rotated", "overlap"])
def test_reset_with_a_seed_twice_gives_equal_images(arrangement):
    def make(look):
        return gymnasium.make(ID, modality="image", look=look)

    env = make(SMALL | {"arrangement": arrangement})
    first = env.reset(seed=11)[0]
    assert env.reset(seed=11)[0] == first
    assert make(Look(**SMALL, arrangement=arrangement)).reset(seed=11)[0] == first
    assert env.reset(seed=12)[0]["images"] != first["images"]
    cards = {"cards": ["KS", "5H", "2D", "4C"]}
    again = [env.reset(seed=seed, options=cards)[0]["images"] for seed in (1, 1, 2)]
    assert again[0] == again[1]
    assert (again[0] == again[2]) == (arrangement == "row")


def test_text_and_images_of_one_seed_show_the_same_hand():
    text, image = (gymnasium.make(ID, modality=modality).reset(seed=3)[1] for modality in ("text", "image"))
    assert text == image


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
        ({"look": {"table": "blue"}}, "expected modality 'image'"),
        ({"modality": "image", "look": {"tabel": "blue"}}, "Did you mean 'table'"),
        ({"modality": "image", "look": {"table": "bleu"}}, "Did you mean 'blue'"),
        ({"modality": "image", "look": "blue"}, "expected a Look or its fields"),
        ({"modality": "image", "look": {"width": 0}}, "found 0"),
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
    images = ImagesSpace(40, 30, seed=1)
    (sample,) = images.sample()
    assert images.contains([sample])
    assert images.contains((sample,))
    for wrong in ([], [sample, sample], sample, [sample.convert("L")], [sample.resize((30, 40))], ["x"]):
        assert not images.contains(wrong)
    assert images == ImagesSpace(40, 30)
    assert images != ImagesSpace(30, 40)
    assert hash(images) == hash(ImagesSpace(40, 30))
    assert not images.is_np_flattenable

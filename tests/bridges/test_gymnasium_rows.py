"""Rows of any task in Gymnasium, alone and vectorized."""

from __future__ import annotations

import warnings

import gymnasium
import pytest
from gymnasium.utils.env_checker import check_env

from sftrl_ext.bridges import ROWS_ID
from sftrl_ext.bridges.rows import find_rows
from sftrl_ext.envs import make_episode
from sftrl_ext.errors import SftrlError

ASYNC = {"vectorization_mode": "async", "vector_kwargs": {"shared_memory": False}}


@pytest.fixture(scope="module")
def rows():
    return find_rows(task="general_points", split="rule_ood", rows=5, seed=3, max_attempts=2).facts


def test_gymnasiums_own_checker_passes_without_a_warning(rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gymnasium.make(ROWS_ID, rows=rows).unwrapped)


def test_a_row_is_played_as_its_episode(rows):
    env = gymnasium.make(ROWS_ID, rows=rows)
    obs, info = env.reset(options={"index": 3})
    episode = make_episode(rows[3])
    assert (obs["messages"], info["index"], info["solved"]) == (episode.messages(), 3, False)
    for _ in range(2):
        step = episode.submit("no")
        obs, reward, terminated, truncated, info = env.step("no")
        assert (reward, terminated, truncated) == (step.reward, step.terminated, step.truncated)
        assert (obs["messages"], info["outcome"]) == (episode.messages(), step.attempt.verdict.outcome)


def test_images_are_observed():
    rows = find_rows(task="general_points", modality="image", image_size="64x48", rows=1).facts
    env = gymnasium.make(ROWS_ID, rows=rows)
    obs, _ = env.reset(seed=0)
    assert obs["images"][0].size == (64, 48) and env.observation_space.contains(obs)


@pytest.mark.parametrize("mode", [{}, ASYNC], ids=["sync", "async"])
@pytest.mark.parametrize("env_id", [ROWS_ID, "sftrl/GeneralPoints-v0"])
def test_several_episodes_are_played_side_by_side(env_id, mode, rows):
    settings = {"rows": rows} if env_id == ROWS_ID else {"max_attempts": 2}
    envs = gymnasium.make_vec(env_id, num_envs=3, **mode, **settings)
    obs, _ = envs.reset(seed=[1, 2, 3])
    assert envs.observation_space.contains(obs)
    alone = gymnasium.make(env_id, **settings).reset(seed=2)[0]
    assert obs["messages"][1] == alone["messages"]
    _, first, *_ = envs.step(["no", "no", "no"])
    obs, second, terminated, truncated, info = envs.step(["no", "no", "no"])
    assert (second - first).tolist() == [-1.0] * 3  # the penalty of the last attempt
    assert truncated.all() and not terminated.any() and list(info["outcome"]) == ["unparsable"] * 3
    obs, *_ = envs.step(["ignored"] * 3)
    assert [len(messages) for messages in obs["messages"]] == [1, 1, 1]  # new episodes have begun
    envs.close()


@pytest.mark.parametrize(
    ("options", "text"), [({"index": 9}, "'index'"), ({"inedx": 1}, "index"), ({"index": "1"}, "0 to 4")]
)
def test_wrong_options_are_refused(options, text, rows):
    with pytest.raises(SftrlError, match=text):
        gymnasium.make(ROWS_ID, rows=rows).reset(options=options)


def test_no_rows_are_refused():
    with pytest.raises(SftrlError, match="found none"):
        gymnasium.make(ROWS_ID, rows=[])

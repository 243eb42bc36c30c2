"""Metrics of a training step over its episodes."""

from __future__ import annotations

import pytest

pytest.importorskip("verl")

import torch

from sftrl_ext.errors import SftrlError
from sftrl_ext.rollout.metrics import episode_metrics
from sftrl_ext.rollout.player import PlayedEpisode
from sftrl_ext.training.metrics import StepRows, group_metrics, row_metrics


def rows_of(*episodes, lost=False):
    extras = [{"reward_extra_info": episode_metrics(episode)} for episode in episodes]
    for extra, episode in zip(extras, episodes, strict=True):
        if episode.error is not None:
            extra |= {"error": episode.error, "engine_lost": lost}
    keys = [f"p_{number}_0" for number in range(len(episodes))]
    return StepRows(keys, [{"seq_len": 1}] * len(episodes), extras)


def test_a_fault_is_in_no_mean_of_scores():
    solved = PlayedEpisode(solved=True, metrics={"solved": 1.0, "reward_total": 5.0}, generated_tokens=4)
    failed = PlayedEpisode(
        error="OSError: x", metrics={"solved": 0.0, "reward_total": 0.0}, generated_tokens=2
    )
    rows = rows_of(solved, failed)
    metrics = row_metrics(rows)
    assert (metrics["episode/acc"], metrics["episode/solved"], metrics["episode/reward_total"]) == (1, 1, 5)
    assert metrics["episode/episode_error"] == 0.5
    assert rows.sum("generated_tokens") == 6  # what was computed is counted
    rows.refuse_faults()
    with pytest.raises(SftrlError, match="all 1 episodes .* OSError: x"):
        rows_of(failed).refuse_faults()


def test_no_update_is_made_of_what_a_lost_engine_left():
    with pytest.raises(SftrlError, match="1 of 2 episodes .* lost their rollout engine.*: ActorDied"):
        rows_of(PlayedEpisode(solved=True), PlayedEpisode(error="ActorDied"), lost=True).refuse_faults()


def test_prompts_that_a_step_can_learn_from():
    """Of four prompts one is solved always, one never but with other rewards, one sometimes; one is alone."""
    solved = {"p": (1, 1), "q": (0, 0), "r": (1, 0), "s": (1,)}
    keys = [f"{name}_{number}_0" for name, values in solved.items() for number in range(len(values))]
    extras = [{"reward_extra_info": {"solved": float(one)}} for values in solved.values() for one in values]
    rows = StepRows(keys, [{"seq_len": 1}] * len(keys), extras)
    alive = torch.ones(7, 2, dtype=torch.bool)
    alive[:, 1] = False
    rewards = torch.full((7, 2), 5.0, dtype=torch.float64)
    rewards[2:6, 0] = torch.tensor([-1.0, -2.0, 5.0, -1.0])
    rewards[0, 1] = 9.0  # of a turn that was not played
    metrics = group_metrics(rows, alive, rewards)
    assert metrics == {"groups/informative": 2 / 3, "groups/solved_sometimes": 1 / 3}
    alone = StepRows(keys[6:], [{"seq_len": 1}], extras[6:])
    assert group_metrics(alone, alive[:1], rewards[:1]) == {}
    # The same reward, but one needed another turn for it.
    alive[1, 1], rewards[1] = True, torch.tensor([0.0, 5.0])
    assert group_metrics(rows, alive, rewards)["groups/informative"] == 1.0


def test_episodes_that_failed_or_only_fill_a_batch_are_in_no_group():
    keys, extras = ["p_0_0", "p_1_0", "q_0_0", "pad_0_0"], [{"reward_extra_info": {"solved": 1.0}}] * 4
    tags = [{"seq_len": 1}, {"seq_len": 1}, {"seq_len": 1}, {"is_padding": True}]
    alive = torch.tensor([[True], [False], [True], [True]])
    assert group_metrics(StepRows(keys, tags, extras), alive, torch.ones(4, 1)) == {}

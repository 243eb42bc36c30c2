"""Metrics of a training step over its episodes."""

from __future__ import annotations

import pytest

pytest.importorskip("verl")

from sftrl_ext.errors import SftrlError
from sftrl_ext.rollout.metrics import episode_metrics
from sftrl_ext.rollout.player import PlayedEpisode
from sftrl_ext.training.metrics import StepRows, row_metrics


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

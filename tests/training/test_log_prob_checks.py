from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from sftrl_ext.errors import SftrlError

pytest.importorskip("verl")

from sftrl_ext.training.log_prob_checks import LogProbChecks, drop_copied_metrics


def config(**changes):
    keys = {
        "sftrl.check_every": 4,
        "actor_rollout_ref.rollout.name": "hf",
        "actor_rollout_ref.rollout.dtype": "float32",
        "actor_rollout_ref.rollout.calculate_log_probs": True,
        "actor_rollout_ref.actor.kl_loss_coef": 0.0,
        "algorithm.use_kl_in_reward": False,
    }
    return OmegaConf.from_dotlist([f"{key}={value}" for key, value in (keys | changes).items()])


def test_the_first_update_and_every_kth_after_it_are_checked():
    checks = LogProbChecks.of_config(config(), "sync")
    assert [step for step in range(1, 12) if checks.due(step)] == [1, 5, 9]
    every = LogProbChecks.of_config(config(**{"sftrl.check_every": "null"}), "sync")
    assert all(every.due(step) for step in range(1, 5))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("actor_rollout_ref.rollout.name", "vllm"),
        ("actor_rollout_ref.rollout.dtype", "bfloat16"),
        ("actor_rollout_ref.rollout.calculate_log_probs", False),
        ("actor_rollout_ref.actor.kl_loss_coef", 0.01),
        ("algorithm.use_kl_in_reward", True),
        ("sftrl.check_every", 0),
    ],
)
def test_log_probabilities_that_would_differ_are_refused(key, value):
    with pytest.raises(SftrlError, match=f"{key}={value}"):
        LogProbChecks.of_config(config(**{key: value}), "sync")
    if key != "sftrl.check_every":
        LogProbChecks.of_config(config(**{key: value, "sftrl.check_every": 1}), "sync")


def test_samples_of_older_policies_are_refused():
    with pytest.raises(SftrlError, match="separate_async"):
        LogProbChecks.of_config(config(), "separate_async")


def test_numbers_of_copied_log_probabilities_are_dropped():
    metrics = {"actor/kl_loss": 0.0, "training/rollout_probs_diff_max": 0.0, "actor/pg_loss": 0.3}
    drop_copied_metrics(metrics)
    assert metrics == {"actor/pg_loss": 0.3}

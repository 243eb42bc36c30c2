"""Samples of another policy than the one that is trained: their weights, their age, and the mismatch."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")
pytest.importorskip("transfer_queue")

import torch
from omegaconf import OmegaConf

from sftrl_ext.errors import SftrlError
from sftrl_ext.training.correction import as_loss_weights, correction_level, turn_weights
from sftrl_ext.training.metrics import (
    StepRows,
    first_minibatch_metrics,
    merge_metrics,
    mismatch_metrics,
    staleness_metrics,
)
from sftrl_ext.training.policy_loss import turn_ratio_loss

# Two turns with log-ratios 0.5 - 0.2 = 0.3 and 2.0; a row with one turn, -1.0; a row of padding.
TURN_IDS = torch.tensor([[1, 1, 0, 2], [1, 0, 0, 0], [0, 0, 0, 0]])
ROLLOUT = torch.full((3, 4), -3.0)
OLD = ROLLOUT + torch.tensor([[0.5, -0.2, 9.0, 2.0], [-1.0, 9.0, 9.0, 9.0], [9.0] * 4])
RATIOS = [math.exp(0.3), math.exp(2.0), math.exp(-1.0)]


def test_a_turns_weight_is_the_product_of_its_tokens_ratios_truncated_as_one():
    weights, is_last, metrics = turn_weights(OLD, ROLLOUT, TURN_IDS, 2.0)
    used = [RATIOS[0], 2.0, RATIOS[2]]
    assert weights[0].tolist() == pytest.approx([used[0], used[0], 0.0, used[1]])
    assert weights[1].tolist() == pytest.approx([used[2], 0, 0, 0]) and not weights[2].any()
    assert is_last.nonzero().tolist() == [[0, 1], [0, 3], [1, 0]]
    assert metrics["correction/turn_weight_mean"] == pytest.approx(sum(used) / 3)
    assert metrics["correction/turns_truncated"] == pytest.approx(1 / 3)
    share = sum(used) ** 2 / sum(w * w for w in used) / 3
    assert metrics["correction/effective_sample_share"] == pytest.approx(share)


def test_two_bounds_drop_turns_outside_of_them():
    weights, _, _ = turn_weights(OLD, ROLLOUT, TURN_IDS, "0.5_2.0")
    assert weights[0].tolist() == pytest.approx([RATIOS[0], RATIOS[0], 0, 0]) and not weights[1].any()


def test_both_kinds_of_loss_weigh_a_turn_once():
    """The turn's weight multiplies the turn's loss, in the loss per turn as in the losses per token."""
    from verl.trainer.ppo.core_algos import get_policy_loss_fn

    weights, is_last, _ = turn_weights(OLD, ROLLOUT, TURN_IDS, 2.0)
    mask, advantages = (TURN_IDS > 0).long(), torch.ones(3, 4)
    config = SimpleNamespace(
        clip_ratio=0.1, clip_ratio_low=None, clip_ratio_high=None, global_batch_info={"global_batch_size": 1}
    )
    loss, _ = turn_ratio_loss(
        OLD, OLD, advantages, mask, "seq-mean-token-sum", config,
        rollout_is_weights=as_loss_weights(weights, is_last, turn_is_action=True),
    )  # fmt: skip
    assert loss.item() == pytest.approx(-(RATIOS[0] + 2.0 + RATIOS[2]))
    config.get = {"clip_ratio_c": 3.0}.get
    loss, _ = get_policy_loss_fn("vanilla")(
        OLD, OLD, advantages, mask, "seq-mean-token-sum", config,
        rollout_is_weights=as_loss_weights(weights, is_last, turn_is_action=False),
    )  # fmt: skip
    assert loss.item() == pytest.approx(-(2 * RATIOS[0] + 2.0 + RATIOS[2]))


def config_of(level=None, loss="vanilla", logprobs=True, **verls):
    return OmegaConf.create(
        {
            "sftrl": {"rollout_correction": level},
            "algorithm": {"rollout_correction": {"rollout_is": None, "rollout_is_threshold": 2.0, **verls}},
            "actor_rollout_ref": {
                "actor": {"policy_loss": {"loss_mode": loss}},
                "rollout": {"calculate_log_probs": logprobs},
            },
        }
    )


def test_asynchronous_trainers_correct_at_the_level_of_their_loss():
    assert correction_level(config_of(), "sync") is None
    assert correction_level(config_of(loss="turn_ratio"), "sync") is None
    for mode in ("colocate_async", "separate_async"):
        assert correction_level(config_of(), mode) == "token"
        assert correction_level(config_of(loss="turn_ratio"), mode) == "turn"
        assert correction_level(config_of("none"), mode) == "none"
        # verl's own keys, where they are set, stay in charge.
        assert correction_level(config_of(rollout_is="sequence"), mode) is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (config_of("turns"), "Did you mean 'turn'"),
        (config_of("turn", logprobs=False), "calculate_log_probs must be true"),
        (config_of("turn", bypass_mode=True), "bypass_mode must be false"),
        (config_of(loss="turn_ratio", rollout_rs="token_k1"), "expected a seq_"),
    ],
)
def test_contradictions_are_refused(config, message):
    with pytest.raises(SftrlError, match=message):
        correction_level(config, "colocate_async")


def test_mismatch_over_tokens_and_turns():
    metrics = mismatch_metrics({"turn_ids": TURN_IDS, "old_log_probs": OLD, "rollout_log_probs": ROLLOUT})
    tokens = [0.5, -0.2, 2.0, -1.0]
    assert metrics["mismatch/logp_abs_mean"] == pytest.approx(3.7 / 4)
    assert metrics["mismatch/logp_abs_max"] == pytest.approx(2.0)
    assert metrics["mismatch/k3"] == pytest.approx(sum(math.exp(d) - 1 - d for d in tokens) / 4)
    assert metrics["mismatch/ratio_outliers"] == 0.5
    assert metrics["mismatch/turn_logp_abs_mean"] == pytest.approx((0.3 + 2.0 + 1.0) / 3)
    assert metrics["mismatch/turn_logp_abs_max"] == pytest.approx(2.0)
    assert mismatch_metrics({"turn_ids": TURN_IDS, "old_log_probs": OLD}) == {}


def test_the_age_of_a_turn_counts_from_its_oldest_token():
    rows = StepRows(
        ["p_0_1", "p_0_0", "q_0_0", "x_0_0"],
        [{"seq_len": 1}] * 3 + [{"seq_len": 1, "is_padding": True}],
        [
            {"turn_versions": [[4, 4]]},
            {"turn_versions": [[3, 4], None]},
            {"turn_versions": [[5, 5], [5, 5]]},
            {"turn_versions": [[0, 0]]},
        ],
    )
    # p: turns of 3 (continued by 4), unknown, 4; q: 5, 5.
    metrics = staleness_metrics(rows, 5)
    assert metrics["turns/staleness_1"] == 1.0  # 2 and 0
    assert metrics["turns/staleness_2"] == 0.0 and metrics["turns/staleness_3"] == 1.0
    assert metrics["turns/staleness_mean"] == 0.75 and metrics["turns/staleness_max"] == 2.0
    assert metrics["turns/mixed_share"] == 0.25
    assert staleness_metrics(StepRows(["p_0_0"], [{"seq_len": 1}], [{}]), 5) == {}


def test_parts_of_an_update_are_merged_by_what_they_count():
    first = {"episode/reward_total": 1.0, "tokens/generated": 10.0, "tokens/step_generated": 10.0, "x": 1.0}
    first["actor/pg_clipfrac_first"] = 0.0
    second = {"episode/reward_total": 4.0, "tokens/generated": 25.0, "tokens/step_generated": 15.0, "x": 2.0}
    second["actor/pg_clipfrac_first"] = 0.5
    assert merge_metrics([(2, first), (1, second)]) == {
        "episode/reward_total": 2.0,
        "tokens/generated": 25.0,
        "tokens/step_generated": 25.0,
        "actor/pg_clipfrac_first": 0.0,
    }


def test_the_first_optimizer_step_is_told_from_the_others():
    from verl.utils.metric import Metric

    parts = Metric("mean")
    parts.extend([0.1, 0.3])
    logged = {"actor/pg_clipfrac": [0.0, 0.5], "actor/ppo_kl": [parts, 2.0]}
    assert first_minibatch_metrics(logged) == {
        "actor/pg_clipfrac_first": 0.0,
        "actor/ppo_kl_first": pytest.approx(0.2),
    }
    assert first_minibatch_metrics({"actor/pg_loss": [1.0]}) == {}

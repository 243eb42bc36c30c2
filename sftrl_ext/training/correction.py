"""Correction for samples of another policy than the one that is trained: importance weights per turn.

The weight of a turn is the probability of its tokens under the policy before the update over that under the
policy, or the engine, that sampled them: ``exp(sum(old - rollout))``, truncated. verl computes weights per
token and per whole row (``algorithm.rollout_correction.rollout_is``); a turn lies between the two.
"""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from verl.trainer.ppo.rollout_corr_helper import _parse_rollout_is_threshold

from sftrl_ext.errors import SftrlError, unknown_name
from sftrl_ext.training.policy_loss import turn_log_ratio
from sftrl_ext.training.settings import CORRECTIONS, POLICY_LOSS


def correction_level(config: DictConfig, mode: str) -> str | None:
    """Level in effect: one of `CORRECTIONS`, or None where only verl's own keys apply.

    ``sftrl.rollout_correction`` names it. By default the synchronous trainer corrects nothing: its samples
    are of the policy that is trained. The asynchronous ones train on turns of older policies, which PPO's
    clipping does not see (it bounds the new policy against the one before the update, not against the
    sampler); there the default is the level of the policy loss: one weight per turn where it has one ratio
    per turn, else per token.

    Args:
        config: The training config.
        mode: verl's name of the trainer.

    Raises:
        SftrlError: for an unknown level, or where verl's keys contradict it.
    """
    level = OmegaConf.select(config, "sftrl.rollout_correction")
    section = OmegaConf.select(config, "algorithm.rollout_correction") or {}
    if level is not None and level not in CORRECTIONS:
        raise unknown_name("sftrl.rollout_correction", str(level), CORRECTIONS)
    by_turn = turn_is_action(config)
    rejected = str(section.get("rollout_rs") or "")
    if by_turn and "token_" in rejected:
        raise SftrlError(
            f"algorithm.rollout_correction.rollout_rs={rejected}: rejecting single tokens would cut "
            f"the turns of policy_loss.loss_mode={POLICY_LOSS} in pieces; expected a seq_* option."
        )
    # Explicit keys of verl win over our default.
    if level is None and section.get("rollout_is") is None and mode != "sync":
        level = "turn" if by_turn else "token"
    corrects = level in ("token", "turn")
    if corrects and not OmegaConf.select(config, "actor_rollout_ref.rollout.calculate_log_probs"):
        raise SftrlError(
            f"sftrl.rollout_correction={level} needs the sampler's log-probabilities: "
            "actor_rollout_ref.rollout.calculate_log_probs must be true."
        )
    if level == "turn" and section.get("bypass_mode"):
        raise SftrlError(
            "sftrl.rollout_correction=turn needs the log-probabilities of the policy before the update: "
            "algorithm.rollout_correction.bypass_mode must be false."
        )
    return level


def turn_is_action(config: DictConfig) -> bool:
    """True if the policy loss has one probability ratio per turn."""
    return OmegaConf.select(config, "actor_rollout_ref.actor.policy_loss.loss_mode") == POLICY_LOSS


def turn_weights(
    old_log_prob: Tensor, rollout_log_prob: Tensor, turn_ids: Tensor, threshold: Any
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Truncated importance weights of turns.

    Args:
        old_log_prob: ``[rows, tokens]`` under the policy before the update.
        rollout_log_prob: ``[rows, tokens]`` under the sampler.
        turn_ids: ``[rows, tokens]``: 1, 2, .. for the tokens of a turn, else 0.
        threshold: verl's ``rollout_is_threshold``: an upper bound, or ``"lower_upper"``, outside of which a
            turn gets weight 0.

    Returns:
        ``[rows, tokens]``: the turn's weight at each of its tokens, 0 elsewhere; a mask of each turn's last
        token; and metrics.
    """
    upper, lower = _parse_rollout_is_threshold(threshold)
    log_ratio, is_last = turn_log_ratio(old_log_prob, rollout_log_prob, turn_ids)
    ratio = torch.exp(log_ratio)
    weights = ratio.clamp(max=upper)
    if lower is not None:
        # Masked instead of clipped: outside the bounds a turn does not count.
        weights = torch.where((ratio >= lower) & (ratio <= upper), ratio, torch.zeros_like(ratio))
    weights = weights * (turn_ids > 0)
    if not bool(is_last.any()):
        return weights, is_last, {}
    raw, used = ratio[is_last].double(), weights[is_last].double()
    # Kish's effective sample size, as a share of the turns.
    size = used.sum().square() / used.square().sum().clamp(min=1e-12) / used.numel()
    metrics = {
        "correction/turn_weight_mean": float(used.mean()),
        "correction/turn_weight_max": float(used.max()),
        "correction/turn_weight_min": float(used.min()),
        "correction/turns_truncated": float((raw != used).double().mean()),
        "correction/effective_sample_share": float(size),
    }
    return weights, is_last, metrics


def as_loss_weights(weights: Tensor, is_last: Tensor, *, turn_is_action: bool) -> Tensor:
    """Convert turn weights to the format of the policy loss.

    A loss per token multiplies each token's loss by its weight: the turn's, at every token. The loss with one
    ratio per turn multiplies by the product over the turn: the turn's weight at its last token, 1 before.
    """
    if not turn_is_action:
        return weights
    return torch.where(is_last, weights, torch.ones_like(weights))

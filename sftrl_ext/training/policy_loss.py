"""Policy loss `turn_ratio`: clipped PPO with one probability ratio per response, as in the paper's code.

A turn is one action, so its ratio is the product of its tokens' ratios, and it is clipped as a whole:
``-min(r A, clip(r, 1 - eps, 1 + eps) A)`` per turn. verl's ``vanilla`` clips each token alone, and its
``gspo`` takes the geometric mean over all turns of a row.

Each turn's loss sits on its last token. Aggregate it with ``actor.loss_agg_mode=token-mean``: the trainer
counts turns where verl counts tokens, so this is the mean over the turns of an optimizer batch, whatever rows
they are in. (verl's ``seq-mean-token-sum`` divides by rows: the loss grows with the turns of an episode.)
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from verl.trainer.ppo.core_algos import agg_loss, register_policy_loss

from sftrl_ext.training.credit import turns_of_mask
from sftrl_ext.training.settings import POLICY_LOSS

MAX_LOG_RATIO = 20.0
"""Log-ratios are kept within this, as verl does, so that their exponentials are finite."""


def turn_log_ratio(log_prob: Tensor, old_log_prob: Tensor, turn_ids: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the tokens' log-ratios over each turn.

    Args:
        log_prob: ``[rows, tokens]`` under the policy being trained.
        old_log_prob: ``[rows, tokens]`` under the policy that wrote the turns.
        turn_ids: ``[rows, tokens]``: 1, 2, .. for the tokens of a turn, else 0.

    Returns:
        ``[rows, tokens]``: the turn's sum, at every one of its tokens; and a mask of each turn's last token.
    """
    rows, tokens = turn_ids.shape
    columns = torch.arange(tokens, device=turn_ids.device).expand(rows, tokens)
    shape = (rows, int(turn_ids.max()) + 1 if turn_ids.numel() else 1)
    # Column 0 collects the tokens outside turns.
    sums = torch.zeros(shape, dtype=log_prob.dtype, device=log_prob.device)
    sums = sums.scatter_add(1, turn_ids, log_prob - old_log_prob)
    last = torch.full(shape, -1, dtype=torch.int64, device=turn_ids.device)
    last = last.scatter_reduce(1, turn_ids, columns, reduce="amax")
    is_last = (last.gather(1, turn_ids) == columns) & (turn_ids > 0)
    return sums.gather(1, turn_ids).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO), is_last


def _turn_products(weights: Tensor, turn_ids: Tensor) -> Tensor:
    """``[rows, tokens]``: at each token of a turn the product of the turn's weights."""
    shape = (turn_ids.shape[0], int(turn_ids.max()) + 1 if turn_ids.numel() else 1)
    products = torch.ones(shape, dtype=weights.dtype, device=weights.device)
    return products.scatter_reduce(1, turn_ids, weights, reduce="prod").gather(1, turn_ids)


@register_policy_loss(POLICY_LOSS)
def turn_ratio_loss(
    old_log_prob: Tensor,
    log_prob: Tensor,
    advantages: Tensor,
    response_mask: Tensor,
    loss_agg_mode: str = "token-mean",
    config: Any = None,
    rollout_is_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """Compute the loss of one micro-batch, with verl's signature of a policy loss.

    Args:
        old_log_prob: ``[rows, tokens]``.
        log_prob: ``[rows, tokens]``, with gradient.
        advantages: ``[rows, tokens]``, the same at every token of a turn.
        response_mask: ``[rows, tokens]``; its runs are the turns.
        loss_agg_mode: verl's aggregation.
        config: verl's actor config.
        rollout_is_weights: ``[rows, tokens]`` correction for a rollout policy that is not the old one,
            or None. A turn's weight is the product of its tokens' weights.

    Returns:
        The loss, and verl's usual metrics, counted over turns.
    """
    low = config.clip_ratio if config.clip_ratio_low is None else config.clip_ratio_low
    high = config.clip_ratio if config.clip_ratio_high is None else config.clip_ratio_high
    turn_ids = turns_of_mask(response_mask)
    log_ratio, is_last = turn_log_ratio(log_prob, old_log_prob, turn_ids)
    ratio = torch.exp(log_ratio)
    # Pessimistic PPO objective: the larger of both losses.
    free, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - low, 1 + high)
    losses = torch.maximum(free, clipped) * is_last
    if rollout_is_weights is not None:
        losses = losses * _turn_products(rollout_is_weights, turn_ids)
    loss = agg_loss(
        loss_mat=losses, loss_mask=response_mask, loss_agg_mode=loss_agg_mode, **config.global_batch_info
    )
    # The mean of -log r under the old policy estimates KL(old || new), here per turn.
    turns = is_last.sum().clamp(min=1)
    metrics = {
        "actor/pg_clipfrac": float(((clipped > free) & is_last).sum() / turns),
        "actor/ppo_kl": float((-log_ratio * is_last).detach().sum() / turns),
        "actor/pg_clipfrac_lower": 0.0,
    }
    return loss, metrics

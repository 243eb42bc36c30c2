"""One ratio per turn: products of token ratios, clipped as a whole."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

pytest.importorskip("verl")

import torch

from sftrl_ext.training.policy_loss import turn_log_ratio, turn_ratio_loss


def config(clip=0.1):
    return SimpleNamespace(
        clip_ratio=clip, clip_ratio_low=None, clip_ratio_high=None, global_batch_info={"global_batch_size": 2}
    )


def test_ratio_is_the_product_over_the_turn():
    turn_ids = torch.tensor([[1, 1, 0, 2]])
    new = torch.tensor([[-1.0, -2, -3, -4]])
    old = torch.tensor([[-1.5, -2.25, -9, -3.0]])
    sums, last = turn_log_ratio(new, old, turn_ids)
    assert sums[0, [0, 1, 3]].tolist() == [0.75, 0.75, -1.0]
    assert last.tolist() == [[False, True, False, True]]


def test_loss_by_hand():
    # Row 0: turns with log-ratios 0.05 + 0.15 = 0.2 (A = 2) and -0.3 (A = -1); row 1: one turn, 0, A = 3.
    # e^0.2 = 1.2214 is clipped to 1.1: -2.2.  e^-0.3 = 0.7408 is clipped to 0.9: max(0.7408, 0.9) = 0.9.  -3.
    old = torch.zeros(2, 4)
    new = torch.tensor([[0.05, 0.15, 7.0, -0.3], [0.0, 0.0, 7.0, 7.0]], requires_grad=True)
    mask = torch.tensor([[1, 1, 0, 1], [1, 1, 0, 0]])
    advantages = torch.tensor([[2.0, 2, 0, -1], [3.0, 3, 0, 0]])
    loss, metrics = turn_ratio_loss(old, new, advantages, mask, "seq-mean-token-sum", config())
    assert float(loss) == pytest.approx((-2.2 + 0.9 - 3.0) / 2)
    assert metrics["actor/pg_clipfrac"] == pytest.approx(2 / 3)
    loss.backward()
    # Clipped turns give no gradient; the other gives -A r / 2 to each of its tokens, and nothing to the rest.
    assert new.grad.tolist() == [[0.0] * 4, [-1.5, -1.5, 0, 0]]


def test_gradient_reaches_every_token_of_an_unclipped_turn():
    old, mask = torch.zeros(1, 3), torch.ones(1, 3, dtype=torch.int64)
    new = torch.tensor([[0.01, 0.02, -0.01]], requires_grad=True)
    loss, _ = turn_ratio_loss(old, new, torch.ones(1, 3), mask, "seq-mean-token-sum", config())
    loss.backward()
    assert torch.allclose(new.grad, torch.full((1, 3), -math.exp(0.02) / 2))


def test_a_micro_batch_of_padding_gives_zero():
    new = torch.zeros(2, 1, requires_grad=True)
    nothing = torch.zeros(2, 1, dtype=torch.int64)
    loss, metrics = turn_ratio_loss(
        torch.zeros(2, 1), new, torch.zeros(2, 1), nothing, "seq-mean-token-sum", config()
    )
    assert float(loss) == 0.0 and all(math.isfinite(value) for value in metrics.values())


def test_the_weight_of_a_turn_is_the_product_of_its_tokens_weights():
    # Turns of row 0: weights 0.5 * 3.0 and 0.25; of row 1: 2.0 * 2.0. Weights outside of turns count nothing.
    old, mask = torch.zeros(2, 4), torch.tensor([[1, 1, 0, 1], [1, 1, 0, 0]])
    new = torch.zeros(2, 4, requires_grad=True)
    advantages = torch.tensor([[2.0, 2, 0, -1], [3.0, 3, 0, 0]])
    weights = torch.tensor([[0.5, 3.0, 7.0, 0.25], [2.0, 2.0, 0.0, 0.0]])
    loss, _ = turn_ratio_loss(
        old, new, advantages, mask, "seq-mean-token-sum", config(), rollout_is_weights=weights
    )
    assert loss.item() == pytest.approx((-2 * 1.5 + 1 * 0.25 - 3 * 4.0) / 2)
    loss.backward()
    assert new.grad.tolist() == [[-1.5, -1.5, 0, 0.125], [-6.0, -6.0, 0, 0]]

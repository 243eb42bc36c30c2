"""Turn-level credit: numbers worked by hand, agreement with token-level GAE, and gradients that are exact."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sftrl_ext.training.credit import (
    collect_turns,
    leave_one_out_advantages,
    normalize_advantages,
    reward_to_go,
    turn_gae,
    turns_of_mask,
)
from sftrl_ext.training.credit_bias import StoppingTask, expected_gradient

GAMMA, LAM = 0.9, 0.95


def test_gae_by_hand():
    # Episode 0: rewards -1, 5; values 2, 3.   delta_2 = 5 - 3 = 2               A_2 = 2
    #            delta_1 = -1 + 0.9 * 3 - 2 = -0.3    A_1 = -0.3 + 0.855 * 2 = 1.41    returns 3.41, 5
    # Episode 1: one turn that failed for good, reward -2, value 1: A = -3, return -2, whatever is next.
    rewards = torch.tensor([[-1.0, 5.0], [-2.0, 99.0]])
    values = torch.tensor([[2.0, 3.0], [1.0, 99.0]])
    alive = torch.tensor([[True, True], [True, False]])
    advantages, returns = turn_gae(rewards, values, alive, GAMMA, LAM)
    assert torch.allclose(advantages, torch.tensor([[1.41, 2.0], [-3.0, 0.0]]))
    assert torch.allclose(returns, torch.tensor([[3.41, 5.0], [-2.0, 0.0]]))


def test_tokens_to_turns_and_back_by_hand():
    # Row 0 (episode 0): turn 1 = columns 0-1, feedback, turn 2 = columns 3-5. Rewards on the turns' last
    # tokens. Row 1 (padding): no turn. Row 2 (episode 1): one turn, columns 0-2.
    turn_ids = torch.tensor([[1, 1, 0, 2, 2, 2], [0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]])
    token_rewards = torch.tensor([[0, -1.0, 7, 0, 0, 5.0], [3.0, 0, 0, 0, 0, 0], [0, 0, -2.0, 0, 0, 0]])
    values = torch.tensor([[2.0, 9, 9, 3.0, 9, 9], [9.0] * 6, [1.0, 9, 9, 9, 9, 9]])
    turns = collect_turns(turn_ids, token_rewards, [0, 2, 1], [0, 0, 0])
    assert turns.alive.tolist() == [[True, True], [True, False], [False, False]]
    assert turns.rewards.tolist() == [[-1.0, 5.0], [-2.0, 0.0], [0.0, 0.0]]
    assert turns.at_start(values).tolist() == [[2.0, 3.0], [1.0, 0.0], [0.0, 0.0]]
    assert turns.start_mask().tolist() == [[1, 0, 0, 1, 0, 0], [0] * 6, [1, 0, 0, 0, 0, 0]]
    spread = turns.to_tokens(torch.tensor([[1.41, 2.0], [-3.0, 8.0], [8.0, 8.0]]))
    assert torch.allclose(
        spread, torch.tensor([[1.41, 1.41, 0, 2, 2, 2], [0.0] * 6, [-3.0, -3, -3, 0, 0, 0]])
    )


def test_segments_of_an_episode_are_chained_in_their_order():
    turn_ids = torch.tensor([[1, 0, 2], [1, 1, 0], [1, 0, 0]])
    rewards = torch.tensor([[3.0, 0, 4.0], [0, 1.0, 0], [2.0, 0, 0]])
    turns = collect_turns(turn_ids, rewards, [0, 1, 0], [1, 0, 0])
    assert turns.rewards.tolist() == [[2.0, 3.0, 4.0], [1.0, 0.0, 0.0]]
    assert turns.row.tolist()[0] == [2, 0, 0] and turns.start.tolist()[0] == [0, 0, 2]
    assert turns.to_tokens(torch.tensor([[1.0, 2, 3], [4, 0, 0]])).tolist() == [
        [2, 0, 3],
        [4, 4, 0],
        [1, 0, 0],
    ]


def test_nothing_leaks_between_episodes():
    torch.manual_seed(0)
    turn_ids = torch.tensor([[1, 0, 2, 0, 3], [1, 0, 2, 0, 0]])
    rewards, values = torch.randn(2, 5), torch.randn(2, 5)

    def advantages_of_first(rewards, values):
        turns = collect_turns(turn_ids, rewards, [0, 1], [0, 0])
        return turn_gae(turns.rewards, turns.at_start(values), turns.alive, GAMMA, LAM)[0][0]

    before = advantages_of_first(rewards, values)
    rewards[1], values[1] = 100.0, 100.0
    assert torch.equal(before, advantages_of_first(rewards, values))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=6), st.integers(0, 10_000), st.integers(1, 3))
def test_equals_verls_token_gae_when_every_turn_is_one_token(lengths, seed, gap):
    core_algos = pytest.importorskip("verl.trainer.ppo.core_algos")
    if sum(lengths) < 2:
        return
    torch.manual_seed(seed)
    width = max(lengths) * (gap + 1)
    turn_ids = torch.zeros(len(lengths), width, dtype=torch.int64)
    for row, length in enumerate(lengths):
        for turn in range(length):
            turn_ids[row, turn * (gap + 1)] = turn + 1
    mask = (turn_ids > 0).to(torch.int64)
    rewards, values = torch.randn(mask.shape) * mask, torch.randn(mask.shape)
    stock_advantages, stock_returns = core_algos.compute_gae_advantage_return(
        rewards, values, mask, GAMMA, LAM
    )
    turns = collect_turns(turn_ids, rewards, list(range(len(lengths))), [0] * len(lengths))
    advantages, returns = turn_gae(turns.rewards, turns.at_start(values), turns.alive, GAMMA, LAM)
    ours = turns.to_tokens(normalize_advantages(advantages, turns.alive, "whiten"))
    assert torch.allclose(ours, stock_advantages * mask, atol=1e-4)
    assert torch.allclose(turns.to_tokens(returns), stock_returns * mask, atol=1e-5)


def test_longer_turns_weigh_no_more_in_the_normalization():
    short = torch.tensor([[1, 0, 2, 0]])
    long = torch.tensor([[1, 1, 1, 1, 0, 2, 0]])
    results = []
    for turn_ids in (short, long):
        rewards = torch.zeros(turn_ids.shape)
        rewards[0, 0], rewards[0, -2] = -1.0, 5.0
        turns = collect_turns(turn_ids, rewards, [0], [0])
        results.append(
            normalize_advantages(reward_to_go(turns.rewards, turns.alive, GAMMA), turns.alive, "whiten")
        )
    assert torch.equal(*results)


def test_normalization():
    alive = torch.tensor([[True, True], [True, False]])
    advantages = torch.tensor([[1.0, 2.0], [6.0, 0.0]])
    whitened = normalize_advantages(advantages, alive, "whiten")
    assert abs(float(whitened[alive].mean())) < 1e-6 and abs(float(whitened[alive].std()) - 1) < 1e-4
    assert whitened[1, 1] == 0.0
    scaled = normalize_advantages(advantages, alive, "scale")
    assert torch.allclose(scaled, advantages / (41 / 3) ** 0.5)
    assert normalize_advantages(advantages, alive, "none") is advantages
    one = torch.tensor([[3.0]])
    assert torch.equal(normalize_advantages(one, torch.tensor([[True]]), "whiten"), one)


def test_leave_one_out_by_hand():
    # Gamma 0.5. Group 0: a: 1, 4 -> to go 3, 4.   b: 2 -> 2.   c: 0, 2, 8 -> 3, 6, 8.   Group 1: d alone.
    rewards = torch.tensor([[1.0, 4, 0], [2, 0, 0], [0, 2, 8], [7, 0, 0]])
    alive = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1], [1, 0, 0]]).bool()
    group = torch.tensor([0, 0, 0, 1])
    advantages = leave_one_out_advantages(rewards, alive, group, 0.5)
    # Turn 1, with the 7 of the other group as one more: a 3 - (2 + 3 + 7) / 3, b 2 - (3 + 3 + 7) / 3,
    # c like a.   Turn 2, which the other group did not get to: a 4 - 6, c 6 - 4.
    # Turn 3: nobody else got there, so c 8 - (3 + 2) / 2.
    expected = torch.tensor([[-1.0, -2.0, 0], [-7 / 3, 0, 0], [-1.0, 2.0, 5.5], [0, 0, 0]])
    assert torch.allclose(advantages, expected)
    # Spread: returns 3, 2, 3 in group 0, and no other group with more than one. Without a: {2, 3}, variance
    # 1/4; without b: {3, 3}, nothing varies, so 1; without c like a.
    scaled = leave_one_out_advantages(rewards, alive, group, 0.5, divide_by_std=True)
    assert torch.allclose(scaled, expected / torch.tensor([[0.5], [1.0], [0.5], [1.0]]))


def test_a_turn_nobody_else_of_the_prompt_took_is_compared_with_other_prompts():
    # Each group: one solved at once (5), one failed twice, with -2 or -3 at the second turn.
    rewards = torch.tensor([[5.0, 0], [-1, -2], [-1, -3], [5, 0]])
    alive = torch.tensor([[1, 0], [1, 1], [1, 1], [1, 0]]).bool()
    advantages = leave_one_out_advantages(rewards, alive, torch.tensor([0, 0, 1, 1]), 1.0)
    assert advantages[1, 1] == -2 - -3 and advantages[2, 1] == -3 - -2


def test_spread_leans_on_the_other_prompts():
    # Groups {0, 2} and {1, 5}. For 0: the other is {2}, variance 0 from 1 episode; within-group variance
    # elsewhere is 8 on 1 degree of freedom, so (0 + 8) / (1 + 1) = 4. For 1: (0 + 2) / 2 = 1.
    # Baselines, with the mean of the other group: (2 + 3) / 2, (0 + 3) / 2, (5 + 1) / 2, (1 + 1) / 2.
    rewards = torch.tensor([[0.0], [2], [1], [5]])
    advantages = leave_one_out_advantages(
        rewards, torch.ones(4, 1).bool(), torch.tensor([0, 0, 1, 1]), 0.9, divide_by_std=True
    )
    assert torch.allclose(advantages, torch.tensor([[-2.5 / 2], [0.5 / 2], [-2.0], [4.0]]))


def test_failed_episodes_count_nowhere():
    rewards = torch.tensor([[1.0, 2], [0, 0], [3, 0]])
    alive = torch.tensor([[True, True], [False, False], [True, False]])
    group = torch.tensor([0, 0, 0])
    advantages = leave_one_out_advantages(rewards, alive, group, 1.0)
    assert advantages.tolist() == [[0.0, -1.0], [0.0, 0.0], [0.0, 0.0]]
    empty = leave_one_out_advantages(torch.zeros(2, 0), torch.zeros(2, 0).bool(), torch.tensor([0, 0]), 1.0)
    assert empty.shape == (2, 0)


def test_a_batch_without_turns():
    turns = collect_turns(torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3), [0, 1], [0, 0])
    advantages, _ = turn_gae(turns.rewards, turns.at_start(torch.ones(2, 3)), turns.alive, GAMMA, LAM)
    assert turns.to_tokens(advantages).tolist() == [[0.0] * 3] * 2
    assert turns.start_mask().sum() == 0


def test_turns_of_mask():
    mask = torch.tensor([[1, 1, 0, 1, 0, 0, 1], [0, 1, 1, 0, 0, 0, 0], [0] * 7])
    assert turns_of_mask(mask).tolist() == [[1, 1, 0, 2, 0, 0, 3], [0, 1, 1, 0, 0, 0, 0], [0] * 7]


def _exact_gradient(gamma):
    return StoppingTask(gamma=gamma).gradient()


def _direction(gradient):
    return gradient / gradient.norm()


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("size", [2, 3])
def test_leave_one_out_gradient_is_exact(size, gamma):
    estimate = expected_gradient(lambda r, a, g: leave_one_out_advantages(r, a, g, gamma), size)
    assert torch.allclose(estimate, _exact_gradient(gamma), atol=1e-12)


def test_leave_one_out_gradient_is_exact_beside_other_prompts():
    estimate = expected_gradient(lambda r, a, g: leave_one_out_advantages(r, a, g, 0.9), 4, groups=2)
    assert torch.allclose(estimate, _exact_gradient(0.9), atol=1e-12)


@pytest.mark.parametrize("size", [2, 3])
def test_leave_one_out_with_spread_keeps_the_direction(size):
    estimate = expected_gradient(
        lambda r, a, g: leave_one_out_advantages(r, a, g, 0.9, divide_by_std=True), size
    )
    assert torch.allclose(_direction(estimate), _direction(_exact_gradient(0.9)), atol=1e-12)


def _normalized_per_turn_index(rewards, alive, divide):
    """The naive form: center (and scale) rewards among the episodes that played that turn, then sum to go."""
    count = alive.sum(0).clamp(min=1)
    mean = (rewards * alive).sum(0) / count
    centered = (rewards - mean) * alive
    if divide:
        centered = centered / ((centered**2).sum(0) / count + 1e-6).sqrt()
    return reward_to_go(centered, alive, 1.0)


@pytest.mark.parametrize("divide", [False, True])
def test_the_naive_per_turn_index_form_is_biased(divide):
    exact = _exact_gradient(1.0)
    naive = expected_gradient(lambda r, a, g: _normalized_per_turn_index(r, a, divide), 3)
    cosine = float(_direction(naive) @ _direction(exact))
    assert cosine < 0.9  # even the direction is off ..
    assert bool((naive.sign() != exact.sign()).any())  # .. and a turn is pushed the wrong way


def test_the_naive_bias_is_a_hidden_price_on_going_on():
    """Without the sample itself in its mean, the bias is what the subtracted means of later turns make up."""

    def loo_reward_baseline(rewards, alive, group):
        others = alive.sum(0) - alive.double()
        mean = ((rewards * alive).sum(0) - rewards * alive) / others.clamp(min=1)
        return reward_to_go((rewards - mean) * alive, alive, 1.0)

    biased = expected_gradient(loo_reward_baseline, 3)
    assert not torch.allclose(biased, _exact_gradient(1.0), atol=1e-2)
    # Going on (lowering the stop logit) is paid less than it should be, since later turns pay on average.
    assert biased[0] > _exact_gradient(1.0)[0]


def test_a_mean_that_contains_the_sample_shrinks_late_turns_most():
    def with_itself(rewards, alive, group):
        togo = reward_to_go(rewards, alive, 1.0)
        return (togo - (togo * alive).sum(0) / alive.sum(0).clamp(min=1)) * alive

    ratio = expected_gradient(with_itself, 3) / _exact_gradient(1.0)
    assert ratio[0] == pytest.approx(2 / 3) and ratio[2] < ratio[1] < ratio[0]

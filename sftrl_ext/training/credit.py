"""Turn-level credit assignment: rewards of turns become one advantage per turn. Pure tensor functions.

One response of the model, a turn, is one action. Rewards, values and advantages live on turns, in matrices of
shape ``[episodes, turns]`` with a mask ``alive`` of the turns that were played; `Turns` carries them there
from token tensors of shape ``[rows, tokens]`` and back: every token of a turn gets its turn's advantage.

Two estimators:

* `turn_gae`: generalized advantage estimation (Schulman et al. 2016, eq. 16) with turns as time steps. An
  episode's last turn has no successor, whether it was solved or ran out of attempts: nothing is bootstrapped,
  and nothing leaks in from another episode.
* `leave_one_out_advantages`: discounted reward-to-go minus a baseline from *other* episodes, mostly of the
  same prompt (RLOO), and optionally divided by a scale from other episodes only (GRPO).

Why leave-one-out. The policy decides when an episode stops. A baseline that is summed over the turns an
episode went on to play, such as the mean reward per turn index of group-normalized process rewards, has as
many terms as the episode has turns, so it depends on the action it is a baseline for, and biases the gradient
against (or for) taking another turn. A mean that contains the episode itself shrinks turn t by (n_t - 1) /
n_t, with n_t the number of episodes that got there: less and less weight the fewer are left. The baseline
here is one number per turn, made only of other episodes, subtracted from the reward-to-go of a turn that was
reached: given the history, it is a constant, and the expected gradient is exact for any group size above one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Turns:
    """Layout of the turns of a batch. All matrices are ``[episodes, turns]``.

    Attributes:
        alive: The turns that were played; all other entries are padding.
        row: Row of the turn in the token tensors.
        start: Column of the turn's first token.
        rewards: Sum of the token rewards of the turn, 0 in padding.
        flat_index: ``[rows, tokens]``: index of the token's turn in a flattened matrix, -1 for other tokens.
    """

    alive: Tensor
    row: Tensor
    start: Tensor
    rewards: Tensor
    flat_index: Tensor

    def at_start(self, per_token: Tensor) -> Tensor:
        """Read ``[rows, tokens]`` at each turn's first token; 0 in padding.

        verl aligns a critic's values so that the one at a token was predicted before that token was seen. The
        value at a turn's first token is therefore the value of the state in which the turn begins.
        """
        return torch.where(
            self.alive, per_token[self.row, self.start], torch.zeros((), dtype=per_token.dtype)
        )

    def to_tokens(self, per_turn: Tensor) -> Tensor:
        """Broadcast a value per turn to the turn's tokens; 0 elsewhere. Returns ``[rows, tokens]``."""
        if per_turn.numel() == 0:
            return torch.zeros(self.flat_index.shape, dtype=per_turn.dtype)
        # Tokens outside turns have index -1; they read any turn, and are set to 0 after.
        per_token = per_turn.reshape(-1)[self.flat_index.clamp(min=0)]
        return torch.where(self.flat_index >= 0, per_token, torch.zeros((), dtype=per_turn.dtype))

    def start_mask(self) -> Tensor:
        """1 at each turn's first token. Returns ``[rows, tokens]`` of int64."""
        mask = torch.zeros(self.flat_index.shape, dtype=torch.int64)
        mask[self.row[self.alive], self.start[self.alive]] = 1
        return mask


def turns_of_mask(response_mask: Tensor) -> Tensor:
    """Number the runs of 1 in a mask: 1, 2, .. in each row, 0 where the mask is 0.

    For callers that have only the mask. Two adjacent turns would count as one; a chat template always writes
    a header between them.
    """
    mask = response_mask.to(torch.int64)
    # 1 at the first token of each run: the running sum numbers the runs.
    begins = mask.clone()
    begins[:, 1:] = mask[:, 1:] * (1 - mask[:, :-1])
    return begins.cumsum(dim=1) * mask


def collect_turns(
    turn_ids: Tensor, token_rewards: Tensor, episode: Sequence[int] | Tensor, segment: Sequence[int] | Tensor
) -> Turns:
    """Collect the turns of a batch and sum their rewards.

    Args:
        turn_ids: ``[rows, tokens]``: 1, 2, .. for the tokens of a row's first, second, .. turn, else 0. A row
            without any turn (padding, a failed episode) takes part in nothing.
        token_rewards: ``[rows, tokens]``; rewards outside turns are ignored.
        episode: ``[rows]``: rows with the same number are segments of one episode; 0 .. episodes - 1.
        segment: ``[rows]``: order of the rows within an episode; the turns of a later segment come later.

    Returns:
        The turns, in the order they were played.
    """
    turn_ids = turn_ids.to(torch.int64)
    rows, tokens = turn_ids.shape
    episode = torch.as_tensor(episode, dtype=torch.int64)
    segment = torch.as_tensor(segment, dtype=torch.int64)
    turns_per_row = int(turn_ids.max()) if turn_ids.numel() else 0
    columns = torch.arange(tokens).expand(rows, tokens)
    # Column 0 of the scattered matrices collects the tokens outside turns and is dropped.
    first = torch.full((rows, turns_per_row + 1), tokens, dtype=torch.int64)
    first = first.scatter_reduce(1, turn_ids, columns, reduce="amin")[:, 1:]
    sums = torch.zeros((rows, turns_per_row + 1), dtype=token_rewards.dtype).scatter_add(
        1, turn_ids, token_rewards
    )[:, 1:]
    played = first < tokens

    # Flatten the turns in the order (episode, segment, first token), then index them per episode.
    row, turn = played.nonzero(as_tuple=True)
    keys = (episode[row], segment[row], first[row, turn])
    order = torch.arange(len(row))
    # torch has no lexicographic sort: stable sorts by the last key first give the same order.
    for key in reversed(keys):
        order = order[torch.sort(key[order], stable=True).indices]
    row, turn = row[order], turn[order]
    turn_episode = episode[row]
    episodes = int(episode.max()) + 1 if len(episode) else 0
    count = torch.bincount(turn_episode, minlength=episodes)
    # Number of the turn in its episode: its index less that of the episode's first turn.
    position = torch.arange(len(row)) - (count.cumsum(0) - count)[turn_episode]
    longest = int(count.max()) if len(count) else 0

    def matrix(values: Tensor) -> Tensor:
        out = torch.zeros((episodes, longest), dtype=values.dtype)
        out[turn_episode, position] = values
        return out

    index = torch.full((rows, turns_per_row + 1), -1, dtype=torch.int64)
    index[row, turn + 1] = turn_episode * longest + position
    index[:, 0] = -1
    return Turns(
        alive=matrix(torch.ones(len(row), dtype=torch.bool)),
        row=matrix(row),
        start=matrix(first[row, turn]),
        rewards=matrix(sums[row, turn]),
        flat_index=index.gather(1, turn_ids),
    )


def turn_gae(
    rewards: Tensor, values: Tensor, alive: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation with turns as time steps.

    Args:
        rewards: ``[episodes, turns]``.
        values: ``[episodes, turns]``: the critic's value of the state in which the turn begins.
        alive: ``[episodes, turns]``: played turns, from the left without gaps.
        gamma: Discount per turn.
        lam: Trace decay per turn.

    Returns:
        Advantages and returns (``advantages + values``, the critic's targets), both 0 in padding.
    """
    live = alive.to(values.dtype)
    rewards, values = rewards.to(values.dtype) * live, values * live
    advantages = torch.zeros_like(values)
    following = torch.zeros(values.shape[0], dtype=values.dtype)
    next_value = torch.zeros_like(following)
    for turn in range(values.shape[1] - 1, -1, -1):
        # Padding has reward, value and advantage 0, so the last turn's successor is worth exactly nothing.
        delta = rewards[:, turn] + gamma * next_value - values[:, turn]
        # A_t = delta_t + gamma lambda A_(t+1).
        following = (delta + gamma * lam * following) * live[:, turn]
        next_value = values[:, turn]
        advantages[:, turn] = following
    return advantages, advantages + values


def reward_to_go(rewards: Tensor, alive: Tensor, gamma: float) -> Tensor:
    """Discounted sum of the rewards from each turn on; ``[episodes, turns]``, 0 in padding."""
    # With values 0 and lambda 1 the sum of the deltas is the discounted sum of the rewards.
    advantages, _ = turn_gae(rewards, torch.zeros_like(rewards), alive, gamma, 1.0)
    return advantages


def leave_one_out_advantages(
    rewards: Tensor, alive: Tensor, group: Tensor, gamma: float, *, divide_by_std: bool = False
) -> Tensor:
    """Reward-to-go minus a baseline made of other episodes only.

    The baseline of an episode at turn t is the mean reward-to-go at t of the other episodes of its prompt
    that reached t, shrunk towards the mean of the other prompts' episodes at t, with the weight of one
    pseudo-episode. So a turn that no other episode of its prompt reached is compared with the same turn of
    other prompts, and not with the better returns of those that had already ended well. If no other prompt's
    episode reached t, the group's mean is not shrunk; if no other episode at all did, the baseline is the
    mean reward-to-go of the group's others at their first turn. An episode alone in its group gets advantage
    0.

    Args:
        rewards: ``[episodes, turns]``.
        alive: ``[episodes, turns]``: played turns. An episode without turns (a failed one) is left out.
        group: ``[episodes]``: the same number for episodes of the same prompt.
        gamma: Discount per turn.
        divide_by_std: Divide by the standard deviation of episode returns, as GRPO does to weigh prompts
            alike. An episode's own group enters without the episode, shrunk towards the other groups with
            the weight of one pseudo-episode; so the divisor is a constant for the episode's own actions, and
            each prompt's gradient keeps its direction. If no other return varies, the divisor is 1.

    Returns:
        Advantages ``[episodes, turns]``, 0 in padding.
    """
    live = alive.to(rewards.dtype)
    returns = reward_to_go(rewards, alive, gamma)
    groups = int(group.max()) + 1 if len(group) else 0

    def group_sum(per_episode: Tensor) -> Tensor:
        out = torch.zeros((groups, *per_episode.shape[1:]), dtype=per_episode.dtype)
        return out.index_add(0, group, per_episode)

    if returns.shape[1] == 0:
        return returns
    # Of each episode's group without the episode: its size, and the mean return at the first turn.
    played, first = live[:, 0], returns[:, 0]
    others = group_sum(played)[group] - played
    others_first = (group_sum(first)[group] - first) / others.clamp(min=1)
    # Episodes of the group, and of all other groups, that reached each turn, and their returns there.
    group_count, group_returns = group_sum(live)[group], group_sum(returns)[group]
    outside_count = live.sum(dim=0) - group_count
    outside_mean = (returns.sum(dim=0) - group_returns) / outside_count.clamp(min=1)
    # The pseudo-episode: weight 1 at every turn that another prompt's episode reached.
    pseudo = (outside_count > 0).to(rewards.dtype)
    weight = group_count - live + pseudo
    others_mean = (group_returns - returns + pseudo * outside_mean) / weight.clamp(min=1)
    baseline = torch.where(weight > 0, others_mean, others_first.unsqueeze(1))
    advantages = (returns - baseline) * live * (others > 0).unsqueeze(1)
    if divide_by_std:
        advantages = advantages / _std_of_others(first, played, group, groups).unsqueeze(1)
    return advantages


def _std_of_others(returns: Tensor, counts: Tensor, group: Tensor, groups: int) -> Tensor:
    """Standard deviation of the returns of each episode's group without the episode, shrunk as above.

    Args:
        returns: ``[episodes]``, 0 for an episode without turns.
        counts: ``[episodes]``: 1, or 0 for an episode without turns.
        group: ``[episodes]``.
        groups: Number of groups.
    """

    def group_sum(values: Tensor) -> Tensor:
        return torch.zeros(groups, dtype=values.dtype).index_add(0, group, values)

    others = group_sum(counts)[group] - counts
    mean = (group_sum(returns)[group] - returns) / others.clamp(min=1)
    # Squared deviations of the others from their own mean: sum(x^2) - n mean^2.
    squares = (group_sum(returns**2)[group] - returns**2) - others * mean**2
    size, center = group_sum(counts), group_sum(returns) / group_sum(counts).clamp(min=1)
    # The prior: variance within the other groups, over their degrees of freedom.
    within = group_sum(counts * (returns - center[group]) ** 2)
    freedom = (size - 1).clamp(min=0)
    outside = freedom.sum() - freedom[group]
    prior = (within.sum() - within[group]) / outside.clamp(min=1)
    has_prior = (outside > 0).to(returns.dtype)
    # Rounding can leave a sum of squares below zero.
    variance = (squares.clamp(min=0) + prior * has_prior) / (others + has_prior).clamp(min=1)
    return torch.where(
        variance > 1e-12, variance.clamp(min=1e-12).sqrt(), torch.ones((), dtype=returns.dtype)
    )


def normalize_advantages(advantages: Tensor, alive: Tensor, method: str) -> Tensor:
    """Scale advantages to unit size over the turns of the batch; every turn counts once, however long it is.

    Args:
        advantages: ``[episodes, turns]``.
        alive: ``[episodes, turns]``.
        method: ``whiten`` (mean 0, variance 1, as PPO implementations do; the mean is a baseline that
            contains the turn itself, a bias of order 1 / turns), ``scale`` (divide by the root mean square)
            or ``none``.
    """
    if method == "none" or int(alive.sum()) < 2:
        return advantages
    played = advantages[alive]
    if method == "scale":
        return advantages / (played.square().mean() + 1e-8).sqrt()
    whitened = (advantages - played.mean()) * torch.rsqrt(played.var() + 1e-8)
    return torch.where(alive, whitened, torch.zeros((), dtype=advantages.dtype))

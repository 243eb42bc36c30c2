"""Credit over turns: which share of an episode's reward belongs to which response. Pure tensor functions.

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
    """Where the turns of a batch are. All matrices are ``[episodes, turns]``.

    Attributes:
        alive: The turns that were played; everything else in a row is padding.
        row: Row of the token tensors in which the turn is.
        start: Column of the turn's first token.
        rewards: Sum of the token rewards of the turn, 0 in padding.
        place: ``[rows, tokens]``: index of the token's turn in a flattened matrix, -1 for other tokens.
    """

    alive: Tensor
    row: Tensor
    start: Tensor
    rewards: Tensor
    place: Tensor

    def at_start(self, per_token: Tensor) -> Tensor:
        """Read ``[rows, tokens]`` at each turn's first token; 0 in padding.

        verl aligns a critic's values so that the one at a token was predicted before that token was seen. The
        value at a turn's first token is therefore the value of the state in which the turn begins.
        """
        return torch.where(
            self.alive, per_token[self.row, self.start], torch.zeros((), dtype=per_token.dtype)
        )

    def spread(self, per_turn: Tensor) -> Tensor:
        """Give every token of a turn the turn's number; 0 elsewhere. Returns ``[rows, tokens]``."""
        if per_turn.numel() == 0:
            return torch.zeros(self.place.shape, dtype=per_turn.dtype)
        spread = per_turn.reshape(-1)[self.place.clamp(min=0)]
        return torch.where(self.place >= 0, spread, torch.zeros((), dtype=per_turn.dtype))

    def start_mask(self) -> Tensor:
        """1 at each turn's first token. Returns ``[rows, tokens]`` of int64."""
        mask = torch.zeros(self.place.shape, dtype=torch.int64)
        mask[self.row[self.alive], self.start[self.alive]] = 1
        return mask


def turns_of_mask(response_mask: Tensor) -> Tensor:
    """Number the runs of 1 in a mask: 1, 2, .. in each row, 0 where the mask is 0.

    For places that know only the mask. Two turns without a token between them would count as one; a chat
    template always writes a header between them.
    """
    mask = response_mask.to(torch.int64)
    begins = mask.clone()
    begins[:, 1:] = mask[:, 1:] * (1 - mask[:, :-1])
    return begins.cumsum(dim=1) * mask


def collect_turns(
    turn_ids: Tensor, token_rewards: Tensor, episode: Sequence[int] | Tensor, segment: Sequence[int] | Tensor
) -> Turns:
    """Find the turns of a batch and sum up their rewards.

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
    most = int(turn_ids.max()) if turn_ids.numel() else 0
    columns = torch.arange(tokens).expand(rows, tokens)
    first = torch.full((rows, most + 1), tokens, dtype=torch.int64)
    first = first.scatter_reduce(1, turn_ids, columns, reduce="amin")[:, 1:]
    sums = torch.zeros((rows, most + 1), dtype=token_rewards.dtype).scatter_add(1, turn_ids, token_rewards)[
        :, 1:
    ]
    played = first < tokens

    # Flatten the turns in the order (episode, segment, first token), then index them per episode.
    row, turn = played.nonzero(as_tuple=True)
    keys = (episode[row], segment[row], first[row, turn])
    order = torch.arange(len(row))
    for key in reversed(keys):
        order = order[torch.sort(key[order], stable=True).indices]
    row, turn = row[order], turn[order]
    of = episode[row]
    episodes = int(episode.max()) + 1 if len(episode) else 0
    count = torch.bincount(of, minlength=episodes)
    position = torch.arange(len(row)) - (count.cumsum(0) - count)[of]
    longest = int(count.max()) if len(count) else 0

    def matrix(values: Tensor) -> Tensor:
        out = torch.zeros((episodes, longest), dtype=values.dtype)
        out[of, position] = values
        return out

    index = torch.full((rows, most + 1), -1, dtype=torch.int64)
    index[row, turn + 1] = of * longest + position
    index[:, 0] = -1
    return Turns(
        alive=matrix(torch.ones(len(row), dtype=torch.bool)),
        row=matrix(row),
        start=matrix(first[row, turn]),
        rewards=matrix(sums[row, turn]),
        place=index.gather(1, turn_ids),
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
        following = (delta + gamma * lam * following) * live[:, turn]
        next_value = values[:, turn]
        advantages[:, turn] = following
    return advantages, advantages + values


def reward_to_go(rewards: Tensor, alive: Tensor, gamma: float) -> Tensor:
    """Discounted sum of the rewards from each turn on; ``[episodes, turns]``, 0 in padding."""
    advantages, _ = turn_gae(rewards, torch.zeros_like(rewards), alive, gamma, 1.0)
    return advantages


def leave_one_out_advantages(
    rewards: Tensor, alive: Tensor, group: Tensor, gamma: float, *, divide_by_spread: bool = False
) -> Tensor:
    """Reward-to-go minus a baseline that only other episodes decide.

    The baseline of an episode at turn t is the mean reward-to-go at t of the other episodes of its prompt
    that got to t, drawn towards the mean of the other prompts' episodes at t as if by one more episode. So a
    turn that no other episode of its prompt got to is compared with the same turn elsewhere, and not with the
    better returns of those that had already ended well. If nobody elsewhere got to t, the group's own mean
    stands alone; if nobody at all did, the baseline is the mean reward-to-go of the others at their first
    turn. An episode without any other in its group gets advantage 0.

    Args:
        rewards: ``[episodes, turns]``.
        alive: ``[episodes, turns]``: played turns. An episode without turns (a failed one) counts nowhere.
        group: ``[episodes]``: the same number for episodes of the same prompt.
        gamma: Discount per turn.
        divide_by_spread: Divide by the spread of episode returns, as GRPO does to weigh prompts alike. The
            spread of an episode's own group is taken without the episode, drawn towards that of the other
            groups as if by one more episode; so it is a constant for the episode's own actions, and each
            prompt's gradient keeps its direction. Where nothing else varies, the divisor is 1.

    Returns:
        Advantages ``[episodes, turns]``, 0 in padding.
    """
    live = alive.to(rewards.dtype)
    togo = reward_to_go(rewards, alive, gamma)
    groups = int(group.max()) + 1 if len(group) else 0

    def total(per_episode: Tensor) -> Tensor:
        out = torch.zeros((groups, *per_episode.shape[1:]), dtype=per_episode.dtype)
        return out.index_add(0, group, per_episode)

    if togo.shape[1] == 0:
        return togo
    taken_part, first = live[:, 0], togo[:, 0]
    others = total(taken_part)[group] - taken_part
    others_first = (total(first)[group] - first) / others.clamp(min=1)
    there, sums = total(live)[group], total(togo)[group]
    elsewhere_there = live.sum(dim=0) - there
    elsewhere = (togo.sum(dim=0) - sums) / elsewhere_there.clamp(min=1)
    one_more = (elsewhere_there > 0).to(rewards.dtype)
    others_there = there - live + one_more
    others_togo = (sums - togo + one_more * elsewhere) / others_there.clamp(min=1)
    baseline = torch.where(others_there > 0, others_togo, others_first.unsqueeze(1))
    advantages = (togo - baseline) * live * (others > 0).unsqueeze(1)
    if divide_by_spread:
        advantages = advantages / _spread_of_others(first, taken_part, group, groups).unsqueeze(1)
    return advantages


def _spread_of_others(returns: Tensor, counts: Tensor, group: Tensor, groups: int) -> Tensor:
    """Standard deviation of the returns of each episode's group without the episode; see the caller."""

    def total(values: Tensor) -> Tensor:
        return torch.zeros(groups, dtype=values.dtype).index_add(0, group, values)

    others = total(counts)[group] - counts
    mean = (total(returns)[group] - returns) / others.clamp(min=1)
    squares = (total(returns**2)[group] - returns**2) - others * mean**2
    size, center = total(counts), total(returns) / total(counts).clamp(min=1)
    within = total(counts * (returns - center[group]) ** 2)
    freedom = (size - 1).clamp(min=0)
    elsewhere = freedom.sum() - freedom[group]
    prior = (within.sum() - within[group]) / elsewhere.clamp(min=1)
    known = (elsewhere > 0).to(returns.dtype)
    variance = (squares.clamp(min=0) + prior * known) / (others + known).clamp(min=1)
    return torch.where(
        variance > 1e-12, variance.clamp(min=1e-12).sqrt(), torch.ones((), dtype=returns.dtype)
    )


def normalize_advantages(advantages: Tensor, alive: Tensor, how: str) -> Tensor:
    """Bring advantages to unit size over the turns of the batch; every turn counts once, however long it is.

    Args:
        advantages: ``[episodes, turns]``.
        alive: ``[episodes, turns]``.
        how: ``whiten`` (mean 0, variance 1, as PPO implementations do; the mean is a baseline that contains
            the turn itself, a bias of order 1 / turns), ``scale`` (divide by the root mean square) or
            ``none``.
    """
    if how == "none" or int(alive.sum()) < 2:
        return advantages
    played = advantages[alive]
    if how == "scale":
        return advantages / (played.square().mean() + 1e-8).sqrt()
    whitened = (advantages - played.mean()) * torch.rsqrt(played.var() + 1e-8)
    return torch.where(alive, whitened, torch.zeros((), dtype=advantages.dtype))

"""Bias test of credit estimators: their expected policy gradient against the exact one.

Any function from rewards, played turns and groups to advantages can be tested; nothing here needs verl. The
test policy decides at every turn whether to stop or to go on, so the length of an episode is an action of the
policy, as it is where a verifier's feedback asks for another attempt. Baselines that are correct for episodes
of equal length can be biased there::

    gradients = sample_gradients(lambda *batch: leave_one_out_advantages(*batch, gamma=1.0))
    assert gradients.z_score < 4

`expected_gradient` enumerates all batches, exact but exponential in their size; `sample_gradients` is a
Monte-Carlo estimate with its standard error, for groups as large as in training.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sftrl_ext.training.credit import reward_to_go

Estimator = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``advantages = estimator(rewards, alive, group)``, as `sftrl_ext.training.credit.leave_one_out_advantages`:
all ``[episodes, turns]`` of float64 and bool, but for ``group``, ``[episodes]`` of int64."""


@dataclass(frozen=True)
class StoppingTask:
    """Task whose policy stops or goes on at each turn, with a logit of its own per turn.

    The defaults pay a late stop more than an early one, so that a biased baseline shows.

    Attributes:
        logits: Logit of stopping at each turn.
        stop_rewards: Reward of a turn that stops.
        go_rewards: Reward of a turn that goes on.
        gamma: Discount per turn of the exact gradient.
    """

    logits: Sequence[float] = (0.3, -0.4, 0.2)
    stop_rewards: Sequence[float] = (1.0, 2.0, 4.0)
    go_rewards: Sequence[float] = (0.5, 1.5, -1.0)
    gamma: float = 1.0

    def episodes(self) -> tuple[Tensor, Tensor]:
        """Every possible episode: ``stops`` and ``alive``, each ``[turns + 1, turns]`` of bool."""
        turns = len(self.logits)
        turn, last = torch.arange(turns), torch.arange(turns + 1)[:, None]
        return turn == last, turn <= last

    def probabilities(self) -> Tensor:
        """Probability of each of `episodes`."""
        stops, alive = self.episodes()
        stop = torch.tensor(self.logits, dtype=torch.float64).sigmoid()
        return torch.where(alive, torch.where(stops, stop, 1 - stop), 1.0).prod(dim=1)

    def rewards(self) -> Tensor:
        """Rewards of each of `episodes`, 0 after its end."""
        stops, alive = self.episodes()
        stopping, going = torch.tensor([self.stop_rewards, self.go_rewards], dtype=torch.float64)
        return torch.where(alive, torch.where(stops, stopping, going), 0.0)

    def scores(self) -> Tensor:
        """Derivative of each action's log-probability with respect to its turn's logit, 0 after the end."""
        stops, alive = self.episodes()
        stop = torch.tensor(self.logits, dtype=torch.float64).sigmoid()
        return torch.where(alive, torch.where(stops, 1 - stop, -stop), 0.0)

    def values(self) -> Tensor:
        """Expected discounted return from each turn on, given that it is reached: an exact critic."""
        weights = self.probabilities()[:, None] * self.episodes()[1]
        return (weights * self._returns()).sum(dim=0) / weights.sum(dim=0)

    def gradient(self) -> Tensor:
        """Expected sum of score times discounted return; with ``gamma`` 1 the gradient of the return."""
        return (self.probabilities()[:, None] * self.scores() * self._returns()).sum(dim=0)

    def _returns(self) -> Tensor:
        return reward_to_go(self.rewards(), self.episodes()[1], self.gamma)


@dataclass(frozen=True)
class GradientSamples:
    """Gradients that an estimator gave in independent batches.

    Attributes:
        samples: ``[batches, turns]``.
        exact: ``[turns]``: the exact gradient.
    """

    samples: Tensor
    exact: Tensor

    @property
    def bias(self) -> Tensor:
        """Mean over the batches minus the exact gradient; ``[turns]``."""
        return self.samples.mean(dim=0) - self.exact

    @property
    def z_score(self) -> float:
        """Largest bias of a component in standard errors."""
        return _largest_z(self.samples - self.exact)

    @property
    def direction_z_score(self) -> float:
        """`z_score` of the components orthogonal to the exact gradient, for estimators that scale it."""
        unit = self.exact / self.exact.norm()
        return _largest_z(self.samples - (self.samples @ unit)[:, None] * unit)


def expected_gradient(
    estimator: Estimator, size: int, groups: int = 1, task: StoppingTask | None = None
) -> Tensor:
    """Exact expectation of an estimator's gradient, from all batches of ``size`` episodes.

    Args:
        estimator: Estimator to test.
        size: Episodes of a batch; there are ``(turns + 1) ** size`` batches.
        groups: Groups of equal size that a batch consists of.
        task: Task; by default one of three turns.
    """
    task = task or StoppingTask()
    probabilities = task.probabilities()
    total = torch.zeros(len(task.logits), dtype=torch.float64)
    for members in itertools.product(range(len(probabilities)), repeat=size):
        chosen = torch.tensor(members)
        total += probabilities[chosen].prod() * _gradient(estimator, task, chosen, groups)
    return total


def sample_gradients(
    estimator: Estimator,
    size: int = 8,
    groups: int = 2,
    task: StoppingTask | None = None,
    *,
    batches: int = 2000,
    seed: int = 0,
) -> GradientSamples:
    """Gradients of an estimator in random batches.

    Args:
        estimator: Estimator to test.
        size: Episodes of a batch.
        groups: Groups of equal size that a batch consists of.
        task: Task; by default one of three turns.
        batches: Number of batches.
        seed: Seed of the batches.
    """
    task = task or StoppingTask()
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.multinomial(task.probabilities(), batches * size, replacement=True, generator=generator)
    samples = [_gradient(estimator, task, chosen, groups) for chosen in drawn.view(batches, size)]
    return GradientSamples(torch.stack(samples), task.gradient())


def _gradient(estimator: Estimator, task: StoppingTask, chosen: Tensor, groups: int) -> Tensor:
    """Gradient of one batch: mean over its episodes of score times advantage."""
    group = torch.arange(len(chosen)) * groups // len(chosen)
    advantages = estimator(task.rewards()[chosen], task.episodes()[1][chosen], group)
    return (task.scores()[chosen] * advantages).sum(dim=0) / len(chosen)


def _largest_z(differences: Tensor) -> float:
    error = differences.std(dim=0) / len(differences) ** 0.5
    # A component that never varies has no error but that of rounding.
    return float((differences.mean(dim=0).abs() / error.clamp(min=1e-9)).max())

"""Estimators of turn-level advantages by name, and the settings of one (config key ``sftrl.credit``).

``gae`` has a critic, ``rloo`` and ``grpo`` compare episodes of one prompt; ``token`` leaves verl's own
estimator alone. A plug-in may add to `ESTIMATORS`; `sftrl_ext.training.credit` has the tensor functions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

from torch import Tensor

from sftrl_ext.errors import Registry, SftrlError, unknown_name
from sftrl_ext.training import credit


@dataclass(frozen=True)
class PlayedTurns:
    """Turns of the episodes of an update.

    Attributes:
        rewards: ``[episodes, turns]``, 0 in padding.
        alive: ``[episodes, turns]``: played turns, from the left without gaps.
        group: ``[episodes]``: the same number for episodes of the same prompt.
        values: ``[episodes, turns]``: the critic's value of the state in which a turn begins; None without.
    """

    rewards: Tensor
    alive: Tensor
    group: Tensor
    values: Tensor | None


Estimate = Callable[[PlayedTurns, float, float], tuple[Tensor, Tensor]]
"""Maps turns, gamma and lambda to advantages and returns, ``[episodes, turns]`` and 0 in padding."""


@dataclass(frozen=True)
class Estimator:
    """An estimator of turn-level advantages.

    Attributes:
        estimate: Computes them; None leaves verl's own estimator alone.
        critic: It reads a critic's values, and its returns are the critic's targets.
        groups: It compares episodes of the same prompt, so each prompt needs at least two.
        normalize: Default normalization, one of `NORMALIZATIONS`.
    """

    estimate: Estimate | None
    critic: bool = False
    groups: bool = False
    normalize: str = "none"


def _gae(turns: PlayedTurns, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    assert turns.values is not None
    return credit.turn_gae(turns.rewards, turns.values, turns.alive, gamma, lam)


def _leave_one_out(
    turns: PlayedTurns, gamma: float, lam: float, *, divide_by_std: bool
) -> tuple[Tensor, Tensor]:
    advantages = credit.leave_one_out_advantages(
        turns.rewards, turns.alive, turns.group, gamma, divide_by_std=divide_by_std
    )
    return advantages, credit.reward_to_go(turns.rewards, turns.alive, gamma)


ESTIMATORS: Registry[Estimator] = Registry("sftrl.credit.estimator")
"""Estimators by name."""

ESTIMATORS.add("gae", Estimator(_gae, critic=True, normalize="whiten"))
ESTIMATORS.add("rloo", Estimator(partial(_leave_one_out, divide_by_std=False), groups=True))
ESTIMATORS.add("grpo", Estimator(partial(_leave_one_out, divide_by_std=True), groups=True))
ESTIMATORS.add("token", Estimator(None))

NORMALIZATIONS = ("whiten", "scale", "none")
"""See `sftrl_ext.training.credit.normalize_advantages`."""


@dataclass(frozen=True)
class CreditSettings:
    """Settings of the advantage estimator."""

    estimator: str = "gae"
    """A name of `ESTIMATORS`."""
    gamma: float = 0.9
    """Discount per turn."""
    lam: float = 0.95
    """Trace decay per turn of ``gae``."""
    normalize: str | None = None
    """One of `NORMALIZATIONS`; by default the estimator's."""

    def __post_init__(self) -> None:
        _ = self.method  # refuses an unknown name
        if self.normalize is not None and self.normalize not in NORMALIZATIONS:
            raise unknown_name("sftrl.credit.normalize", self.normalize, NORMALIZATIONS)
        for key in ("gamma", "lam"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise SftrlError(f"sftrl.credit.{key} is {value!r}, expected a number from 0 to 1.")

    @property
    def normalization(self) -> str:
        """The normalization in effect."""
        return self.normalize or ESTIMATORS[self.estimator].normalize

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any] | None) -> CreditSettings:
        """Read the settings from a config section.

        Raises:
            SftrlError: if a key or a value is not known.
        """
        names = [field.name for field in fields(cls)]
        for key in values or ():
            if key not in names:
                raise unknown_name("key under sftrl.credit", key, names)
        return cls(**dict(values or {}))

    @property
    def method(self) -> Estimator:
        """The estimator."""
        return ESTIMATORS[self.estimator]

"""Settings of turn-level credit (config key ``sftrl.credit``), and the names registered with verl."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sftrl_ext.errors import SftrlError, unknown_name

TRAINER = "sftrl_turn"
"""``trainer.v1.trainer_mode`` of our synchronous trainer."""
TRAINERS = {
    "sync": TRAINER,
    "colocate_async": f"{TRAINER}_colocate_async",
    "separate_async": f"{TRAINER}_separate_async",
}
"""verl's trainer modes, and ``trainer.v1.trainer_mode`` of our trainer on top of each."""
POLICY_LOSS = "turn_ratio"
"""``actor.policy_loss.loss_mode`` of the loss with one probability ratio per turn."""
HF_ROLLOUT = "hf"
"""``actor_rollout_ref.rollout.name`` of the transformers engine."""

ESTIMATORS = ("gae", "rloo", "grpo", "token")
"""``gae`` with a critic; ``rloo`` and ``grpo`` without; ``token`` leaves verl's own estimator alone."""

NORMALIZATIONS = ("whiten", "scale", "none")
"""See `sftrl_ext.training.credit.normalize_advantages`."""

CORRECTIONS = ("none", "token", "turn")
"""Levels of the importance weights of samples (``sftrl.rollout_correction``)."""

_DEFAULT_NORMALIZATION = {"gae": "whiten", "rloo": "none", "grpo": "none", "token": "none"}


@dataclass(frozen=True)
class CreditSettings:
    """Settings of the advantage estimator."""

    estimator: str = "gae"
    """One of `ESTIMATORS`."""
    gamma: float = 0.9
    """Discount per turn."""
    lam: float = 0.95
    """Trace decay per turn of ``gae``."""
    normalize: str | None = None
    """One of `NORMALIZATIONS`; by default ``whiten`` for ``gae`` and ``none`` for the others."""

    def __post_init__(self) -> None:
        if self.estimator not in ESTIMATORS:
            raise unknown_name("sftrl.credit.estimator", self.estimator, ESTIMATORS)
        if self.normalize is not None and self.normalize not in NORMALIZATIONS:
            raise unknown_name("sftrl.credit.normalize", self.normalize, NORMALIZATIONS)
        for key in ("gamma", "lam"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise SftrlError(f"sftrl.credit.{key} is {value!r}, expected a number from 0 to 1.")

    @property
    def normalization(self) -> str:
        """The normalization in effect."""
        return self.normalize or _DEFAULT_NORMALIZATION[self.estimator]

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

"""Settings of the training engine, passed to every training process by environment variables.

verl's config has no key for them that reaches the engine. The variable ``VERL_ENGINE_VENDOR`` selects the
engine at all: a run that freezes nothing and trains on verl's own loss uses verl's engine.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sftrl_ext.errors import Registry, SftrlError, unknown_name

VENDOR = "sftrl"
"""``VERL_ENGINE_VENDOR`` under which the engine is registered."""

FREEZABLE = ("vision", "vision_and_adapter")
"""Parts to freeze: the vision encoder, or also the adapter from its features to the language model."""

KL_COEF = 0.1
"""Default weight of the anchor."""

_FREEZE, _LOSS, _KL_COEF = "SFTRL_FREEZE", "SFTRL_SFT_LOSS", "SFTRL_KL_COEF"


@dataclass(frozen=True)
class SFTLoss:
    """A loss of SFT.

    Attributes:
        term: Maps log p(y) of the target tokens, ``[tokens]`` with gradient, to the loss of each.
        anchored: ``kl_coef`` times the divergence from the start model is added.
    """

    term: Callable[[Any], Any]
    anchored: bool = False


def _nll(log_prob: Any) -> Any:
    return -log_prob


def _dft(log_prob: Any) -> Any:
    return -log_prob.detach().exp() * log_prob


LOSSES: Registry[SFTLoss] = Registry("loss of SFT")
"""Losses of SFT; ``nll`` is verl's own. See `sftrl_ext.training.sft_losses`."""

LOSSES.add("nll", SFTLoss(_nll))
LOSSES.add("dft", SFTLoss(_dft))
LOSSES.add("kl", SFTLoss(_nll, anchored=True))
LOSSES.add("dft_kl", SFTLoss(_dft, anchored=True))


@dataclass(frozen=True)
class TrainEngineSettings:
    """Settings of one process's engine.

    Attributes:
        freeze: One of `FREEZABLE`, or None.
        loss: One of `LOSSES`; other than ``nll`` in SFT only.
        kl_coef: Weight of the anchor.
    """

    freeze: str | None = None
    loss: str = "nll"
    kl_coef: float = KL_COEF

    def __post_init__(self) -> None:
        if self.freeze is not None and self.freeze not in FREEZABLE:
            raise unknown_name("part to freeze", self.freeze, FREEZABLE)
        _ = self.anchored  # refuses an unknown loss
        if not self.kl_coef >= 0:
            raise SftrlError(f"kl_coef is {self.kl_coef!r}, expected a number from 0 up.")

    @property
    def anchored(self) -> bool:
        """True if the loss needs the start model."""
        return LOSSES[self.loss].anchored

    @classmethod
    def from_environment(cls) -> TrainEngineSettings:
        """Read the variables that `engine_env` sets."""
        return cls(
            os.environ.get(_FREEZE), os.environ.get(_LOSS, "nll"), float(os.environ.get(_KL_COEF, KL_COEF))
        )


def engine_env(freeze: str | None = None, loss: str = "nll", kl_coef: float | None = None) -> dict[str, str]:
    """Environment variables of a training stage; none if verl's engine does all.

    Args:
        freeze: One of `FREEZABLE`, or None.
        loss: One of `LOSSES`.
        kl_coef: Weight of the anchor; None for `KL_COEF`.

    Raises:
        SftrlError: if a value is unknown.
    """
    settings = TrainEngineSettings(freeze, loss, KL_COEF if kl_coef is None else kl_coef)
    env = {} if freeze is None else {_FREEZE: freeze}
    if loss != "nll":
        env[_LOSS] = loss
    if settings.anchored:
        env[_KL_COEF] = f"{settings.kl_coef:g}"
    return env and {"VERL_ENGINE_VENDOR": VENDOR, **env}

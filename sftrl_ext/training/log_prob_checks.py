"""Updates that train on the sampler's log-probabilities, and every k-th that computes the trainer's too.

verl computes the log-probabilities of every sampled token again before an update: once under the policy (the
denominator of PPO's ratio, and its entropy), and once under the start model (to log a divergence of
coefficient 0). Where sampler and trainer compute in float32, their log-probabilities agree to 1e-5 (with
images, up to the probability that a young model gives to tokens which are never sampled). There the first
pass repeats what the sampler has returned, and the second is a measurement. With ``sftrl.check_every=k`` both
passes run at updates 1, k + 1, 2k + 1, ..; the others use the sampler's numbers and log neither entropy,
mismatch nor divergence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf
from transfer_queue import KVBatchMeta

from sftrl_ext.errors import SftrlError
from sftrl_ext.training.settings import HF_ROLLOUT

_COPIED = ("actor/kl_loss", "rollout_corr/", "training/rollout_")
"""Metrics that a copied log-probability would make look perfect."""


@dataclass(frozen=True)
class LogProbChecks:
    """Which updates compute the policy's and the start model's log-probabilities.

    Attributes:
        every: Updates from one check to the next; 1 checks every update.
    """

    every: int = 1

    @classmethod
    def of_config(cls, config: DictConfig, verl_mode: str) -> LogProbChecks:
        """Read ``sftrl.check_every``.

        Args:
            config: verl's training config.
            verl_mode: verl's trainer mode.

        Raises:
            SftrlError: if updates without the passes would train on other numbers than those with them.
        """
        value = OmegaConf.select(config, "sftrl.check_every")
        if value is None:
            return cls()
        if not isinstance(value, int) or value < 1:
            raise SftrlError(f"sftrl.check_every={value!r}: expected an integer of 1 or more, or null.")
        if value > 1:
            _require_equal_numbers(config, verl_mode)
        return cls(value)

    def due(self, step: int) -> bool:
        """True if the update at ``step``, counted from 1, makes the passes."""
        return (step - 1) % self.every == 0


def _require_equal_numbers(config: DictConfig, verl_mode: str) -> None:
    required: dict[str, tuple[Callable[[Any], bool], str]] = {
        "actor_rollout_ref.rollout.name": (lambda value: value == HF_ROLLOUT, HF_ROLLOUT),
        "actor_rollout_ref.rollout.dtype": (lambda value: value == "float32", "float32"),
        "actor_rollout_ref.rollout.calculate_log_probs": (bool, "true"),
        "actor_rollout_ref.actor.kl_loss_coef": (lambda value: not value, "0"),
        "algorithm.use_kl_in_reward": (lambda value: not value, "false"),
    }
    for key, (holds, expected) in required.items():
        value = OmegaConf.select(config, key)
        if not holds(value):
            raise SftrlError(
                f"sftrl.check_every above 1 with {key}={value}: the sampler's log-probabilities would not "
                f"equal the trainer's; expected {expected}, or sftrl.check_every=1."
            )
    if verl_mode != "sync":
        raise SftrlError(
            f"sftrl.check_every above 1 with the trainer mode {verl_mode}: its samples may be of an older "
            "policy; expected sync, or sftrl.check_every=1."
        )


def copy_log_probs(batch: KVBatchMeta, source: str, target: str) -> KVBatchMeta:
    """Write one field of a batch's log-probabilities under another name."""
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=[source])
    data[target] = data.pop(source)
    tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=data)
    return batch


def drop_copied_metrics(metrics: dict[str, Any]) -> None:
    """Remove metrics that compare log-probabilities with themselves."""
    for name in [name for name in metrics if name.startswith(_COPIED)]:
        del metrics[name]

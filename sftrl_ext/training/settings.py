"""Names registered with verl, and those of importance weights."""

from __future__ import annotations

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

CORRECTIONS = ("none", "token", "turn")
"""Levels of the importance weights of samples (``sftrl.rollout_correction``)."""

"""Success or not."""

from __future__ import annotations

from sftrl_ext.envs import Step
from sftrl_ext.reward_fns.registry import Facts, register_reward


@register_reward("binary")
def binary(step: Step, facts: Facts) -> float:
    """1 for a correct response, else 0."""
    return float(step.attempt.verdict.correct)

"""A reward for naming the cards, whatever the formula: a baseline for what seeing alone contributes."""

from __future__ import annotations

from sftrl_ext.envs import Step
from sftrl_ext.reward_fns.registry import Facts, register_reward


@register_reward("recognition")
def recognition(step: Step, facts: Facts) -> float:
    """1 if the response names the cards dealt, in any order, else 0; the formula does not count."""
    return float(bool(step.attempt.verdict.details.get("recognized")))

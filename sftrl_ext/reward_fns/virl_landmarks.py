"""A reward for observing what is at a point, whatever the action: a baseline for what seeing alone does."""

from __future__ import annotations

from sftrl_ext.envs import Step
from sftrl_ext.reward_fns.registry import Facts, register_reward


@register_reward("virl_landmarks")
def virl_landmarks(step: Step, facts: Facts) -> float:
    """1 if the observation names the landmark that is there and tells an intersection, else 0.

    Where there is no landmark, naming one of the route's is wrong; the action does not count.
    """
    return float(bool(step.attempt.verdict.details.get("recognized")))

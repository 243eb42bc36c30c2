"""A reward for the form of an answer on a route, right or wrong: a baseline for what form alone does."""

from __future__ import annotations

from sftrl_ext.envs import Step
from sftrl_ext.reward_fns.registry import Facts, register_reward

KEYS = ("observation", "instruction", "action")
"""Keys an answer has."""


@register_reward("virl_format")
def virl_format(step: Step, facts: Facts) -> float:
    """1 if the response has all keys of an answer, else 0."""
    details = step.attempt.verdict.details
    return float(all(details.get(key) is not None for key in KEYS))

"""A reward for the form of the answer, right or wrong: a baseline for what form alone does."""

from __future__ import annotations

from sftrl_ext.envs import Step
from sftrl_ext.reward_fns.registry import Facts, register_reward

KEYS = ("cards", "number", "formula")
"""Keys an answer has."""


@register_reward("format_only")
def format_only(step: Step, facts: Facts) -> float:
    """1 if the response has all keys of an answer, else 0."""
    details = step.attempt.verdict.details
    return float(all(details.get(key) is not None for key in KEYS))

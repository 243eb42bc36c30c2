"""A reward for the form of the answer, right or wrong: a baseline for what form alone does."""

from __future__ import annotations

from sftrl_ext.envs import Step
from sftrl_ext.reward_fns.registry import Facts, register_reward

KEYS = ("cards", "number", "formula")
"""Keys an answer has; those of a task without cards are a part of them."""


@register_reward("format_only")
def format_only(step: Step, facts: Facts) -> float:
    """1 if the response has all keys of an answer, else 0."""
    claims = [value for key, value in step.attempt.verdict.details.items() if key in KEYS]
    return float(bool(claims) and None not in claims)

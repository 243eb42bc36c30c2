"""Reward functions: one small file each, a registry by name and data source, and verl's ``compute_score``."""

from __future__ import annotations

from sftrl_ext.reward_fns import (
    binary,
    format_only,
    outcome,
    partial_credit,
    recognition,
    virl_format,
    virl_landmarks,
    virl_outcome,
)
from sftrl_ext.reward_fns.registry import (
    REWARDS,
    Facts,
    RewardFn,
    compute_score,
    find_reward,
    register_reward,
    score_step,
    turn_reward,
)

__all__ = [
    "REWARDS",
    "Facts",
    "RewardFn",
    "binary",
    "compute_score",
    "find_reward",
    "format_only",
    "outcome",
    "partial_credit",
    "recognition",
    "register_reward",
    "score_step",
    "turn_reward",
    "virl_format",
    "virl_landmarks",
    "virl_outcome",
]

"""Reward functions: one small file each, a registry by name and data source, and verl's ``compute_score``."""

from __future__ import annotations

from sftrl_ext.reward_fns.binary import binary
from sftrl_ext.reward_fns.format_only import format_only
from sftrl_ext.reward_fns.outcome import outcome
from sftrl_ext.reward_fns.partial_credit import partial_credit
from sftrl_ext.reward_fns.registry import (
    REWARDS,
    Facts,
    RewardFn,
    compute_score,
    find_reward,
    load_reward_file,
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
    "load_reward_file",
    "outcome",
    "partial_credit",
    "register_reward",
    "score_step",
    "turn_reward",
]

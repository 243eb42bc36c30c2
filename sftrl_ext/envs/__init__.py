"""Text environments: episodes, their verifiers, and the Gymnasium environments around them.

Importing this package registers every task (`make_episode`) and every Gymnasium id (``sftrl/...``).
"""

from __future__ import annotations

import gymnasium

from sftrl_ext.envs.base import (
    IMAGE_MARKER,
    TASKS,
    Attempt,
    Episode,
    Message,
    Step,
    Verdict,
    count_markers,
    make_episode,
    parse_facts,
)
from sftrl_ext.envs.general_points.episode import GeneralPointsEpisode

GENERAL_POINTS_ID = "sftrl/GeneralPoints-v0"
"""Gymnasium id of the card game."""

if GENERAL_POINTS_ID not in gymnasium.registry:
    gymnasium.register(GENERAL_POINTS_ID, entry_point="sftrl_ext.envs.general_points.env:GeneralPointsEnv")

__all__ = [
    "GENERAL_POINTS_ID",
    "IMAGE_MARKER",
    "TASKS",
    "Attempt",
    "Episode",
    "GeneralPointsEpisode",
    "Message",
    "Step",
    "Verdict",
    "count_markers",
    "make_episode",
    "parse_facts",
]

"""Text environments: episodes, their verifiers, and the Gymnasium environments around them.

Importing this package registers every task (`make_episode`) and every Gymnasium id (``sftrl/...``).
"""

from __future__ import annotations

import gymnasium

from sftrl_ext.envs.base import (
    IMAGE_MARKER,
    Attempt,
    Episode,
    Message,
    Step,
    Verdict,
    count_markers,
    parse_facts,
)
from sftrl_ext.envs.general_points.episode import GeneralPointsEpisode
from sftrl_ext.envs.general_points.task import GENERAL_POINTS
from sftrl_ext.envs.task import TASKS, TaskSpec, make_episode, register_task
from sftrl_ext.envs.virl.episode import NavigationEpisode
from sftrl_ext.envs.virl.task import VIRL

GENERAL_POINTS_ID = "sftrl/GeneralPoints-v0"
"""Gymnasium id of the card game."""

VIRL_ID = "sftrl/VIRL-v0"
"""Gymnasium id of the walk through a city."""

for _id, _entry_point in (
    (GENERAL_POINTS_ID, "sftrl_ext.envs.general_points.env:GeneralPointsEnv"),
    (VIRL_ID, "sftrl_ext.envs.virl.env:NavigationEnv"),
):
    if _id not in gymnasium.registry:
        gymnasium.register(_id, entry_point=_entry_point)

__all__ = [
    "GENERAL_POINTS",
    "GENERAL_POINTS_ID",
    "IMAGE_MARKER",
    "TASKS",
    "VIRL",
    "VIRL_ID",
    "Attempt",
    "Episode",
    "GeneralPointsEpisode",
    "Message",
    "NavigationEpisode",
    "Step",
    "TaskSpec",
    "Verdict",
    "count_markers",
    "make_episode",
    "parse_facts",
    "register_task",
]

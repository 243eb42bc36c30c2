"""Text environments: episodes, their verifiers, and the Gymnasium environments around them.

Importing this package registers every task (`make_episode`), and every id (``sftrl/...``) with Gymnasium, as
soon as that is imported too: a process that only reads rows or plans a run needs neither it nor numpy.
"""

from __future__ import annotations

from types import ModuleType

from sftrl_ext.after_import import after_import
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
from sftrl_ext.envs.countdown.task import COUNTDOWN
from sftrl_ext.envs.general_points.task import GENERAL_POINTS
from sftrl_ext.envs.task import TASKS, TaskSpec, make_episode, register_task
from sftrl_ext.envs.virl.task import VIRL

GENERAL_POINTS_ID = "sftrl/GeneralPoints-v0"
"""Gymnasium id of the card game."""

VIRL_ID = "sftrl/VIRL-v0"
"""Gymnasium id of the walk through a city."""

_ENTRY_POINTS = {
    GENERAL_POINTS_ID: "sftrl_ext.envs.general_points.env:GeneralPointsEnv",
    VIRL_ID: "sftrl_ext.envs.virl.env:NavigationEnv",
}


def _register(gymnasium: ModuleType) -> None:
    for env_id in _ENTRY_POINTS.keys() - gymnasium.registry.keys():
        gymnasium.register(env_id, entry_point=_ENTRY_POINTS[env_id])


after_import("gymnasium", _register)

__all__ = [
    "COUNTDOWN",
    "GENERAL_POINTS",
    "GENERAL_POINTS_ID",
    "IMAGE_MARKER",
    "TASKS",
    "VIRL",
    "VIRL_ID",
    "Attempt",
    "Episode",
    "Message",
    "Step",
    "TaskSpec",
    "Verdict",
    "count_markers",
    "make_episode",
    "parse_facts",
    "register_task",
]

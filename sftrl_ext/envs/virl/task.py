"""The walk through a city as a registered task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftrl_ext.envs.base import Episode
from sftrl_ext.envs.route_view import RouteView
from sftrl_ext.envs.task import EpisodeLengths, TaskSpec, register_task
from sftrl_ext.envs.task_config import TaskConfig
from sftrl_ext.envs.virl import TASK

_POINTS = {5: 15.0, 2: 5.0}
"""Points of a route by ``routes.points_per_leg``: the paper's 2048 responses are about 128 routes; laptop
routes of two or three legs have five."""

_REACHED = {"text": 3.4, "image": 4.5}
"""Points of those five that are reached, by modality: a failed point ends the route. Of laptop runs."""


def _episode(facts: Mapping[str, Any]) -> Episode:
    from sftrl_ext.envs.virl.episode import NavigationEpisode  # composing a recipe needs no numpy

    return NavigationEpisode(facts)


def _route_view(facts: Mapping[str, Any]) -> RouteView:
    from sftrl_ext.envs.virl.route_view import route_view

    return route_view(facts)


def _lengths(config: TaskConfig) -> EpisodeLengths:
    points = _POINTS.get(config.routes.points_per_leg, 15.0)
    if config.template != "compact":
        return EpisodeLengths(480.0, 65.0, 35.0, retries=0.1, prompts=points, spread=1.7)
    if points == _POINTS[2]:
        points = _REACHED[config.modality]
    return EpisodeLengths(45.0, 15.0, 7.0, retries=0.1, prompts=points, spread=1.7)


def _image_size(config: TaskConfig) -> tuple[int, int]:
    return config.routes.image_size, config.routes.image_size


def _made_up(task: Mapping[str, Any], visual: bool) -> list[str]:
    """Keys of the cities that are synthetic, for want of a path; others count for a split of the look."""
    routes = task.get("routes")
    if not isinstance(routes, Mapping):
        return []
    keys = [] if (routes.get("home") or {}).get("path") else ["task.routes.home"]
    away = routes.get("away") or [] if visual else []
    return [*keys, *(["task.routes.away"] if any(not city.get("path") for city in away) else [])]


VIRL = register_task(
    TaskSpec(
        name=TASK,
        episode=_episode,
        rows="data_prep.route_rows:RouteRows",
        data_sources={"text": "virl_l", "image": "virl_vl"},
        titles={"virl_l": "V-IRL-L", "virl_vl": "V-IRL-VL"},
        ability="navigation",
        attempts=2,
        several_prompts=True,
        wrong_answers=(
            "",
            '{"current observation": "intersection", "action": "turn_direction(nowhere)"}',
            '{"current observation": "no intersection", "action": "turn_direction(nowhere)"}',
        ),
        compute_ratio=5.1,
        no_working="an answer names what is seen and the instruction before its action as it is",
        describe=lambda facts: "four views at each point of the route",
        lengths=_lengths,
        image_size=_image_size,
        made_up=_made_up,
        route_view=_route_view,
    )
)

"""View of a navigation episode for the report's map."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sftrl_ext.envs.route_view import RoutePoint, RouteView
from sftrl_ext.envs.virl.answer import extract_answer, normalize_action
from sftrl_ext.envs.virl.episode import NavigationEpisode
from sftrl_ext.envs.virl.geo import EARTH_M, LatLng, compass_heading, compass_word
from sftrl_ext.envs.virl.rail import FORWARD, STOP, Point
from sftrl_ext.envs.virl.verifier import landmark_name
from sftrl_ext.errors import SftrlError

_TURNS = {"left": -90.0, "right": 90.0, "slightly left": -25.0, "slightly right": 25.0}
_SIDES = {
    "right front": 45.0,
    "right behind": 135.0,
    "left behind": -135.0,
    "left front": -45.0,
    "right": 90.0,
    "left": -90.0,
    "front": 0.0,
    "ahead": 0.0,
    "behind": 180.0,
}


def route_view(facts: Mapping[str, Any]) -> RouteView:
    """Rebuild the route of an episode from its facts.

    Raises:
        SftrlError: if a fact is missing or malformed.
    """
    episode = NavigationEpisode(facts)
    points = episode.rail.points[episode.first_point :]
    positions = metres([point.geocode for point in points]).tolist()
    return RouteView(
        points=tuple(_point(point, (x, y)) for point, (x, y) in zip(points, positions, strict=True)),
        first=episode.first_point,
        index=episode.track.index,
        image=episode.settings.modality == "image",
        max_attempts=episode.settings.max_attempts,
        read_action=read_action,
        action_heading=action_heading,
    )


def metres(geocodes: Sequence[LatLng]) -> np.ndarray:
    """Points in metres east and north of the first one; shape (n, 2)."""
    points = np.asarray(geocodes, dtype=float)
    north = np.radians(points[:, 0] - points[0, 0]) * EARTH_M
    turn = (points[:, 1] - points[0, 1] + 180.0) % 360.0 - 180.0
    return np.stack([np.radians(turn) * EARTH_M * math.cos(math.radians(points[0, 0])), north], axis=1)


def read_action(response: str) -> str | None:
    """Action of a response in the rail's words; as it was written if it is none; None without one."""
    action = extract_answer(response).action
    return normalize_action(action) if action and action.strip() else None


def action_heading(action: str | None, facing: float) -> float | None:
    """Heading of an action while facing a heading, in degrees; None if it leads nowhere."""
    if action == FORWARD:
        return facing
    if action is None or action == STOP or not action.startswith("turn_direction("):
        return None
    word = action[len("turn_direction(") : -1]
    if word in _TURNS:
        return (facing + _TURNS[word]) % 360.0
    try:
        return compass_heading(word)
    except SftrlError:
        return None


def _point(point: Point, position: tuple[float, float]) -> RoutePoint:
    name, side = None, None
    if point.landmark:
        name = landmark_name(point.landmark)
        clause = point.landmark[len(name) :].lower()
        side = next((degrees for key, degrees in _SIDES.items() if key in clause), None)
    return RoutePoint(
        position=position,
        heading=point.heading,
        facing=compass_word(point.heading),
        action=point.action,
        straight=point.action == FORWARD,
        observation=point.observation,
        landmark=name,
        landmark_side=side,
    )

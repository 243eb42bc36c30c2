"""The rail: the points of one episode, and at each the action that is right and what can be observed.

At the start and at every milestone but the last a turn is right, at the last ``stop()``, and at the points
between ``forward()``. A rail is drawn anew for every episode: each point between is dropped with a
probability, and a route without an initial heading gets a random one.

The two action spaces differ in the words of a turn. Under ``absolute`` it is the compass word of the next
leg. Under ``relative`` it depends on ``d``, the next heading minus the last: below -45 left, above 45 right,
else slightly left up to 0 and slightly right above. The profile ``exact`` takes for ``d`` the shortest turn,
in (-180, 180]; ``authors`` the plain difference, so that there 350 to 10 degrees is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sftrl_ext.envs.base import is_number
from sftrl_ext.envs.virl.geo import COMPASS, LatLng, shown, turn_deg
from sftrl_ext.envs.virl.panoramas import PanoramaMap
from sftrl_ext.envs.virl.routes import NO_LANDMARK, Route
from sftrl_ext.envs.virl.track import POINTS_PER_LEG, Track, Waypoint, lay_track
from sftrl_ext.errors import SftrlError, unknown_name

RELATIVE: tuple[str, ...] = ("left", "right", "slightly left", "slightly right")
"""The words of a turn in the relative action space."""

ACTION_SPACES: dict[str, tuple[str, ...]] = {"absolute": COMPASS, "relative": RELATIVE}
"""Action space to the words of a turn."""

PROFILES: tuple[str, ...] = ("exact", "authors")
"""Ways of reading a turn, and graders."""

FORWARD, STOP = "forward()", "stop()"
"""The actions without a word."""

NO_LANDMARKS = "No landmarks nearby"
"""Observation at a point without a landmark; `authors` say `NO_LANDMARK` of a milestone without one."""

INTERSECTION_NOTE = "You stand at an intersection"
"""Addition to the observation at every milestone but the last."""

_ONE_TURN = 45.0


@dataclass(frozen=True)
class Point:
    """One point of a rail.

    Attributes:
        geocode: Where it is.
        heading: Where the traveller looks on arriving, in degrees.
        action: The action that is right.
        observation: What can be observed, as text: the landmark text and, at an intersection, a note.
        at_intersection: True if it is an intersection where a turn is due; the start is none.
        landmark_text: The landmark part of the observation.
        landmark: That text if there is a landmark, else None.
        instruction: Which instruction is being followed, counted from 0; see `Turn`.
        pano_id: The panorama taken there, if one was looked for.
    """

    geocode: LatLng
    heading: float
    action: str
    observation: str
    at_intersection: bool
    landmark_text: str = NO_LANDMARKS
    landmark: str | None = None
    instruction: int = 0
    pano_id: str | None = None


@dataclass(frozen=True)
class Turn:
    """Instructions of one leg: turn (instruction ``2 i``), then go on (``2 i + 1``).

    Attributes:
        relative: The relative word.
        absolute: The compass word.
        landmark: What is at the leg's end, as a clause; None if nothing.
        last: True if the leg ends at the destination.
    """

    relative: str
    absolute: str
    landmark: str | None
    last: bool

    def word(self, action_space: str) -> str:
        """The word of this turn in an action space."""
        return self.absolute if action_space == "absolute" else self.relative


@dataclass(frozen=True)
class Rail:
    """The points of one episode and the turns on the way."""

    points: tuple[Point, ...]
    turns: tuple[Turn, ...]


def relative_word(last: float, following: float, profile: str = "exact") -> str:
    """The relative word of a turn from one heading to another; see the module."""
    turn = following - last if profile == "authors" else turn_deg(last, following)
    if turn < -_ONE_TURN:
        return "left"
    if turn > _ONE_TURN:
        return "right"
    return "slightly right" if turn > 0 else "slightly left"


def turn_action(word: str) -> str:
    """The action of a turn."""
    return f"turn_direction({word})"


def draw_rail(
    track: Track,
    rng: np.random.Generator,
    *,
    drop_rate: float = 0.5,
    action_space: str = "absolute",
    profile: str = "exact",
    note: str = INTERSECTION_NOTE,
) -> Rail:
    """Draw the rail of one episode.

    Args:
        track: Where points may stand.
        rng: Where the randomness comes from: one number for the heading, one for each waypoint between.
        drop_rate: Probability that a point between is left out.
        action_space: "absolute" or "relative".
        profile: "exact" or "authors"; how relative words are found and observations written: under
            ``authors`` the ``; `` before the note stands there without the note too.
        note: What is observed at an intersection.

    Raises:
        SftrlError: if the action space or the profile is unknown, or the rate is no probability.
    """
    if action_space not in ACTION_SPACES:
        raise unknown_name("action space", action_space, ACTION_SPACES)
    if profile not in PROFILES:
        raise unknown_name("profile", profile, PROFILES)
    if not is_number(drop_rate) or not 0 <= drop_rate <= 1:
        raise SftrlError(f"drop_rate is {shown(drop_rate)}, expected a number from 0 to 1.")
    # Drawn even where the route has a heading, as the numbers of all waypoints are below, whatever the drop
    # rate: the randomness of a point does not depend on either.
    heading = float(rng.integers(360))
    if track.init_heading is not None:
        heading = track.init_heading
    turns: list[Turn] = []
    for number, leg in enumerate(track.legs):
        before = track.legs[number - 1].heading if number else heading
        word = relative_word(before, leg.heading, profile)
        turns.append(Turn(word, leg.compass, leg.landmark, number == len(track.legs) - 1))

    def point(
        waypoint: Waypoint, facing: float, action: str, text: str, landmark: str | None, instruction: int
    ) -> Point:
        crossing = instruction > 0 and action not in (FORWARD, STOP)
        observation = f"{text}; {note if crossing else ''}" if crossing or profile == "authors" else text
        return Point(
            waypoint.geocode,
            facing,
            action,
            observation,
            crossing,
            text,
            landmark,
            instruction,
            waypoint.pano_id,
        )

    nothing = NO_LANDMARK if profile == "authors" else NO_LANDMARKS
    actions = [turn_action(turn.word(action_space)) for turn in turns] + [STOP]
    points = [point(track.start, heading, actions[0], NO_LANDMARKS, None, 0)]
    for number, leg in enumerate(track.legs):
        ahead = 2 * number + 1  # the instruction to go on
        for waypoint, chance in zip(leg.between, rng.random(len(leg.between)), strict=True):
            if chance >= drop_rate:
                points.append(point(waypoint, leg.heading, FORWARD, NO_LANDMARKS, None, ahead))
        instruction = ahead if turns[number].last else ahead + 1
        text = leg.landmark or nothing
        points.append(point(leg.end, leg.heading, actions[number + 1], text, leg.landmark, instruction))
    return Rail(tuple(points), tuple(turns))


def build_rail(
    route: Route,
    rng: np.random.Generator,
    drop_rate: float = 0.5,
    points_per_leg: int = POINTS_PER_LEG,
    panoramas: PanoramaMap | None = None,
    profile: str = "exact",
    action_space: str = "absolute",
    missing: str = "error",
) -> list[Point]:
    """The points of one episode on a route: `lay_track`, then `draw_rail`; see there."""
    track = lay_track(route, panoramas, points_per_leg=points_per_leg, missing=missing)
    rail = draw_rail(track, rng, drop_rate=drop_rate, action_space=action_space, profile=profile)
    return list(rail.points)

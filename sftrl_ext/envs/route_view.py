"""Contract of tasks whose episodes are routes: reports draw the view on a map and list it point by point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class RoutePoint:
    """One point of a route.

    Attributes:
        position: Metres east and north of the episode's first point.
        heading: Direction the traveller faces on arriving, in degrees.
        facing: That direction as a compass word.
        action: The right action.
        straight: True if the right action is to go on straight.
        observation: The right observation.
        landmark: Name of the landmark at the point, if there is one.
        landmark_side: Side of the landmark in degrees from straight ahead; None if it is not stated.
    """

    position: tuple[float, float]
    heading: float
    facing: str
    action: str
    straight: bool
    observation: str
    landmark: str | None = None
    landmark_side: float | None = None


@dataclass(frozen=True)
class RouteView:
    """The part of a route that an episode plays.

    Attributes:
        points: Points from the episode's first on.
        first: Index of that first point in the route.
        index: Position of the route in its file.
        image: True if points are shown in pictures.
        max_attempts: Attempts at each point.
        read_action: Extracts the action of a response in the form of `RoutePoint.action`; one that it cannot
            interpret as it was written, None without any.
        action_heading: Heading of an action while facing a heading, in degrees; None if it leads nowhere.
    """

    points: tuple[RoutePoint, ...]
    first: int
    index: int
    image: bool
    max_attempts: int
    read_action: Callable[[str], str | None]
    action_heading: Callable[[str | None, float], float | None]

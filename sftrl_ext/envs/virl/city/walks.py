"""Routes through a city: random walks that never cross themselves, from a street to a landmark."""

from __future__ import annotations

import math

import numpy as np

from sftrl_ext.envs.virl.city.plan import Landmark, Plan
from sftrl_ext.envs.virl.city.streets import Edge
from sftrl_ext.envs.virl.geo import EARTH_M, LatLng, compass_word, distance_m, heading_deg, turn_deg
from sftrl_ext.envs.virl.routes import Milestone, Route
from sftrl_ext.errors import SftrlError

LEGS: dict[int, float] = {2: 0.10, 3: 0.18, 4: 0.22, 5: 0.20, 6: 0.14, 7: 0.10, 8: 0.06}
"""Number of legs of a route to its share of the routes."""

SIDES = (
    "in front of you",
    "on your right front",
    "on your right",
    "on your right behind",
    "behind you",
    "on your left behind",
    "on your left",
    "on your left front",
)
"""Sides of a landmark as seen on arrival, clockwise."""

# Walks in a row without a new route after which a city counts as used up.
_MISSES = 1000
# Metres of a degree of latitude.
_DEGREE = math.radians(1) * EARTH_M


def geocodes(plan: Plan) -> list[LatLng]:
    """Latitude and longitude of each panorama point of a city, to about a centimetre."""
    lat, lng = plan.style.origin
    # Meridians converge: a degree of longitude is shorter by the cosine of the latitude. One factor for the
    # whole city, which is small.
    shrink = math.cos(math.radians(lat))
    return [
        (round(lat + float(y) / _DEGREE, 7), round(lng + float(x) / _DEGREE / shrink, 7))
        for x, y in plan.points
    ]


def make_routes(plan: Plan, count: int, seed: int, most_legs: int = max(LEGS)) -> list[Route]:
    """Routes through a city, no two alike.

    A leg ends at the next intersection; the last one may end in the middle of a street, at a landmark.

    Args:
        plan: The city.
        count: How many routes.
        seed: The same seed gives the same routes.
        most_legs: Most legs of a route, a key of `LEGS`; those with fewer keep their shares.

    Raises:
        SftrlError: if the city is too small for so many.
    """
    maker = _Walks(plan, np.random.default_rng([seed, 51]), most_legs)
    routes: dict[tuple[int, ...], Route] = {}
    misses = 0
    while len(routes) < count and misses < _MISSES:
        walk = maker.walk()
        misses += 1
        if walk is not None and walk[0] not in routes:
            routes[walk[0]] = maker.route(len(routes), *walk)
            misses = 0
    if len(routes) == count:
        return list(routes.values())
    raise SftrlError(
        f"this city has room for about {len(routes)} routes, asked for {count}; choose more streets."
    )


class _Walks:
    def __init__(self, plan: Plan, rng: np.random.Generator, most_legs: int) -> None:
        self.plan, self.rng = plan, rng
        self.legs = {legs: share for legs, share in LEGS.items() if legs <= most_legs}
        self.places = geocodes(plan)
        self._around = {node: plan.neighbours(node) for node in range(len(plan.nodes))}
        self._corner = {mark.node: mark for mark in plan.landmarks if mark.node is not None}
        self._on_street: dict[Edge, list[Landmark]] = {}
        for mark in plan.landmarks:
            if mark.street is not None:
                self._on_street.setdefault(mark.street, []).append(mark)

    def _pick(self, weights: list[float]) -> int:
        shares = np.array(weights) / sum(weights)
        return int(self.rng.choice(len(weights), p=shares))

    def walk(self) -> tuple[tuple[int, ...], Landmark] | None:
        """The points of a start and of milestones, and the landmark at the end; None if it found none."""
        legs = list(self.legs)[self._pick(list(self.legs.values()))]
        a, b = self.plan.streets[int(self.rng.integers(len(self.plan.streets)))]
        before, node = (a, b) if self.rng.random() < 0.5 else (b, a)
        points = self._points(before, node)
        if len(points) < 4:
            return None
        # Neither an intersection nor the last point before the first one.
        path = [points[int(self.rng.integers(1, len(points) - 2))]]
        visited = {before}
        for _ in range(legs - 1):
            if len(self._around[node]) < 3:
                return None
            path.append(node)
            visited.add(node)
            free = [other for other in self._around[node] if other not in visited]
            if not free:
                return None
            after = free[self._pick([self._liking(before, node, other) for other in free])]
            before, node = node, after
        street = min(before, node), max(before, node)
        marks = self._on_street.get(street, [])
        if marks and (node not in self._corner or self.rng.random() < 0.7):
            goal = marks[int(self.rng.integers(len(marks)))]
            spots = [
                (math.dist(self.plan.points[spot], goal.position), spot)
                for spot in self.plan.along[street][1:-1]
            ]
            return (*path, min(spots)[1]), goal
        if node not in self._corner:
            return None
        return (*path, node), self._corner[node]

    def _points(self, a: int, b: int) -> list[int]:
        points = self.plan.along[min(a, b), max(a, b)]
        return list(points if a < b else points[::-1])

    def _liking(self, before: int, node: int, after: int) -> float:
        """Preference for a street after another: turns more than going straight on."""
        turn = abs(turn_deg(self._heading(before, node), self._heading(node, after)))
        return 0.15 if turn < 12 else 0.8 if turn < 46 else 1.0

    def _heading(self, a: int, b: int) -> float:
        return heading_deg(self.places[a], self.places[b])

    def route(self, index: int, path: tuple[int, ...], goal: Landmark) -> Route:
        """A route from the points of a walk."""
        milestones = []
        for before, here in zip(path, path[1:], strict=False):
            heading = float(round(self._heading(before, here)) % 360)
            mark = goal if here == path[-1] else self._corner.get(here)
            milestones.append(
                Milestone(
                    self.places[here],
                    heading,
                    compass_word(heading),
                    None if mark is None else self._clause(mark, here, heading),
                    float(round(distance_m(self.places[before], self.places[here]))),
                )
            )
        # Not 0, which stands for a random heading in a file of routes.
        facing = float(self.rng.integers(1, 360))
        return Route(index, self.places[path[0]], facing, tuple(milestones), goal.name)

    def _clause(self, mark: Landmark, here: int, heading: float) -> str:
        x, y = mark.position[0] - self.plan.points[here][0], mark.position[1] - self.plan.points[here][1]
        # Eight sectors of 45 degrees, the first one centred on straight ahead.
        turn = (math.degrees(math.atan2(x, y)) - heading) % 360
        return f"{mark.name} is {SIDES[int((turn + 22.5) // 45) % 8]}"

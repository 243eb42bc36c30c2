"""Plans: the streets of a city, the building lines along them, its lots, landmarks and panorama points.

Everything is in metres east and north of the city's origin. A street is an edge of a planar graph; the side
of a street that belongs to one block is a directed edge, and the building line lies to its left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sftrl_ext.envs.virl.city.names import invent_names
from sftrl_ext.envs.virl.city.streets import Edge, Floats, lay_streets, left_of, next_sides, panorama_points
from sftrl_ext.envs.virl.city.styles import CityStyle

STOREY = 3.3
"""Height of a floor."""

BAY = 3.0
"""About the width of a window with the wall around it."""

# About the width of a lot, and the depth of the bare side of a building, in metres.
_LOT = 13.0
_DEEP = 11.0


@dataclass(frozen=True)
class Landmark:
    """A place with a name and a sign.

    Attributes:
        name: Unique in its city.
        kind: A name of `names.KINDS`.
        position: Its coordinates in metres, east and north of the origin.
        node: The intersection at whose corner it stands; None in the middle of a street.
        street: The street it stands on, as the lower and the higher end; None at an intersection.
        building: Its building.
    """

    name: str
    kind: str
    position: tuple[float, float]
    node: int | None
    street: Edge | None
    building: int


@dataclass(frozen=True)
class Panel:
    """An upright board.

    Attributes:
        left: Its left end for somebody in front of it.
        right: Its right end.
        low: Height of its lower edge.
        high: Height of its upper edge.
        landmark: Whose name is on it.
        upright: True if it is a narrow sign that stands out from a facade, with a symbol only.
    """

    left: tuple[float, float]
    right: tuple[float, float]
    low: float
    high: float
    landmark: int
    upright: bool = False


@dataclass(frozen=True)
class Walls:
    """All walls of a city; each attribute has one row per wall.

    Attributes:
        start: Left end for somebody in the street, of shape (n, 2).
        end: Right end.
        building: Which building.
        bays: Columns of windows.
        plain: True if it has no windows.
    """

    start: Floats
    end: Floats
    building: npt.NDArray[np.int64]
    bays: npt.NDArray[np.int64]
    plain: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Buildings:
    """All buildings of a city; each attribute has one row per building.

    Attributes:
        floors: How many.
        color: An index into the walls of the style, or -1 - the index of the landmark.
        front: A number that picks a shop front.
    """

    floors: npt.NDArray[np.int64]
    color: npt.NDArray[np.int64]
    front: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Prop:
    """Something that stands on the pavement: a tree, a lamp or traffic lights."""

    kind: str
    position: tuple[float, float]
    height: float


@dataclass(frozen=True)
class Plan:
    """A city on paper.

    Attributes:
        style: Its style.
        nodes: Ends of streets, of shape (n, 2).
        streets: Pairs of nodes, the lower first.
        points: Where panoramas are, of shape (n, 2); the nodes come first, in order.
        along: For each street, its panorama points from end to end, both nodes included.
        walls: The walls.
        buildings: The buildings.
        landmarks: The landmarks.
        panels: Their signs.
        props: Trees, lamps and traffic lights.
    """

    style: CityStyle
    nodes: Floats
    streets: tuple[Edge, ...]
    points: Floats
    along: dict[Edge, tuple[int, ...]]
    walls: Walls
    buildings: Buildings
    landmarks: tuple[Landmark, ...]
    panels: tuple[Panel, ...]
    props: tuple[Prop, ...]

    def neighbours(self, node: int) -> list[int]:
        """The nodes that a street joins to one, in order."""
        return sorted({b if a == node else a for a, b in self.streets if node in (a, b)})


def make_plan(style: CityStyle, side: int, seed: int) -> Plan:
    """Lay out a city.

    Args:
        style: How.
        side: Streets across, about; at least 3.
        seed: The same seed gives the same city.
    """
    rng = np.random.default_rng([seed, 11])
    nodes, streets = lay_streets(style, side, rng)
    points, along = panorama_points(nodes, streets)
    blocks = _Blocks(style, nodes, streets, rng)
    return Plan(
        style,
        nodes,
        streets,
        points,
        along,
        blocks.walls(),
        blocks.buildings(),
        tuple(blocks.landmarks),
        tuple(blocks.panels),
        tuple(blocks.props()),
    )


class _Blocks:
    """Building lines, lots, landmarks and what stands on the pavements, one side of a street at a time."""

    def __init__(
        self, style: CityStyle, nodes: Floats, streets: tuple[Edge, ...], rng: np.random.Generator
    ) -> None:
        self.style, self.nodes, self.streets, self.rng = style, nodes, streets, rng
        self.setback = style.street / 2 + style.walk
        self.landmarks: list[Landmark] = []
        self.panels: list[Panel] = []
        self._walls: list[tuple[Floats, Floats, int, int, bool]] = []
        self._floors: list[int] = []
        self._colors: list[int] = []
        self._fronts: list[int] = []
        self._after = next_sides(nodes, streets)
        self._before = {second: first for first, second in self._after.items()}
        self._lines = {side: line for side in self._after if (line := self._line(side)) is not None}
        self._corner_building: dict[tuple[Edge, Edge], int] = {}
        self._names = iter(invent_names(rng))
        self._choose_corners()
        for side in sorted(self._lines):
            self._build(side)

    def _corner(self, first: Edge, second: Edge) -> Floats:
        """Point in which the building lines of two consecutive sides meet."""
        # The point at the distance ``setback`` from both streets: p = node + c (n1 + n2) has p . n1 = c (1 +
        # cos). Where a street turns back on itself the point runs to infinity; the bound on the cosine stops
        # it.
        normals = [left_of(self.nodes, side) for side in (first, second)]
        cos = max(float(normals[0] @ normals[1]), -0.9)
        return self.nodes[first[1]] + (normals[0] + normals[1]) * self.setback / (1 + cos)

    def _line(self, side: Edge) -> tuple[Floats, Floats] | None:
        """The building line along a side, or None where there is no room."""
        start, end = self._corner(self._before[side], side), self._corner(side, self._after[side])
        # In a narrow block the corners pass each other: the projection on the street is then negative.
        ahead = self.nodes[side[1]] - self.nodes[side[0]]
        ahead = ahead / np.hypot(*ahead)
        return (start, end) if float((end - start) @ ahead) > 8 else None

    def _new_building(self, landmark: int | None = None) -> int:
        low, high = self.style.floors
        self._floors.append(int(self.rng.integers(low, high, endpoint=True)))
        self._colors.append(
            int(self.rng.integers(len(self.style.walls))) if landmark is None else -1 - landmark
        )
        self._fronts.append(int(self.rng.integers(1000)))
        return len(self._floors) - 1

    def _new_landmark(self, point: Floats, node: int | None, street: Edge | None) -> int:
        kind, name = next(self._names)
        number = len(self.landmarks)
        building = self._new_building(number)
        self._floors[building] = min(max(3, self._floors[building]), max(3, self.style.floors[0] + 1))
        spot = float(point[0]), float(point[1])
        self.landmarks.append(Landmark(name, kind, spot, node, street, building))
        return number

    def _choose_corners(self) -> None:
        """A building for every corner; most intersections get a landmark at one of theirs."""
        corners: dict[int, list[tuple[Edge, Edge]]] = {}
        for first, second in sorted(self._after.items()):
            if first in self._lines and second in self._lines:
                corners.setdefault(first[1], []).append((first, second))
        for node, pairs in sorted(corners.items()):
            chosen = self.rng.permutation(len(pairs))[: 0 if self.rng.random() < 0.12 else 1]
            for index, (first, second) in enumerate(pairs):
                spot = self._corner(first, second)
                if index in chosen and np.hypot(*(spot - self.nodes[node])) < 3 * self.setback:
                    landmark = self._new_landmark(spot, node, None)
                    self._corner_building[first, second] = self.landmarks[landmark].building
                    self._corner_signs(landmark, first, second, spot)
                else:
                    self._corner_building[first, second] = self._new_building()

    def _corner_signs(self, landmark: int, first: Edge, second: Edge, spot: Floats) -> None:
        """A board on each front, and one across the corner that faces the intersection.

        Where the fronts meet like the walls of a room, there is no place for the third.
        """
        # The block is on the left. Sides that turn right (a negative angle) enclose the street: the fronts
        # meet like the walls of a room.
        ways = [self.nodes[side[1]] - self.nodes[side[0]] for side in (first, second)]
        turn = math.atan2(ways[0][0] * ways[1][1] - ways[0][1] * ways[1][0], float(ways[0] @ ways[1]))
        room = turn < -0.3
        for side, from_end in ((first, True), (second, False)):
            start, end = self._lines[side]
            ahead = (end - start) / np.hypot(*(end - start))
            gap = 2.0 if room else 0.4
            long = min(9.0, float(np.hypot(*(end - start))) - gap - 1)
            low = spot - ahead * (long + gap) if from_end else spot + ahead * gap
            self._board(landmark, low, low + ahead * long, left_of(self.nodes, side))
        if room:
            return
        inward = spot - self.nodes[first[1]]
        inward = inward / np.hypot(*inward)
        # To the right of somebody who looks at the corner from the intersection.
        across = np.array([inward[1], -inward[0]])
        middle, half = spot - inward * 0.9, 2.6
        self.panels.append(
            Panel(_pair(middle - across * half), _pair(middle + across * half), 4.9, 7.5, landmark)
        )

    def _board(self, landmark: int, start: Floats, end: Floats, inward: Floats) -> None:
        """A sign that lies on a front; ``start`` is where the street's traveller reaches it first."""
        out = inward * 0.15
        self.panels.append(Panel(_pair(start - out), _pair(end - out), 3.0, 4.7, landmark))

    def _build(self, side: Edge) -> None:
        """The lots along one side of a street."""
        start, end = self._lines[side]
        long = float(np.hypot(*(end - start)))
        ahead, inward = (end - start) / long, left_of(self.nodes, side)
        count = max(1, round(long / _LOT))
        # Unequal widths, scaled so that the lots fill the line exactly.
        widths = self.rng.uniform(0.75, 1.25, count)
        edges = np.concatenate([[0.0], np.cumsum(widths) / widths.sum() * long])
        numbers = [self._new_building() for _ in range(count)]
        middle = count // 2
        if count >= 3 and self.rng.random() < 0.4:
            point = start + ahead * (edges[middle] + edges[middle + 1]) / 2
            street = min(side), max(side)
            landmark = self._new_landmark(point, None, street)
            numbers[middle] = self.landmarks[landmark].building
            low, high = edges[middle] + 1, edges[middle + 1] - 1
            spare = max(0.0, (high - low - 10) / 2)
            self._board(landmark, start + ahead * (low + spare), start + ahead * (high - spare), inward)
            foot = start + ahead * (high + 0.5)
            self.panels.append(
                Panel(_pair(foot), _pair(foot - inward * 1.9), 4.0, 5.9, landmark, upright=True)
            )
        numbers[-1] = self._corner_building.get((side, self._after[side]), numbers[-1])
        if count > 1:
            numbers[0] = self._corner_building.get((self._before[side], side), numbers[0])
        for lot, number in enumerate(numbers):
            low, high = start + ahead * edges[lot], start + ahead * edges[lot + 1]
            bays = max(1, round(float(edges[lot + 1] - edges[lot]) / BAY))
            self._walls.append((low, high, number, bays, False))
            # Above a lower neighbour the bare side of a building shows: a wall square to the street.
            for at, other in ((low, lot - 1), (high, lot + 1)):
                if 0 <= other < count and self._floors[number] > self._floors[numbers[other]]:
                    self._walls.append((at, at + inward * _DEEP, number, 4, True))

    def walls(self) -> Walls:
        """The walls made so far."""
        start, end, building, bays, plain = zip(*self._walls, strict=True)
        return Walls(np.array(start), np.array(end), np.array(building), np.array(bays), np.array(plain))

    def buildings(self) -> Buildings:
        """The buildings made so far."""
        return Buildings(np.array(self._floors), np.array(self._colors), np.array(self._fronts))

    def props(self) -> list[Prop]:
        """Trees and lamps along the curbs, away from landmarks, and traffic lights at intersections."""
        props = []
        landmarks = np.array([landmark.position for landmark in self.landmarks]).reshape(-1, 2)
        curb = self.style.street / 2 + 0.7
        for side in sorted(self._lines):
            a, b = self.nodes[list(side)]
            long = float(np.hypot(*(b - a)))
            ahead, left = (b - a) / long, left_of(self.nodes, side)
            at, step = self.setback + 5, 0
            while at < long - self.setback - 5:
                spot = a + ahead * at + left * curb
                near = len(landmarks) and np.hypot(*(landmarks - spot).T).min() < 13
                kind = "lamp" if step % 3 == 1 else "tree"
                if not near and not (kind == "tree" and self.style.tree == "none"):
                    props.append(Prop(kind, _pair(spot), float(self.rng.uniform(4.6, 6.6))))
                at, step = at + float(self.rng.uniform(8, 13)), step + 1
            if sum(side[1] in street for street in self.streets) >= 3:
                spot = b - ahead * (self.setback + 0.3) + left * curb
                if not len(landmarks) or np.hypot(*(landmarks - spot).T).min() > 8:
                    props.append(Prop("lights", _pair(spot), 3.6))
        return props


def _pair(point: Floats) -> tuple[float, float]:
    return float(point[0]), float(point[1])

"""Streets: planar graphs of intersections, where panoramas stand along them, and the sides of blocks."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sftrl_ext.envs.virl.city.styles import CityStyle

Floats = npt.NDArray[np.float64]
Edge = tuple[int, int]

SPACING = 12.5
"""About how far neighbouring panoramas are from each other, in metres."""


def lay_streets(style: CityStyle, side: int, rng: np.random.Generator) -> tuple[Floats, tuple[Edge, ...]]:
    """Streets in the layout of a style, about ``side`` across.

    Returns:
        The intersections in metres, of shape (n, 2), and the streets as pairs of them, the lower first.
    """
    nodes, streets = _rings(style, side, rng) if style.layout == "rings" else _grid(style, side, rng)
    turn = math.radians(style.turn)
    spin = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    nodes = nodes @ spin
    return nodes - nodes.min(axis=0) + 60.0, streets


def _grid(style: CityStyle, side: int, rng: np.random.Generator) -> tuple[Floats, tuple[Edge, ...]]:
    """Rows and columns at unequal distances, a few streets missing and a few diagonals."""
    x, y = (np.cumsum(rng.uniform(0.75, 1.25, side)) * style.block for _ in range(2))
    nodes = np.stack([np.tile(x, side), np.repeat(y, side)], axis=1) + rng.normal(0, 2.5, (side * side, 2))
    edges = {(j * side + i, j * side + i + 1) for j in range(side) for i in range(side - 1)}
    edges |= {(j * side + i, (j + 1) * side + i) for j in range(side - 1) for i in range(side)}
    # Node j * side + i is in row j and column i. ``degree`` counts the streets of the grid only, no
    # diagonals.
    degree = np.bincount(np.array(sorted(edges)).ravel(), minlength=side * side)
    ordered = sorted(edges)
    diagonal: list[Edge] = []
    for cell in rng.permutation((side - 1) ** 2):
        j, i = divmod(int(cell), side - 1)
        low = j * side + i
        corners = (low, low + side + 1) if rng.random() < 0.5 else (low + 1, low + side)
        free = all(degree[node] == 4 for node in corners)
        if free and rng.random() < 0.3 and not {n for edge in diagonal for n in edge} & set(corners):
            diagonal.append(corners)
    # A street may go only where both ends keep three others: none becomes a dead end or a mere bend.
    for index in rng.permutation(len(ordered)):
        a, b = ordered[index]
        if (
            min(degree[a], degree[b]) >= 4
            and rng.random() < 0.2
            and not _beside_diagonal(diagonal, (a, b), side)
        ):
            edges.discard((a, b))
            degree[[a, b]] -= 1
    return nodes, tuple(sorted(edges | set(diagonal)))


def _beside_diagonal(diagonals: list[Edge], edge: Edge, side: int) -> bool:
    """True if an edge of a grid bounds a cell that has a diagonal."""
    for a, b in diagonals:
        rows, columns = sorted((a // side, b // side)), sorted((a % side, b % side))
        if all(n // side in rows and n % side in columns for n in edge):
            return True
    return False


def _rings(style: CityStyle, side: int, rng: np.random.Generator) -> tuple[Floats, tuple[Edge, ...]]:
    """Rings around a middle, joined by seven streets inside and fourteen outside."""
    rings = max(2, side // 2)
    nodes = [(0.0, 0.0)]
    edges: set[Edge] = set()
    before: list[int] = []
    for ring in range(1, rings + 1):
        count = 7 if ring == 1 else 14
        radius = style.block * (ring * 1.02 + 0.1)
        here = list(range(len(nodes), len(nodes) + count))
        for index in range(count):
            angle = 2 * math.pi * (index + rng.uniform(-0.1, 0.1)) / count
            far = radius * rng.uniform(0.94, 1.06)
            nodes.append((far * math.cos(angle), far * math.sin(angle)))
        edges |= {(min(a, b), max(a, b)) for a, b in zip(here, [*here[1:], here[0]], strict=True)}
        if ring == 1:
            edges |= {(0, node) for node in here}
        else:
            step = count // len(before)
            edges |= {(a, here[i * step]) for i, a in enumerate(before)}
        before = here
    return np.array(nodes), tuple(sorted(edges))


def panorama_points(nodes: Floats, streets: tuple[Edge, ...]) -> tuple[Floats, dict[Edge, tuple[int, ...]]]:
    """Positions of panoramas: at the nodes, in order, and along the streets.

    Returns:
        The points, and for each street the indices of its points from end to end.
    """
    points = [tuple(node) for node in nodes]
    along = {}
    for a, b in streets:
        count = max(1, round(float(np.hypot(*(nodes[b] - nodes[a]))) / SPACING))
        here = list(range(len(points), len(points) + count - 1))
        points += [tuple(nodes[a] + (nodes[b] - nodes[a]) * i / count) for i in range(1, count)]
        along[(a, b)] = (a, *here, b)
    return np.array(points), along


def left_of(nodes: Floats, side: Edge) -> Floats:
    """The direction to the left of a directed edge."""
    ahead = nodes[side[1]] - nodes[side[0]]
    ahead = ahead / np.hypot(*ahead)
    return np.array([-ahead[1], ahead[0]])


def next_sides(nodes: Floats, streets: tuple[Edge, ...]) -> dict[Edge, Edge]:
    """Each directed edge to the one that follows it around the block on its left."""
    around: dict[int, list[int]] = {}
    for a, b in streets:
        around.setdefault(a, []).append(b)
        around.setdefault(b, []).append(a)
    after = {}
    for node, others in around.items():
        away = nodes[others] - nodes[node]
        # Neighbours counter-clockwise. The one before ``other`` is the first clockwise of it: the sharpest
        # left turn for who comes from there, which keeps the block on the left.
        ordered = [others[i] for i in np.argsort(np.arctan2(away[:, 1], away[:, 0]))]
        for index, other in enumerate(ordered):
            after[other, node] = node, ordered[index - 1]
    return after

"""Arrangements: where on the canvas each card lies.

One rule gives the size of the cards: they are as large as gaps of a fiftieth of the shorter side of the
canvas around and between them allow. Up to four cards lie in one row; five or six in two rows where that
makes them larger. Four cards on 1200x1200 are 270x378, 297 pixels from left edge to left edge, the first at
x = 5: the layout of the paper's pictures, which leaves more room on the right than on the left. On any other
canvas the room beside the cards is divided in the same proportions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from sftrl_ext.envs.general_points.render.shapes import HEIGHT, WIDTH
from sftrl_ext.errors import Registry

ANGLES = (4.0, 12.0)
"""Least and greatest angle of a card of "rotated", in degrees either way."""

COVERED = (0.3, 0.6)
"""Least and greatest share of a card's width that the next card of "overlap" covers."""

_SHIFTED = 0.06

_FIRST, _BETWEEN = 5 / 24, 27 / 24
"""Room left of the first card, and between two cards, in even shares: on 1200x1200 a share is 24 pixels."""


@dataclass(frozen=True)
class Spot:
    """Position of one card.

    Attributes:
        left: Left edge in pixels, before turning.
        top: Upper edge in pixels, before turning.
        width: Width of the card in pixels.
        height: Height of the card in pixels.
        angle: Degrees it is turned about its middle, counter-clockwise.
    """

    left: int
    top: int
    width: int
    height: int
    angle: float = 0.0


@dataclass(frozen=True)
class Arrangement:
    """A way to lay out a hand.

    Attributes:
        arrange: Gives the spots for a number of cards, the width and height of the canvas, and a seed; later
            cards lie on top of earlier ones.
        apart: True if cards neither touch nor turn, which makes drawing faster.
    """

    arrange: Callable[[int, int, int, int], tuple[Spot, ...]]
    apart: bool = False


def _gap(width: int, height: int) -> int:
    return max(1, round(min(width, height) / 50))


def _rows(count: int, width: int, height: int) -> tuple[int, int]:
    """Number of rows, and width of the cards."""
    gap = _gap(width, height)
    best = (0, 0)
    for rows in (1, 2) if count > 4 else (1,):
        columns = -(-count // rows)
        # Width of a card that the width of the canvas allows, and that its height allows.
        across = (width - (columns + 1) * gap) // columns
        down = (height - (rows + 1) * gap) // rows * WIDTH // HEIGHT
        if min(across, down) > best[1]:
            best = rows, min(across, down)
    return best


@lru_cache(maxsize=256)
def row(count: int, width: int, height: int, seed: int = 0) -> tuple[Spot, ...]:
    """Upright cards in one or two rows as in the paper's pictures, centred vertically; no use of the seed."""
    return _upright(count, width, height, _FIRST, _BETWEEN)


@lru_cache(maxsize=256)
def _even_row(count: int, width: int, height: int) -> tuple[Spot, ...]:
    """The cards of `row` with equal gaps around and between them."""
    return _upright(count, width, height, 1.0, 1.0)


def _upright(count: int, width: int, height: int, first: float, between: float) -> tuple[Spot, ...]:
    """Upright cards in one or two rows; ``first`` and ``between`` are gaps in shares of even ones."""
    rows, across = _rows(count, width, height)
    down = round(across * HEIGHT / WIDTH)
    columns = -(-count // rows)
    spots = []
    for i in range(count):
        line, column = divmod(i, columns)
        in_line = min(columns, count - line * columns)
        # The free width in equal shares, one per gap; the paper's layout takes 5/24 and 27/24 of one.
        share = (width - in_line * across) / (in_line + 1)
        left = round(max(1.0, first * share) + column * (across + between * share))
        # Gaps of one pixel are too small for the paper's proportions, and stay one pixel.
        left = min(left, width - (in_line - column) * (across + 1))
        top = round((line + 1) * (height - rows * down) / (rows + 1)) + line * down
        spots.append(Spot(left, top, across, down))
    return tuple(spots)


def rotated(count: int, width: int, height: int, seed: int) -> tuple[Spot, ...]:
    """Evenly spaced cards, each turned by its own angle, and smaller so that no two can touch."""
    rng = np.random.default_rng([seed, 1])
    upright = _even_row(count, width, height)
    angles = rng.uniform(*ANGLES, count) * rng.choice((-1, 1), count)
    cos, sin = math.cos(math.radians(ANGLES[1])), math.sin(math.radians(ANGLES[1]))
    # A card turned by a has a bounding box of w cos a + h sin a by h cos a + w sin a, with h = ratio * w. At
    # the greatest angle it must fit the distance of two cards, and the height of a row.
    ratio = HEIGHT / WIDTH
    rows = len({spot.top for spot in upright})
    room = (upright[0].width + _gap(width, height)) / (cos + ratio * sin), height / rows / (ratio * cos + sin)
    across = max(1, min(upright[0].width, *map(int, room)))
    down = round(across * ratio)
    return tuple(
        Spot(
            spot.left + (spot.width - across) // 2,
            spot.top + (spot.height - down) // 2,
            across,
            down,
            round(float(angle), 3),
        )
        for spot, angle in zip(upright, angles, strict=True)
    )


def overlap(count: int, width: int, height: int, seed: int) -> tuple[Spot, ...]:
    """Cards of the size of `row`; each covers a part of the one before, but neither its rank nor its suit."""
    rng = np.random.default_rng([seed, 2])
    upright = row(count, width, height)
    spots: list[Spot] = []
    for top in sorted({spot.top for spot in upright}):
        line = [spot for spot in upright if spot.top == top]
        across, down = line[0].width, line[0].height
        # Distance from one left edge to the next: the part of a card that stays uncovered.
        steps = [round(across * (1 - covered)) for covered in rng.uniform(*COVERED, len(line) - 1)]
        free = max(0, width - across - sum(steps))
        margin = min(_gap(width, height), free // 2)
        left = int(rng.integers(margin, free - margin, endpoint=True))
        for spot, step in zip(line, [0, *steps], strict=True):
            left += step
            moved = top + round(down * float(rng.uniform(-_SHIFTED, _SHIFTED)))
            spots.append(replace(spot, left=left, top=max(0, min(height - down, moved))))
    return tuple(spots)


ARRANGEMENTS: Registry[Arrangement] = Registry("arrangement")
"""Arrangement name to arrangement: "row", the paper's; "rotated"; "overlap"."""

ARRANGEMENTS.add("row", Arrangement(row, apart=True))
ARRANGEMENTS.add("rotated", Arrangement(rotated))
ARRANGEMENTS.add("overlap", Arrangement(overlap))

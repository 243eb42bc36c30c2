"""Flat shapes on a card: curves, the pen, and the four suit symbols.

Everything is drawn in card units: a card is 250 wide and 350 high, the origin is its upper left corner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image, ImageDraw

WIDTH, HEIGHT = 250, 350
"""Size of a card in card units."""

Color = tuple[int, int, int]
Point = tuple[float, float]
Path = tuple[Point, ...]


def arc(x: float, y: float, rx: float, ry: float, start: float = 0, end: float = 360) -> Path:
    """Points of an arc about (x, y), in degrees clockwise from the right."""
    count = max(2, math.ceil(abs(end - start) / 9))
    angles = [math.radians(start + (end - start) * i / count) for i in range(count + 1)]
    return tuple((x + rx * math.cos(a), y + ry * math.sin(a)) for a in angles)


def curve(a: Point, b: Point, c: Point, d: Point, count: int = 16) -> Path:
    """Points of the cubic Bezier curve from ``a`` to ``d``."""
    path = []
    for i in range(count + 1):
        t = i / count
        weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3)
        x, y = (sum(w * p[axis] for w, p in zip(weights, (a, b, c, d), strict=True)) for axis in (0, 1))
        path.append((x, y))
    return tuple(path)


def mirrored(half: Path) -> Path:
    """A closed outline from its right half, given from top to bottom, about x = 0."""
    return half + tuple((-x, y) for x, y in reversed(half))


_LOBE = curve((0, -0.5), (0.15, -1.1), (1, -1.1), (0.96, -0.36)) + curve(
    (0.96, -0.36), (0.92, 0.15), (0.3, 0.5), (0, 1)
)
_FOOT = mirrored(curve((0.08, 0.1), (0.09, 0.65), (0.14, 0.9), (0.42, 1)))

SUIT_SHAPES: dict[str, tuple[Path, ...]] = {
    "H": (mirrored(_LOBE),),
    "D": (
        mirrored(
            curve((0, -1), (0.2, -0.6), (0.5, -0.25), (0.76, 0))
            + curve((0.76, 0), (0.5, 0.25), (0.2, 0.6), (0, 1))
        ),
    ),
    "S": (tuple((x * 0.94, 0.62 - (y + 0.86) * 0.87) for x, y in mirrored(_LOBE)), _FOOT),
    "C": (
        arc(0, -0.56, 0.44, 0.44),
        arc(-0.56, 0.22, 0.44, 0.44),
        arc(0.56, 0.22, 0.44, 0.44),
        ((-0.16, -0.3), (0.16, -0.3), (0.16, 0.35), (-0.16, 0.35)),
        _FOOT,
    ),
}
"""Suit letter to the outlines that fill its symbol, each way from about -1 to 1."""


class Pen:
    """Draws in card units on an image that the card fills.

    Args:
        image: What is drawn on.
        turned: True if everything is turned by half a turn about the middle of the card.
    """

    def __init__(self, image: Image.Image, turned: bool = False) -> None:
        self._image = image
        self._turned = turned
        self._scale_x, self._scale_y = image.width / WIDTH, image.height / HEIGHT
        self._draw = ImageDraw.Draw(image)

    def upside_down(self) -> Pen:
        """The same pen, turned by half a turn."""
        return Pen(self._image, not self._turned)

    def fill(self, outline: Sequence[Point], color: Color | int) -> None:
        """Fill a closed outline."""
        if self._turned:
            outline = [(WIDTH - x, HEIGHT - y) for x, y in outline]
        self._draw.polygon([(x * self._scale_x, y * self._scale_y) for x, y in outline], fill=color)

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        """Fill a rectangle."""
        self.fill([(left, top), (right, top), (right, bottom), (left, bottom)], color)

    def oval(self, x: float, y: float, rx: float, ry: float, color: Color) -> None:
        """Fill an ellipse about (x, y)."""
        self.fill(arc(x, y, rx, ry), color)

    def line(self, path: Sequence[Point], weight: float, color: Color) -> None:
        """Draw a line with round ends and joints."""
        half = weight / 2
        for x, y in path:
            self.oval(x, y, half, half, color)
        for (x, y), (u, v) in zip(path, path[1:], strict=False):
            length = math.hypot(u - x, v - y) or 1.0
            dx, dy = (y - v) / length * half, (u - x) / length * half
            self.fill([(x + dx, y + dy), (u + dx, v + dy), (u - dx, v - dy), (x - dx, y - dy)], color)

    def suit(self, suit: str, x: float, y: float, size: float, color: Color) -> None:
        """Draw a suit symbol ``size`` high about (x, y)."""
        for shape in SUIT_SHAPES[suit]:
            self.fill([(x + u * size / 2, y + v * size / 2) for u, v in shape], color)

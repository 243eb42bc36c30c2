"""Names of landmarks, and the kinds of places with their colours and symbols."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

from sftrl_ext.envs.virl.city.styles import Color

Pen = ImageDraw.ImageDraw
Ink = Color | int


class _Sketch:
    """Draws a symbol in the square from (0, 0) to (100, 100)."""

    def __init__(self, pen: Pen, left: float, top: float, side: float, ink: Ink, ground: Ink) -> None:
        self._pen, self._left, self._top, self._scale = pen, left, top, side / 100
        self.ink, self.ground = ink, ground

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self._left + x * self._scale, self._top + y * self._scale

    def box(self, x0: float, y0: float, x1: float, y1: float, bare: bool = False) -> None:
        self._pen.rectangle((*self._at(x0, y0), *self._at(x1, y1)), self.ground if bare else self.ink)

    def oval(self, x0: float, y0: float, x1: float, y1: float, bare: bool = False) -> None:
        self._pen.ellipse((*self._at(x0, y0), *self._at(x1, y1)), self.ground if bare else self.ink)

    def shape(self, *corners: tuple[float, float], bare: bool = False) -> None:
        self._pen.polygon([self._at(*corner) for corner in corners], self.ground if bare else self.ink)

    def line(self, *corners: tuple[float, float], weight: float = 8, bare: bool = False) -> None:
        width = max(1, round(weight * self._scale))
        ink = self.ground if bare else self.ink
        self._pen.line([self._at(*corner) for corner in corners], ink, width, "curve")


def _cup(s: _Sketch) -> None:
    s.oval(58, 38, 92, 68)
    s.oval(66, 46, 84, 60, bare=True)
    s.shape((14, 30), (72, 30), (64, 80), (22, 80))
    s.box(8, 84, 80, 92)


def _book(s: _Sketch) -> None:
    s.shape((6, 18), (46, 28), (46, 88), (6, 78))
    s.shape((94, 18), (54, 28), (54, 88), (94, 78))
    for y in (42, 58):
        s.line((14, y - 8), (38, y - 2), weight=5, bare=True)
        s.line((86, y - 8), (62, y - 2), weight=5, bare=True)


def _columns(s: _Sketch) -> None:
    s.shape((4, 36), (50, 8), (96, 36))
    for x in (14, 36, 58, 80):
        s.box(x, 42, x + 9, 78)
    s.box(4, 82, 96, 92)


def _cross(s: _Sketch) -> None:
    s.box(36, 8, 64, 92)
    s.box(8, 36, 92, 64)


def _fork(s: _Sketch) -> None:
    for x in (18, 30, 42):
        s.box(x, 8, x + 6, 40)
    s.box(18, 36, 48, 44)
    s.box(29, 44, 37, 94)
    s.oval(62, 8, 84, 50)
    s.box(69, 44, 77, 94)


def _bread(s: _Sketch) -> None:
    s.oval(4, 24, 60, 70)
    s.oval(40, 24, 96, 70)
    s.box(14, 44, 86, 84)
    for x in (30, 50, 70):
        s.line((x - 6, 72), (x + 6, 52), weight=6, bare=True)


def _bed(s: _Sketch) -> None:
    s.box(6, 24, 14, 86)
    s.box(6, 60, 94, 74)
    s.box(86, 50, 94, 86)
    s.oval(18, 40, 42, 60)
    s.box(46, 44, 90, 60)


def _mask(s: _Sketch) -> None:
    s.shape((10, 12), (90, 12), (84, 64), (50, 94), (16, 64))
    s.oval(24, 30, 44, 44, bare=True)
    s.oval(56, 30, 76, 44, bare=True)
    s.shape((28, 60), (72, 60), (50, 80), bare=True)


def _bag(s: _Sketch) -> None:
    s.oval(30, 6, 70, 56)
    s.oval(38, 14, 62, 52, bare=True)
    s.shape((14, 32), (86, 32), (92, 94), (8, 94))


def _flower(s: _Sketch) -> None:
    for turn in range(5):
        x = 50 + 22 * math.cos(turn * 1.2566 - 1.57)
        y = 38 + 22 * math.sin(turn * 1.2566 - 1.57)
        s.oval(x - 15, y - 15, x + 15, y + 15)
    s.oval(42, 30, 58, 46, bare=True)
    s.box(47, 66, 53, 96)


def _coin(s: _Sketch) -> None:
    s.oval(6, 6, 94, 94)
    s.oval(16, 16, 84, 84, bare=True)
    s.box(45, 26, 55, 74)
    s.box(34, 30, 66, 38)
    s.box(34, 62, 66, 70)


def _note(s: _Sketch) -> None:
    s.oval(8, 66, 42, 94)
    s.oval(56, 58, 90, 86)
    s.box(34, 14, 42, 80)
    s.box(82, 8, 90, 72)
    s.shape((34, 14), (90, 6), (90, 24), (34, 32))


def _wheel(s: _Sketch) -> None:
    for x in (2, 56):
        s.oval(x, 46, x + 42, 88)
        s.oval(x + 8, 54, x + 34, 80, bare=True)
    s.line((23, 67), (42, 30), (66, 30), (77, 67), weight=7)
    s.line((42, 30), (52, 67), (66, 30), weight=7)
    s.line((60, 18), (72, 18), weight=7)


def _shears(s: _Sketch) -> None:
    s.line((22, 10), (70, 70), weight=10)
    s.line((78, 10), (30, 70), weight=10)
    for x in (10, 60):
        s.oval(x, 62, x + 32, 94)
        s.oval(x + 9, 71, x + 23, 85, bare=True)


def _fish(s: _Sketch) -> None:
    s.oval(4, 26, 74, 76)
    s.shape((62, 51), (96, 24), (96, 78))
    s.oval(18, 42, 28, 52, bare=True)


def _star(s: _Sketch) -> None:
    corners = []
    for turn in range(10):
        far = 46 if turn % 2 == 0 else 19
        angle = turn * math.pi / 5 - math.pi / 2
        corners.append((50 + far * math.cos(angle), 52 + far * math.sin(angle)))
    s.shape(*corners)


@dataclass(frozen=True)
class Kind:
    """A kind of place.

    Attributes:
        color: Of its sign and of its facade.
        symbol: Draws its symbol.
        forms: Its names, with "{}" for the name of a person or a place.
    """

    color: Color
    symbol: Callable[[_Sketch], None]
    forms: tuple[str, ...]


KINDS: dict[str, Kind] = {
    "cafe": Kind((122, 70, 38), _cup, ("Cafe {}", "{} Coffee")),
    "bookshop": Kind((34, 72, 140), _book, ("{} Books", "{} Bookshop")),
    "museum": Kind((120, 34, 96), _columns, ("{} Museum", "{} Gallery")),
    "pharmacy": Kind((20, 136, 72), _cross, ("{} Pharmacy",)),
    "restaurant": Kind((186, 32, 38), _fork, ("{} Kitchen", "{} Grill", "Bistro {}")),
    "bakery": Kind((216, 132, 28), _bread, ("{} Bakery", "{} Bread")),
    "hotel": Kind((36, 44, 96), _bed, ("Hotel {}", "{} Inn")),
    "theatre": Kind((150, 20, 60), _mask, ("{} Theatre", "{} Playhouse")),
    "market": Kind((0, 122, 128), _bag, ("{} Market", "{} Stores")),
    "florist": Kind((206, 64, 134), _flower, ("{} Flowers",)),
    "bank": Kind((40, 84, 84), _coin, ("{} Bank",)),
    "music": Kind((100, 60, 168), _note, ("{} Music", "{} Records")),
    "bicycles": Kind((30, 140, 190), _wheel, ("{} Cycles",)),
    "barber": Kind((70, 76, 88), _shears, ("{} Barber", "{} Tailor")),
    "fishmonger": Kind((16, 96, 168), _fish, ("{} Seafood",)),
    "cinema": Kind((226, 96, 20), _star, ("{} Cinema", "{} Studio")),
}
"""Kind of place to its look and its names."""

_FIRST = (
    "Al An Bel Bran Cor Dal El Fen Gar Hol Is Jun Kel Lor Mar Nol Or Pel Quin Ros San Tin Ul Var Wen Yar Zel"
)
_LAST = "a by den do er field ford ia ker la lo mont na o ra rin ro ston ta ton va vale wick wood"


def invent_names(rng: np.random.Generator) -> list[tuple[str, str]]:
    """Kinds and names of all landmarks that a city can have, no name part used twice, in random order."""
    words = sorted({first + last for first in _FIRST.split() for last in _LAST.split()})
    kinds = list(KINDS)
    found = []
    for place, index in enumerate(rng.permutation(len(words))):
        if place % len(kinds) == 0:
            order = rng.permutation(len(kinds))
        kind = kinds[order[place % len(kinds)]]
        forms = KINDS[kind].forms
        found.append((kind, forms[int(rng.integers(len(forms)))].format(words[index])))
    return found


def draw_symbol(pen: Pen, kind: str, left: float, top: float, side: float, ink: Ink, ground: Ink) -> None:
    """Draw the symbol of a kind in a square."""
    KINDS[kind].symbol(_Sketch(pen, left, top, side, ink, ground))

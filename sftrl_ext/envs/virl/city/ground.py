"""The ground around a point, seen from above at several scales."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from sftrl_ext.envs.virl.city.plan import Plan
from sftrl_ext.envs.virl.city.streets import Edge
from sftrl_ext.envs.virl.city.styles import Color
from sftrl_ext.envs.virl.city.textures import Packed

REACHES = (9.0, 24.0, 64.0, 200.0)
"""Half the sides of the maps, in metres."""

Vector = npt.NDArray[np.float64]

# Strips of all maps, of all but the coarsest, and of the coarsest only: what is narrower than its pixels is
# drawn there as one strip in the mean colour.
_ALL, _FINE, _COARSE = 0, 1, 2


@dataclass(frozen=True)
class Map:
    """A square of the ground, north up.

    Attributes:
        packed: Its pixels, flat.
        side: Its side in pixels.
        fine: Pixels per metre.
        reach: Half its side in metres.
    """

    packed: Packed
    side: int
    fine: float
    reach: float


class Ground:
    """Draws the streets of a city from above.

    Args:
        plan: The city.
        side: Side of the maps in pixels.
        seed: The seed of the city.
    """

    def __init__(self, plan: Plan, side: int, seed: int) -> None:
        self._plan, self._side = plan, side
        rng = np.random.default_rng([seed, 41])
        self._grain = np.repeat(rng.normal(0, 5, (side, side, 1)).astype(np.int16), 3, axis=2)
        style = plan.style
        self._pavement = _dim(style.pavement, style.day)
        self._strips: list[tuple[Vector, Color, int]] = []
        self._lay()
        self._corners = np.array([corners for corners, _, _ in self._strips])
        self._middles = self._corners.mean(axis=1)
        self._radii = np.hypot(*(self._corners - self._middles[:, None]).transpose(2, 0, 1)).max(axis=1)
        self._details = np.array([detail for _, _, detail in self._strips])

    def around(self, position: tuple[float, float]) -> tuple[Map, ...]:
        """The maps around a position, the finest first."""
        return tuple(self._map(np.array(position), reach) for reach in REACHES)

    def _map(self, position: Vector, reach: float) -> Map:
        side = self._side
        fine = side / (2 * reach)
        image = Image.new("RGB", (side, side), self._pavement)
        pen = ImageDraw.Draw(image)
        coarse = reach == REACHES[-1]
        # Strips whose circumscribed circle may reach into the square.
        seen = np.abs(self._middles - position).max(axis=1) < reach + self._radii
        seen &= self._details != (_FINE if coarse else _COARSE)
        chosen = np.nonzero(seen)[0]
        # Metres to pixels: north up, and Pillow counts from the centre of the first pixel.
        corners = (self._corners[chosen] - position) * (fine, -fine) + (side / 2 - 0.5)
        for strip, outline in zip(chosen.tolist(), corners.reshape(len(chosen), -1).tolist(), strict=True):
            pen.polygon(outline, self._strips[strip][1])
        pixels = np.asarray(image)
        if not coarse:
            pixels = np.clip(pixels + self._grain, 0, 255).astype(np.uint8)
        packed = np.full((side, side, 4), 255, np.uint8)
        packed[..., :3] = pixels
        return Map(packed.view(np.uint32).reshape(-1), side, fine, reach)

    def _lay(self) -> None:
        """Everything that is drawn, in order."""
        plan, style = self._plan, self._plan.style
        for street in plan.streets:
            self._slabs(street)
        curb, road = _dim(style.pavement, style.day * 0.8), _dim(style.asphalt, style.day)
        # Later strips cover earlier ones: slabs, then curbs, then roads, then marks. A disc at each node
        # closes the gaps between the strips that meet there.
        turns = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        for wide, color in ((style.street + 0.5, curb), (style.street, road)):
            for a, b in plan.streets:
                self._strip(plan.nodes[a], plan.nodes[b], wide, color)
            for node in plan.nodes:
                rim = node + np.stack([np.cos(turns), np.sin(turns)], axis=1) * wide / 2
                self._strips.append((rim, color, _ALL))
        for street in plan.streets:
            self._marks(street)

    def _strip(self, a: Vector, b: Vector, wide: float, color: Color, detail: int = _ALL) -> None:
        along = b - a
        side = np.array([-along[1], along[0]]) / (np.hypot(*along) or 1.0) * wide / 2
        corners = np.array([a + side, b + side, b - side, a - side])
        # As many corners as the discs have, so that all strips fit in one array.
        self._strips.append((np.concatenate([corners, np.repeat(corners[3:], 12, axis=0)]), color, detail))

    def _slabs(self, street: Edge) -> None:
        """Joints between the slabs of the pavements."""
        style = self._plan.style
        joint = _dim(style.pavement, style.day * 0.88)
        a, b, ahead, left, long = self._frame(street)
        for at in np.arange(0, long, 1.5):
            for turn in (left, -left):
                foot = a + ahead * at + turn * style.street / 2
                self._strip(foot, foot + turn * style.walk, 0.06, joint, _FINE)
        for far in (left, -left):
            middle = far * (style.street + style.walk) / 2
            self._strip(a + middle, b + middle, 0.06, joint, _FINE)

    def _marks(self, street: Edge) -> None:
        """The dashed middle line of a street and its crossings."""
        style = self._plan.style
        line, white = _dim(style.marking, style.day), _dim((232, 232, 226), style.day)
        road = _dim(style.asphalt, style.day)
        a, b, ahead, left, long = self._frame(street)
        clear = style.street / 2 + style.walk
        at = clear + 5
        self._strip(a + ahead * at, b - ahead * at, 0.15, _mean(line, road), _COARSE)
        while at + 2.5 < long - clear - 5:
            self._strip(a + ahead * at, a + ahead * (at + 2.5), 0.18, line, _FINE)
            at += 5
        for foot, way in ((a, ahead), (b, -ahead)):
            middle = foot + way * (clear + 0.9)
            across = left * style.street / 2
            self._strip(middle - across, middle + across, 3.0, _mean(white, road), _COARSE)
            stripes = int(style.street / 1.1)
            for stripe in range(stripes):
                spot = middle + left * (stripe - (stripes - 1) / 2) * 1.1
                self._strip(spot - way * 1.5, spot + way * 1.5, 0.55, white, _FINE)
            stop = middle + way * 2.6
            # ``way`` leads away from the intersection, so its left is the right-hand lane of those who come
            # to it.
            right = np.array([-way[1], way[0]]) * style.street / 2
            self._strip(stop, stop + right * 0.96, 0.4, white)

    def _frame(self, street: Edge) -> tuple[Vector, Vector, Vector, Vector, float]:
        """Both ends of a street, its direction, the direction to its left, and its length."""
        a, b = (self._plan.nodes[node] for node in street)
        long = float(np.hypot(*(b - a)))
        ahead = (b - a) / long
        return a, b, ahead, np.array([-ahead[1], ahead[0]]), long


def _mean(a: Color, b: Color) -> Color:
    red, green, blue = ((p + q) // 2 for p, q in zip(a, b, strict=True))
    return red, green, blue


def _dim(color: Color, part: float) -> Color:
    red, green, blue = (min(255, round(value * part)) for value in color)
    return red, green, blue

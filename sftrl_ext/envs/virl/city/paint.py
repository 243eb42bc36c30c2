"""Panoramas: the whole sphere around a point of a city, by casting a ray per column and shading each pixel.

Pictures are made with the columns as rows of the array, so that what lies on one ray is together in memory.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from sftrl_ext.envs.cache import ByteCache
from sftrl_ext.envs.virl.city import ground
from sftrl_ext.envs.virl.city.names import KINDS
from sftrl_ext.envs.virl.city.plan import STOREY, Panel, Plan
from sftrl_ext.envs.virl.city.sky import paint_sky
from sftrl_ext.envs.virl.city.textures import (
    FRONT,
    LEVELS,
    PLAIN,
    SIDE,
    TOP,
    UPPER,
    Packed,
    Texture,
    board,
    emblem,
    facade_tiles,
    prop_texture,
)
from sftrl_ext.envs.virl.street_view import mix_pixels

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

CAMERA = 2.4
"""Height of the camera in metres."""

FAR = 330.0
"""Greatest distance of a drawn wall, in metres."""

SIDES_FAR = 150.0
"""Greatest distance of a drawn side of a building above its neighbour, in metres."""

SIGNS_FAR = 120.0
"""Greatest distance of a drawn sign, in metres."""

PROPS_FAR = 70.0
"""Greatest distance of a drawn tree, lamp or traffic light, in metres."""

# Nearest walls kept per ray: a fifth one that rises above them is not drawn.
_LAYERS = 4
_COLUMNS = 128


class Painter:
    """Paints the panoramas of one city at one size.

    Args:
        plan: The city.
        size: Width and height of the panoramas.
        seed: The seed of the city.
    """

    def __init__(self, plan: Plan, size: tuple[int, int], seed: int) -> None:
        self.plan, self.size, self._seed = plan, size, seed
        width, height = size
        # Equirectangular: the elevation of each row's centre, from the zenith to the nadir. Its tangent is
        # the slope of the ray, so a ray at a distance d is at the height CAMERA + d * tan.
        rows = (0.5 - (np.arange(height) + 0.5) / height) * math.pi
        self._tan = np.tan(rows).astype(np.float32)
        self._sky = paint_sky(plan.style, width, height, seed)
        self._tiles = facade_tiles(plan.style, seed)
        self._ground = ground.Ground(plan, max(256, width // 3), seed)
        self._signs: ByteCache[Texture] = ByteCache(64 << 20, lambda texture: texture.packed.nbytes)
        self._props = {kind: prop_texture(kind, plan.style, seed) for kind in ("tree", "lamp", "lights")}
        # Props come first, then panels: a number below len(plan.props) is a prop in `_paint_boards`. A prop
        # is half as wide as high and has no direction: its ends are one point until it is turned to the
        # camera.
        spots = [prop.position for prop in plan.props]
        self._lefts = np.array([*spots, *(panel.left for panel in plan.panels)]).reshape(-1, 2)
        self._rights = np.array([*spots, *(panel.right for panel in plan.panels)]).reshape(-1, 2)
        self._halves = np.array([prop.height / 4 for prop in plan.props])
        self._haze = np.array(plan.style.sky[1], np.float32)
        style = plan.style
        # The building of landmark k has the colour index -1 - k, which counts from the end: hence the
        # reversal.
        kinds = [KINDS[landmark.kind].color for landmark in plan.landmarks][::-1]
        tinted = np.array(kinds, np.float32).reshape(-1, 3) * 0.8 + np.mean(style.walls, axis=0) * 0.2
        self._colors = np.concatenate([style.walls, tinted * style.famous]).astype(np.float32)

    def paint(self, point: tuple[float, float], rotation: float) -> Image.Image:
        """Paint the panorama at a point.

        Args:
            point: Metres east and north.
            rotation: Degrees from the first column to north.
        """
        width, height = self.size
        # Bearings of the columns' centres, clockwise from north; so x (east) is the sine and y (north) the
        # cosine.
        angle = np.radians((np.arange(width) + 0.5) / width * 360 - rotation)
        self._x, self._y = np.sin(angle).astype(np.float32), np.cos(angle).astype(np.float32)
        self._position, self._rotation = point, rotation
        canvas = np.empty((width, height, 4), np.uint8)
        half = height // 2
        # The sky was painted with north in the first column; here north is at `rotation`.
        canvas[:, :half] = np.roll(self._sky, round(rotation / 360 * width), axis=0)
        self._paint_ground(canvas, half)
        depth = self._paint_walls(canvas)
        self._paint_boards(canvas, depth)
        image = Image.frombuffer("RGBX", (height, width), canvas, "raw", "RGBX", 0, 1).convert("RGB")
        return image.transpose(Image.Transpose.TRANSPOSE)

    def _row(self, slope: Floats) -> Ints:
        """The first row below a slope."""
        height = self.size[1]
        return np.ceil((0.5 - np.arctan(slope) / math.pi) * height - 0.5).astype(np.int64)

    def _paint_ground(self, canvas: npt.NDArray[np.uint8], half: int) -> None:
        # A row sees the ground at one distance, so each row takes one level of detail.
        away = CAMERA / -self._tan[half:]
        levels = self._ground.around(self._position)
        level = np.searchsorted([level_map.reach for level_map in levels[:-1]], away * 1.42)
        for number, level_map in enumerate(levels):
            rows = np.nonzero(level == number)[0]
            if not len(rows):
                continue
            part = slice(half + rows[0], half + rows[-1] + 1)
            # Rows just below the horizon look beyond the last map: they take the ground at its rim.
            far = np.minimum(away[rows[0] : rows[-1] + 1], level_map.reach * 0.99)[None]
            u = self._x[:, None] * far * level_map.fine + level_map.side / 2
            v = self._y[:, None] * far * -level_map.fine + level_map.side / 2
            color = _sample(level_map.packed, 0, level_map.side, level_map.side, u.ravel(), v.ravel())
            canvas[:, part] = color.view(np.uint8).reshape(len(self._x), -1, 4)
        # Below these rows (11 degrees under the horizon) the ground is nearer than 12 m, with less than 3 %
        # of fog.
        fog = _fog(away[: self.size[1] // 16])[None, :, None]
        near = canvas[:, half : half + fog.shape[1], :3]
        near[:] = near * (1 - fog) + self._haze * fog

    def _cast(self) -> tuple[Ints, Floats, Floats]:
        """The nearest walls on each ray.

        Returns:
            Walls, their distances and the positions along them (0 to 1), each of shape (layers, width).
        """
        walls = self.plan.walls
        start, end = walls.start - self._position, walls.end - self._position
        away = np.hypot(*((start + end) / 2).T)
        # The backs of facades are hidden by their own fronts.
        ahead = start[:, 0] * end[:, 1] - start[:, 1] * end[:, 0] < 0
        # Windowless sides stand above a lower neighbour and are seen from both directions.
        near = np.nonzero(np.where(walls.plain, away < SIDES_FAR, (away < FAR) & ahead))[0]
        from_x, from_y = start[near].astype(np.float32).T[..., None]
        along_x, along_y = (end - start)[near].astype(np.float32).T[..., None]
        level = from_x * along_y - from_y * along_x
        wall = np.empty((_LAYERS, len(self._x)), np.int64)
        distance, along_wall = np.empty(wall.shape, np.float32), np.empty(wall.shape, np.float32)
        # Rays against walls in blocks of columns: the matrix of a block stays in the cache.
        for left in range(0, len(self._x), _COLUMNS):
            part = slice(left, left + _COLUMNS)
            x, y = self._x[part], self._y[part]
            # Cramer's rule for ray * far = from + wall * along; parallel rays divide by zero.
            with np.errstate(divide="ignore", invalid="ignore"):
                over = 1 / (x * along_y - y * along_x)
                far = level * over
                along = (from_x * y - from_y * x) * over
                far[~((along >= 0) & (along <= 1) & (far > 0.2))] = np.inf
            columns = np.arange(len(x))
            # Several layers, because a taller building shows above a nearer one.
            for layer in range(_LAYERS):
                first = far.argmin(axis=0)
                wall[layer, part] = near[first]
                distance[layer, part], along_wall[layer, part] = far[first, columns], along[first, columns]
                far[first, columns] = np.inf
        return wall, distance, along_wall

    def _paint_walls(self, canvas: npt.NDArray[np.uint8]) -> Floats:
        """Paint all walls; returns the distance of the nearest one in each column."""
        plan = self.plan
        wall, distance, part = self._cast()
        floors = plan.buildings.floors[plan.walls.building[wall]]
        with np.errstate(invalid="ignore"):
            tops = self._row((floors * STOREY - CAMERA) / distance)
        height = self.size[1]
        tops = np.where(np.isfinite(distance), np.clip(tops, 0, height), height)
        # Rows grow downwards: a layer shows from its own top to the highest top of the nearer ones.
        bottoms = np.minimum(np.minimum.accumulate(tops, axis=0), height)
        bottoms = np.concatenate([self._row(-CAMERA / distance[:1]), bottoms[:-1]])
        counts = np.maximum(bottoms - tops, 0)
        counts[~np.isfinite(distance)] = 0
        # One entry per visible piece of a ray, then one per pixel.
        layer, column = np.nonzero(counts)
        wall, distance, part = wall[layer, column], distance[layer, column], part[layer, column]
        counts, tops = counts[layer, column], tops[layer, column]
        index, row = _spans(counts, tops)
        self._shade(canvas, index, row, column, wall, distance, part)
        # A column may occur once per layer, so the minimum has to be unbuffered.
        nearest = np.full(len(self._x), np.inf, np.float32)
        np.minimum.at(nearest, column, distance)
        return nearest

    def _shade(
        self,
        canvas: npt.NDArray[np.uint8],
        index: Ints,
        row: Ints,
        column: Ints,
        wall: Ints,
        distance: Floats,
        part: Floats,
    ) -> None:
        """Colour the pixels of walls; ``index`` says to which piece of a ray each belongs."""
        plan, style = self.plan, self.plan.style
        walls, building = plan.walls, plan.walls.building[wall]
        along = part * walls.bays[wall]
        bay = np.minimum(along.astype(np.int64), walls.bays[wall] - 1)
        u = (along - bay).astype(np.float32)
        # Height of a storey in pixels (the picture has width / 2 pi of them per radian), and the mipmap level
        # whose tiles are about as large; 0.6 instead of 0.5 leans towards the sharper one.
        seen = self.size[0] / (2 * math.pi * distance) * STOREY
        level = np.clip(np.ceil(np.log2(SIDE / np.maximum(seen, 1e-3)) - 0.6), 0, LEVELS - 1).astype(np.int64)
        # Height above the ground in storeys; its fraction is the position in the floor, counted from the top.
        story = (CAMERA + distance[index] * self._tan[row]) / np.float32(STOREY)
        floor = np.maximum(story.astype(np.int64), 0)
        v = 1 - (story - floor)
        # A multiplicative hash (Knuth's) of window and building chooses tiles without a table of them.
        mixed = (bay * 7 + building * 13)[index] + floor * 5
        mixed = (mixed * 2654435761 >> 7) % 1000
        # Variant 3 of a window is the lit one.
        lit = np.where(mixed < style.lit * 1000, 3, mixed % 3)
        tile = np.where(floor == plan.buildings.floors[building][index] - 1, TOP, UPPER) + lit
        # Ground floors: a landmark has windows (7) and a door (4) in the middle, other buildings 0 to 6 by
        # bay.
        famous = plan.buildings.color[building] < 0
        front = np.where(famous, 7, (plan.buildings.front[building] * 3 + bay * bay) % 7)
        front = np.where(famous & (bay == walls.bays[wall] // 2), 4, front)
        tile = np.where(floor == 0, FRONT + front[index], tile)
        tile = np.where(walls.plain[wall][index], PLAIN, tile)
        # All tiles of all levels lie in one array; a level begins at `starts`, a tile has side ** 2 pixels.
        side = SIDE >> level
        start = self._tiles.starts[level][index] + tile * (side * side)[index]
        size = side[index]
        color = _sample(self._tiles.packed, start, size, size, u[index] * size, v * size)
        rgba = color.view(np.uint8).reshape(-1, 4)
        ahead = walls.end[wall] - walls.start[wall]
        # Bearing of the outward normal: a wall runs from left to right as seen from the street, so its normal
        # is its direction turned clockwise. Then a constant light, and Lambert's cosine of the angle to the
        # sun.
        facing = np.degrees(np.arctan2(ahead[:, 1], -ahead[:, 0]))
        sun = np.maximum(0, np.cos(np.radians(facing - style.sun)))
        shade = (style.day * (0.72 + 0.36 * sun)).astype(np.float32)
        fog = _fog(distance)
        bright = (shade * (1 - fog)).astype(np.float32)
        body = self._colors[plan.buildings.color[building]] * (bright / 255)[:, None]
        mist = self._haze * fog[:, None]
        # The fourth channel is the share of the wall's own colour, see `facade_tiles`.
        pixels = rgba[:, :3] * bright[index, None]
        pixels += rgba[:, 3:].astype(np.float32) * body[index]
        pixels += mist[index]
        np.minimum(pixels, 255, out=pixels)
        canvas[column[index], row, :3] = pixels.astype(np.uint8)

    def _paint_boards(self, canvas: npt.NDArray[np.uint8], depth: Floats) -> None:
        """Paint signs, trees, lamps and traffic lights, the farthest first."""
        position = np.array(self._position)
        left, right = self._lefts - position, self._rights - position
        middle = (left + right) / 2
        far = np.hypot(*middle.T)
        props = len(self.plan.props)
        # Props turn to the camera: their ends lie square to the line of sight.
        with np.errstate(invalid="ignore", divide="ignore"):
            square = middle[:props, ::-1] * (-1, 1) / far[:props, None] * self._halves[:, None]
        left[:props], right[:props] = middle[:props] + square, middle[:props] - square
        seen = far < np.where(np.arange(len(far)) < props, PROPS_FAR, SIGNS_FAR)
        seen[:props] &= far[:props] > 1.5
        chosen = np.nonzero(seen)[0]
        # A thing shows if an end or its middle is nearer than the wall there.
        points = np.stack([left, middle, right])[:, chosen]
        turn = np.degrees(np.arctan2(points[..., 0], points[..., 1])) + self._rotation
        columns = (turn / 360 * len(depth)).astype(np.int64) % len(depth)
        chosen = chosen[(np.hypot(*points.transpose(2, 0, 1)) < depth[columns] + 0.2).any(axis=0)]
        for number in chosen[np.argsort(-far[chosen], kind="stable")].tolist():
            ends = left[number], right[number]
            if number < props:
                prop = self.plan.props[number]
                shade = self.plan.style.day if prop.kind == "tree" else 1.0
                self._board(canvas, depth, self._props[prop.kind], ends, (0.0, prop.height), shade)
                continue
            panel = self.plan.panels[number - props]
            # The ends run counter-clockwise around the camera: it is behind the board. A sign that stands out
            # from a facade has two faces; one that lies on a facade has none there.
            turned = ends[0][0] * ends[1][1] - ends[0][1] * ends[1][0] > 0
            if turned and panel.upright:
                ends = ends[1], ends[0]
            elif turned:
                continue
            self._board(canvas, depth, self._sign(panel), ends, (panel.low, panel.high), 1.0)

    def _sign(self, panel: Panel) -> Texture:
        long, high = math.dist(panel.left, panel.right), panel.high - panel.low
        return self._signs.get(self._draw_sign, panel.landmark, round(long, 1), round(high, 1), panel.upright)

    def _draw_sign(self, number: int, long: float, high: float, upright: bool) -> Texture:
        landmark, style = self.plan.landmarks[number], self.plan.style
        if upright:
            return emblem(landmark.kind, style)
        return board(landmark.name, landmark.kind, style, long, high, min(56, max(16, self.size[0] // 40)))

    def _board(
        self,
        canvas: npt.NDArray[np.uint8],
        depth: Floats,
        texture: Texture,
        ends: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]],
        span: tuple[float, float],
        shade: float,
    ) -> None:
        """Paint an upright picture between two points and two heights, where no wall hides it."""
        from_x, from_y = ends[0].astype(np.float32)
        along_x, along_y = (ends[1] - ends[0]).astype(np.float32)
        first, last = (
            math.floor((math.degrees(math.atan2(x, y)) + self._rotation) / 360 * len(depth)) for x, y in ends
        )
        # The remainders let a board cross the seam between the last column and the first.
        column = np.arange(first, first + (last - first) % len(depth) + 1) % len(depth)
        x, y = self._x[column], self._y[column]
        with np.errstate(divide="ignore", invalid="ignore"):
            over = 1 / (x * along_y - y * along_x)
            far = (from_x * along_y - from_y * along_x) * over
            part = (from_x * y - from_y * x) * over
        shows = (part >= 0) & (part < 1) & (far > 0.3) & (far < depth[column])
        column, far, part = column[shows], far[shows], part[shows]
        if not len(column):
            return
        low, high = span
        height = self.size[1]
        tops = np.clip(self._row((high - CAMERA) / far), 0, height)
        counts = np.clip(self._row((low - CAMERA) / far), 0, height) - tops
        index, row = _spans(counts, tops)
        # One mipmap level for the whole board: the one about as high as the board is in the picture.
        seen = self.size[0] / (2 * math.pi * float(far.mean())) * (high - low)
        level = int(
            np.clip(round(math.log2(texture.heights[0] / max(seen, 1e-3))), 0, len(texture.starts) - 1)
        )
        width, tall = int(texture.widths[level]), int(texture.heights[level])
        v = (high - CAMERA - far[index] * self._tan[row]) / (high - low) * tall
        color = _sample(texture.packed, int(texture.starts[level]), width, tall, part[index] * width, v)
        rgba = color.view(np.uint8).reshape(-1, 4)
        fog = _fog(far)[index, None]
        ink = rgba[:, :3] * (np.float32(shade) * (1 - fog)) + self._haze * fog
        cover = rgba[:, 3:] / np.float32(255)
        column = column[index]
        under = canvas[column, row, :3]
        canvas[column, row, :3] = (under * (1 - cover) + ink * cover).astype(np.uint8)


def _fog(far: Floats) -> Floats:
    """Opacity of the haze at a distance."""
    return (1 - np.exp(-np.minimum(far, 1e4) / np.float32(420))).astype(np.float32)


def _spans(counts: Ints, tops: Ints) -> tuple[Ints, Ints]:
    """The pixels of vertical spans: which span each belongs to, and its row."""
    counts = np.maximum(counts, 0)
    index = np.repeat(np.arange(len(counts)), counts)
    # Number of a span's first pixel among all; pixel k is then in row tops + (k - first).
    first = np.cumsum(counts) - counts
    return index, np.arange(len(index)) - (first - tops)[index]


def _sample(
    packed: Packed, start: Ints | int, width: Ints | int, height: Ints | int, u: Floats, v: Floats
) -> Packed:
    """Mix the four pixels of a texture around each point; the centre of the first is at (0.5, 0.5)."""
    # At most the last pixel but one, so that the neighbours at index + 1 and at the next row are still its
    # own.
    u = np.clip(u - np.float32(0.5), 0, np.subtract(width, 1.01, dtype=np.float32))
    v = np.clip(v - np.float32(0.5), 0, np.subtract(height, 1.01, dtype=np.float32))
    left, top = u.astype(np.int32), v.astype(np.int32)
    across, down = ((u - left) * 256).astype(np.uint32), ((v - top) * 256).astype(np.uint32)
    index = start + top * width + left
    below = index + width
    upper = mix_pixels(packed.take(index), packed.take(index + 1), across)
    return mix_pixels(upper, mix_pixels(packed.take(below), packed.take(below + 1), across), down)

"""Textures: what facades, signs, trees and lamps look like from the front.

A texture is kept at its size and at every half of it, so that a painter can take the one whose pixels are
about as large as those of the picture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from sftrl_ext.envs.virl.city.names import KINDS, draw_symbol
from sftrl_ext.envs.virl.city.styles import CityStyle, Color

Packed = npt.NDArray[np.uint32]

SIDE = 64
"""Side of a facade tile in pixels: one bay of one floor."""

LEVELS = 6
"""Mipmap levels of a facade tile, each half as large as the one before."""

UPPER, TOP, FRONT, PLAIN = 0, 4, 8, 16
"""Index of the first tile of upper floors, top floors, ground floors and walls without windows."""

_BLACK: Color = (0, 0, 0)
_WHITE: Color = (255, 255, 255)
_LIGHT: Color = (255, 222, 150)


@dataclass(frozen=True)
class Texture:
    """A picture at its size and at halves of it.

    Attributes:
        packed: All of them, flat, one 32-bit RGBA number per pixel, the largest first.
        starts: Where each begins.
        widths: Width of each.
        heights: Height of each.
    """

    packed: Packed
    starts: npt.NDArray[np.int64]
    widths: npt.NDArray[np.int64]
    heights: npt.NDArray[np.int64]

    @classmethod
    def of(cls, image: Image.Image, levels: int = 9) -> Texture:
        """Make one from a picture."""
        images = [image if image.mode == "CMYK" else image.convert("RGBA")]
        # Each level is the mean of 2 x 2 pixels of the one before; below two pixels a side there is nothing
        # to mix.
        while len(images) < levels and min(images[-1].size) >= 4:
            images.append(images[-1].reduce(2))
        packed = [np.asarray(level).view(np.uint32).reshape(-1) for level in images]
        starts = np.cumsum([0, *(len(level) for level in packed[:-1])])
        widths, heights = np.array([level.size for level in images]).T
        return cls(np.concatenate(packed), starts, widths, heights)


def facade_tiles(style: CityStyle, seed: int) -> Texture:
    """The tiles of a style, one below the other.

    The fourth channel of a pixel says how much of the colour of the wall to add. It is no alpha, for halving
    a picture with alpha would weigh the other channels by it; Pillow's CMYK has four channels and no alpha.
    """
    rng = np.random.default_rng([seed, 21])
    tiles = [_upper(style, variant, rng, top=False) for variant in range(4)]
    tiles += [_upper(style, variant, rng, top=True) for variant in range(4)]
    tiles += [_front(style, variant, rng) for variant in range(8)]
    tiles.append(_Tile(style, rng).image())
    sheet = Image.new("CMYK", (SIDE, SIDE * len(tiles)))
    for index, tile in enumerate(tiles):
        sheet.paste(tile, (0, index * SIDE))
    return Texture.of(sheet, LEVELS)


class _Tile:
    """One bay of one floor: a wall on which things are drawn."""

    def __init__(self, style: CityStyle, rng: np.random.Generator) -> None:
        self.style = style
        self._wall = Image.fromarray(_masonry(style.joints, rng))
        self._color = Image.new("RGB", (SIDE, SIDE))
        self._on_wall, self._on_color = ImageDraw.Draw(self._wall), ImageDraw.Draw(self._color)

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        self._on_wall.rectangle((left, top, right - 1, bottom - 1), 0)
        self._on_color.rectangle((left, top, right - 1, bottom - 1), color)

    def arch(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        half = (right - left) / 2
        for pen, ink in ((self._on_wall, 0), (self._on_color, color)):
            pen.pieslice((left, top, right - 1, top + 2 * half), 180, 360, ink)
        self.box(left, top + half, right, bottom, color)

    def shade(self, left: float, top: float, right: float, bottom: float) -> None:
        """A shadow on the bare wall."""
        area = int(left), int(top), int(right), int(bottom)
        self._wall.paste(self._wall.crop(area).point(lambda value: value * 0.72), area)

    def image(self) -> Image.Image:
        """The tile in four channels."""
        return Image.merge("CMYK", (*self._color.split(), self._wall))


def _masonry(joints: str, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Brightness of a bare wall."""
    wall = np.full((SIDE, SIDE), 240.0) + rng.normal(0, 4, (SIDE, SIDE))
    y, x = np.mgrid[:SIDE, :SIDE]
    # Courses of bricks (8 x 4 pixels) or stones (32 x 16), every other one shifted by half a length. Noise
    # with one number per brick is spread over its pixels by integer division.
    if joints == "brick":
        row = y // 4
        wall += rng.normal(0, 14, (SIDE // 4, SIDE // 8 + 1))[row, (x + row % 2 * 4) // 8]
        wall[(y % 4 == 0) | ((x + row % 2 * 4) % 8 == 0)] *= 0.84
    elif joints == "stone":
        row = y // 16
        wall += rng.normal(0, 8, (SIDE // 16, 3))[row, (x + row % 2 * 16) // 32]
        wall[(y % 16 == 0) | ((x + row % 2 * 16) % 32 == 0)] *= 0.8
    elif joints == "plank":
        wall[y % 8 == 0] *= 0.74
        wall -= (y % 8) * 1.5
    elif joints == "panel":
        wall[(x < 1) | (y < 1)] *= 0.7
    return np.clip(wall, 0, 255).astype(np.uint8)


def _blend(a: Color, b: Color, part: float) -> Color:
    red, green, blue = (round(p + (q - p) * part) for p, q in zip(a, b, strict=True))
    return red, green, blue


def _upper(style: CityStyle, variant: int, rng: np.random.Generator, top: bool) -> Image.Image:
    """A floor with a window; variant 3 is lit, 2 has a blind."""
    tile = _Tile(style, rng)
    glass = _LIGHT if variant == 3 else _blend(style.glass, style.sky[1], (0.08, 0.3, 0.12)[variant])
    frame = style.trim
    low, high = (14, 54) if top else (10, 54)
    if style.windows == "band":
        left, right = 0, SIDE
        tile.box(0, low, SIDE, high, glass)
        for x in (0, SIDE // 2):
            tile.box(x, low, x + 2, high, frame)
        tile.box(0, high, SIDE, high + 2, frame)
    elif style.windows == "wide":
        left, right = 8, 56
        tile.box(left - 2, low - 2, right + 2, high - 2, frame)
        for x in (left, left + 17, left + 34):
            tile.box(x, low, x + 14, high - 4, glass)
    elif style.windows == "arch":
        left, right = 20, 44
        tile.arch(left - 4, low - 4, right + 4, high + 2, frame)
        tile.arch(left, low, right, high, glass)
        tile.box(31, low + 2, 33, high, frame)
    elif style.windows == "shutter":
        left, right = 23, 41
        tile.box(left - 12, low + 2, right + 12, high, _blend(frame, style.leaves, 0.55))
        tile.box(left - 2, low, right + 2, high + 2, frame)
        tile.box(left, low + 2, right, high, glass)
        for y in range(low + 6, high - 2, 5):
            tile.box(left - 11, y, left - 3, y + 1, frame)
            tile.box(right + 3, y, right + 11, y + 1, frame)
    else:
        left, right = 20, 44
        tile.shade(left, high + 4, right + 4, high + 8)
        tile.box(left - 3, low - 3, right + 3, high + 4, frame)
        tile.box(left, low, right, high, glass)
        tile.box(left, (low + high) // 2, right, (low + high) // 2 + 2, frame)
        tile.box(31, low, 33, high, frame)
    if variant == 2:
        tile.box(left + 1, low + 2, right - 1, low + 16, _blend(style.trim, style.glass, 0.35))
    if top and style.roof == "cornice":
        tile.box(0, 0, SIDE, 5, style.trim)
        tile.box(0, 5, SIDE, 7, _blend(style.trim, _BLACK, 0.4))
        for x in range(2, SIDE, 8):
            tile.box(x, 5, x + 4, 9, style.trim)
    elif top and style.roof == "tiles":
        for x in range(0, SIDE, 8):
            tile.box(x, 0, x + 8, 8, (156, 74, 52))
            tile.box(x, 0, x + 2, 8, (112, 50, 38))
        tile.shade(0, 8, SIDE, 11)
    elif top:
        tile.box(0, 0, SIDE, 3, _blend(style.trim, _BLACK, 0.15))
    return tile.image()


def _front(style: CityStyle, variant: int, rng: np.random.Generator) -> Image.Image:
    """A ground floor: 0 to 2 shop windows, 3 and 4 doors, 5 a garage, 6 a window; 7 a landmark's window."""
    tile = _Tile(style, rng)
    inside = _blend(style.glass, _LIGHT, 0.35)
    frame = _blend(style.trim, _BLACK, 0.2)
    awning = ((168, 52, 48), (52, 110, 84), (60, 84, 140))[variant % 3]
    if variant <= 2 or variant == 7:
        tile.box(3, 18, 61, 56, frame)
        tile.box(6, 20, 31, 52, inside if variant != 1 else style.glass)
        tile.box(33, 20, 58, 52, inside if variant != 1 else style.glass)
        tile.box(6, 44, 58, 52, _blend(inside, _BLACK, 0.35))
    if variant <= 2:
        for x in range(0, SIDE, 8):
            tile.box(x, 10, x + 8, 22, awning if x % 16 else _blend(awning, _WHITE, 0.7))
        tile.shade(0, 22, 3, 28)
    elif variant in (3, 4):
        tile.box(19, 12, 45, 64, style.trim)
        tile.box(22, 24, 42, 64, _blend(awning, _BLACK, 0.35))
        tile.box(22, 14, 42, 22, style.glass)
        tile.box(38, 44, 40, 47, _LIGHT)
    elif variant == 5:
        tile.box(6, 16, 58, 64, _blend(style.pavement, _BLACK, 0.25))
        for y in range(20, 64, 6):
            tile.box(6, y, 58, y + 1, _blend(style.pavement, _BLACK, 0.5))
    elif variant == 6:
        tile.box(15, 16, 49, 48, style.trim)
        tile.box(18, 19, 46, 45, style.glass)
        tile.box(31, 19, 33, 45, style.trim)
    tile.shade(0, 58, SIDE, 64)
    return tile.image()


def _inks(kind: str, style: CityStyle) -> tuple[Color, Color]:
    """Colours of the letters and of the ground of a sign."""
    color = KINDS[kind].color
    if style.signs == "light":
        return color, (250, 248, 240)
    if style.signs == "neon":
        return _blend(color, _WHITE, 0.55), (16, 16, 24)
    return _WHITE, color


def board(name: str, kind: str, style: CityStyle, length: float, height: float, fine: int) -> Texture:
    """A sign with the symbol of a place and its name.

    Args:
        name: What to write, on one line if the sign is more than three times as long as high, else two.
        kind: A name of `KINDS`.
        style: Whose colours.
        length: In metres.
        height: In metres.
        fine: Pixels per metre.
    """
    ink, ground = _inks(kind, style)
    width, tall = round(length * fine), round(height * fine)
    image = Image.new("RGB", (width, tall), ground)
    pen = ImageDraw.Draw(image)
    rim = max(2, tall // 24)
    pen.rectangle((0, 0, width - 1, tall - 1), outline=ink, width=rim)
    gap = tall // 8
    lines = [name] if length > 3 * height else name.split(" ")
    symbol = tall - 2 * gap if len(lines) == 1 else min(tall - 2 * gap, round(width * 0.36))
    draw_symbol(pen, kind, gap, (tall - symbol) / 2, symbol, ink, ground)
    left, room = symbol + 2 * gap, width - symbol - 3 * gap
    each = (tall - 2 * gap) // len(lines)
    for index, line in enumerate(lines):
        _write(pen, line, left + room / 2, gap + each * (index + 0.5), room, each * 0.78, ink)
    return Texture.of(image)


def emblem(kind: str, style: CityStyle) -> Texture:
    """A square sign with the symbol of a place."""
    ink, ground = _inks(kind, style)
    image = Image.new("RGB", (96, 96), ground)
    pen = ImageDraw.Draw(image)
    pen.rectangle((0, 0, 95, 95), outline=ink, width=4)
    draw_symbol(pen, kind, 14, 14, 68, ink, ground)
    return Texture.of(image)


def _write(
    pen: ImageDraw.ImageDraw, text: str, x: float, y: float, room: float, height: float, ink: Color
) -> None:
    """Write bold text about (x, y), as high as it can be."""
    size = height * 1.25
    # The first pass measures at the full height, the second sets the size at which the text fits the width.
    for _ in range(2):
        font = ImageFont.load_default(size)
        bold = round(size / 32)
        box = pen.textbbox((0, 0), text, font, stroke_width=bold)
        size *= min(1.0, room / (box[2] - box[0]))
    pen.text((x, y), text, ink, font, "mm", stroke_width=bold, stroke_fill=ink)


def prop_texture(kind: str, style: CityStyle, seed: int) -> Texture:
    """A tree, a lamp or traffic lights; half as wide as high."""
    rng = np.random.default_rng([seed, 22])
    image = Image.new("RGBA", (128, 256))
    pen = ImageDraw.Draw(image)
    if kind == "lamp":
        pen.rectangle((61, 20, 66, 255), (52, 56, 60))
        pen.rectangle((40, 16, 66, 22), (52, 56, 60))
        pen.ellipse((30, 14, 54, 30), (255, 240, 190))
    elif kind == "lights":
        pen.rectangle((60, 20, 67, 255), (60, 62, 64))
        pen.rectangle((44, 8, 84, 112), (30, 32, 34))
        for index, color in enumerate(((232, 40, 36), (90, 72, 24), (24, 70, 40))):
            pen.ellipse((51, 13 + 33 * index, 77, 39 + 33 * index), color)
    else:
        _tree(pen, style, rng)
    return Texture.of(image)


def _tree(pen: ImageDraw.ImageDraw, style: CityStyle, rng: np.random.Generator) -> None:
    bark = (92, 70, 50)
    if style.tree == "palm":
        pen.polygon([(60, 70), (68, 70), (72, 255), (56, 255)], bark)
        for angle in np.linspace(-0.3, np.pi + 0.3, 11):
            tip = 64 + 60 * np.cos(angle), 66 - 48 * np.sin(angle) + 26 * abs(np.cos(angle))
            middle = 64 + 32 * np.cos(angle), 58 - 44 * np.sin(angle)
            leaf = _blend(style.leaves, _BLACK, float(rng.uniform(0, 0.35)))
            pen.polygon([(64, 70), (middle[0], middle[1] - 6), tip, (middle[0], middle[1] + 8)], leaf)
        return
    pen.rectangle((58, 170, 70, 255), bark)
    for _ in range(90):
        # A crown is 90 leaves at random heights; ``wide`` is its half width there: linear for a cone, else
        # rounded.
        y = float(rng.uniform(0.05, 0.8))
        wide = 0.47 * y if style.tree == "cone" else 0.47 * np.sin(np.pi * min(1.0, y / 0.82 + 0.05)) ** 0.6
        x = 0.5 + float(rng.uniform(-1, 1)) * (wide - 0.08)
        big = float(rng.uniform(10, 18)) if style.tree == "round" else float(rng.uniform(7, 12))
        part = float(rng.uniform(0, 0.4)) + 0.3 * (y - 0.4)
        leaf = _blend(style.leaves, _BLACK if part > 0 else _WHITE, abs(part))
        px, py = x * 128, y * 230 + 4
        pen.ellipse((px - big, py - big * 0.8, px + big, py + big * 0.8), leaf)

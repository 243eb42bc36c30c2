"""Characters of ranks as strokes (``letters.yaml``), so that pictures do not depend on installed fonts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import Any

import yaml

from sftrl_ext.envs.general_points.render.shapes import Color, Path, Pen, Point, arc, curve


@dataclass(frozen=True)
class Glyph:
    """One character.

    Attributes:
        width: Width as a share of the height, between the middles of the outermost strokes.
        strokes: Lines in the unit square.
    """

    width: float
    strokes: tuple[Path, ...]


@dataclass(frozen=True)
class Lettering:
    """A way to write ranks.

    Attributes:
        glyphs: Character to glyph.
        weight: Thickness of the strokes as a share of the height.
    """

    glyphs: dict[str, Glyph]
    weight: float

    def write(
        self, pen: Pen, rank: str, x: float, y: float, height: float, color: Color, widest: float
    ) -> None:
        """Write a rank about (x, y), squeezed where it would be wider than ``widest``; card units."""
        weight = self.weight * height * (0.85 if len(rank) > 1 else 1)
        tall = height - weight
        glyphs = [self.glyphs[letter] for letter in rank]
        gap = weight * 1.4
        strokes_width = sum(glyph.width for glyph in glyphs) * tall
        squeeze = min(1.0, (widest - weight - gap * (len(rank) - 1)) / strokes_width)
        left = x - (strokes_width * squeeze + gap * (len(rank) - 1)) / 2
        for glyph in glyphs:
            across = glyph.width * tall * squeeze
            for stroke in glyph.strokes:
                pen.line([(left + u * across, y + (v - 0.5) * tall) for u, v in stroke], weight, color)
            left += across + gap


def _path(parts: list[Any]) -> Path:
    points: list[Point] = []
    for part in parts:
        if isinstance(part, list):
            points.append(tuple(part))
        elif "arc" in part:
            points += arc(*part["arc"])
        else:
            a, b, c, d = map(tuple, part["curve"])
            points += curve(a, b, c, d)
    return tuple(points)


def _lettering(data: dict[str, Any]) -> Lettering:
    glyphs: dict[str, Glyph] = {}
    for letter, glyph in data["glyphs"].items():
        if "upside_down" in glyph:
            other = glyphs[glyph["upside_down"]]
            turned = tuple(tuple((1 - x, 1 - y) for x, y in stroke) for stroke in other.strokes)
            glyphs[letter] = Glyph(other.width, turned)
        else:
            glyphs[letter] = Glyph(glyph["width"], tuple(map(_path, glyph["strokes"])))
    return Lettering(glyphs, data["weight"])


_DATA = yaml.safe_load(FilePath(__file__).with_name("letters.yaml").read_text("utf-8"))

ROUND = _lettering(_DATA["round"])
"""Heavy rounded characters."""

ANGULAR = _lettering(_DATA["angular"])
"""Thinner characters of straight strokes with cut corners."""

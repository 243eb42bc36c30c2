"""The characters of ranks as strokes, so that a picture does not depend on the fonts of a machine."""

from __future__ import annotations

from dataclasses import dataclass

from sftrl_ext.envs.general_points.render.shapes import Color, Path, Pen, arc, curve


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


_SIX = (arc(0.5, 0.68, 0.5, 0.32), curve((0.0, 0.68), (0.0, 0.3), (0.35, 0.08), (0.8, 0.0)))

ROUND = Lettering(
    {
        "A": Glyph(0.62, (((0, 1), (0.5, 0), (1, 1)), ((0.2, 0.68), (0.8, 0.68)))),
        "0": Glyph(
            0.48,
            (arc(0.5, 0.32, 0.5, 0.32, 180, 360) + arc(0.5, 0.68, 0.5, 0.32, 0, 180) + ((0.0, 0.32),),),
        ),
        "1": Glyph(0.2, (((0, 0.2), (1, 0), (1, 1)),)),
        "2": Glyph(0.52, (arc(0.5, 0.29, 0.48, 0.29, 195, 385) + ((0, 1), (1, 1)),)),
        "3": Glyph(0.5, (arc(0.46, 0.25, 0.46, 0.25, 205, 450), arc(0.46, 0.74, 0.54, 0.26, 270, 515))),
        "4": Glyph(0.58, (((0.74, 1), (0.74, 0), (0, 0.7), (1, 0.7)),)),
        "5": Glyph(0.52, (((0.92, 0), (0.14, 0), (0.06, 0.46)) + arc(0.48, 0.68, 0.52, 0.32, 222, 515),)),
        "6": Glyph(0.52, _SIX),
        "7": Glyph(0.52, (((0, 0), (1, 0), (0.32, 1)),)),
        "8": Glyph(0.52, (arc(0.5, 0.24, 0.43, 0.24), arc(0.5, 0.74, 0.5, 0.26))),
        "9": Glyph(0.52, tuple(tuple((1 - x, 1 - y) for x, y in stroke) for stroke in _SIX)),
        "J": Glyph(0.46, (((0.4, 0), (1, 0), (1, 0.68)) + arc(0.5, 0.68, 0.5, 0.32, 0, 170),)),
        "Q": Glyph(
            0.6,
            (
                arc(0.5, 0.36, 0.5, 0.36, 180, 360) + arc(0.5, 0.64, 0.5, 0.36, 0, 180) + ((0.0, 0.36),),
                ((0.58, 0.7), (1.02, 1.04)),
            ),
        ),
        "K": Glyph(0.58, (((0, 0), (0, 1)), ((0.96, 0), (0, 0.62)), ((0.3, 0.44), (1, 1)))),
    },
    weight=0.17,
)
"""Heavy rounded characters."""

_BOTTOM = ((1, 0.8), (0.75, 1), (0.25, 1), (0, 0.8))
_TOP = ((0, 0.2), (0.25, 0), (0.75, 0), (1, 0.2))

ANGULAR = Lettering(
    {
        "A": Glyph(0.56, (((0, 1),) + _TOP + ((1, 1),), ((0, 0.6), (1, 0.6)))),
        "0": Glyph(0.52, (_TOP + _BOTTOM + ((0, 0.2),),)),
        "1": Glyph(0.22, (((0, 0.2), (1, 0), (1, 1)),)),
        "2": Glyph(0.52, (_TOP + ((1, 0.38), (0, 0.8), (0, 1), (1, 1)),)),
        "3": Glyph(
            0.52,
            (((0, 0), (1, 0), (0.5, 0.4), (0.75, 0.4), (1, 0.6), (1, 0.8), (0.75, 1), (0.25, 1), (0, 0.8)),),
        ),
        "4": Glyph(0.54, (((0.3, 0), (0, 0.64), (1, 0.64)), ((0.75, 0.35), (0.75, 1)))),
        "5": Glyph(0.52, (((1, 0), (0, 0), (0, 0.42), (0.75, 0.42), (1, 0.6)) + _BOTTOM,)),
        "6": Glyph(
            0.52,
            (
                (
                    (0.9, 0),
                    (0.3, 0),
                    (0, 0.25),
                    (0, 0.8),
                    (0.25, 1),
                    (0.75, 1),
                    (1, 0.8),
                    (1, 0.6),
                    (0.75, 0.42),
                    (0, 0.42),
                ),
            ),
        ),
        "7": Glyph(0.52, (((0, 0.16), (0, 0), (1, 0), (1, 0.2), (0.4, 0.6), (0.4, 1)),)),
        "8": Glyph(
            0.52,
            (
                (
                    (0.25, 0),
                    (0.75, 0),
                    (1, 0.15),
                    (1, 0.35),
                    (0, 0.62),
                    (0, 0.85),
                    (0.25, 1),
                    (0.75, 1),
                    (1, 0.85),
                    (1, 0.62),
                    (0, 0.35),
                    (0, 0.15),
                    (0.25, 0),
                ),
            ),
        ),
        "9": Glyph(
            0.52,
            (
                (
                    (0.1, 1),
                    (0.7, 1),
                    (1, 0.75),
                    (1, 0.2),
                    (0.75, 0),
                    (0.25, 0),
                    (0, 0.2),
                    (0, 0.4),
                    (0.25, 0.58),
                    (1, 0.58),
                ),
            ),
        ),
        "J": Glyph(0.5, (((0, 0), (1, 0)), ((0.7, 0), (0.7, 0.8), (0.5, 1), (0.2, 1), (0, 0.8)))),
        "Q": Glyph(0.6, (_TOP + _BOTTOM + ((0, 0.2),), ((0.5, 0.62), (1, 1.06)))),
        "K": Glyph(
            0.54,
            (((0, 0), (0, 1)), ((1, 0), (1, 0.25), (0.4, 0.5), (0, 0.5)), ((0.4, 0.5), (1, 0.75), (1, 1))),
        ),
    },
    weight=0.14,
)
"""Thinner characters of straight strokes with cut corners."""

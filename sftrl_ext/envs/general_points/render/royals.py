"""Pictures of the jack, the queen and the king: half-figures, one the right way up and one upside down.

They differ in outline and not only in detail: a slanted cap with a feather, and a spear; long hair under a
low round crown, and a flower; a tall spiked crown over a square beard, and a sceptre.
"""

from __future__ import annotations

from collections.abc import Callable

from sftrl_ext.envs.general_points.render.shapes import Color, Path, Pen, arc, curve

_GOLD: Color = (235, 180, 40)
_SKIN: Color = (248, 214, 178)
_LINE: Color = (45, 35, 32)
_BROWN: Color = (110, 62, 30)
_AUBURN: Color = (158, 74, 32)
_STRAW: Color = (206, 142, 56)
_STEEL: Color = (150, 160, 172)


def draw_royal(pen: Pen, rank: str, suit: str, ink: Color, field: Color, fine: bool) -> None:
    """Draw the picture of a J, Q or K in the middle of a card, details only when ``fine``."""
    if fine:
        pen.box(76, 20, 174, 330, ink)
    pen.box(78, 22, 172, 328, field)
    # A figure fills the upper half of the card, down to the bar at 175; the turned pen draws the other one.
    for half in (pen, pen.upside_down()):
        _FIGURES[rank](half, ink, fine)
        half.oval(125, 156, 16, 16, field)
        half.suit(suit, 125, 156, 22, ink)
    pen.box(78, 173.5, 172, 176.5, _GOLD)


def _head(pen: Pen, y: float, lips: Color) -> None:
    """Eyes, nose and mouth of a head whose middle is at height ``y``."""
    for side in (-1, 1):
        pen.oval(125 + 8 * side, y - 2, 2.6, 3, _LINE)
        pen.line([(125 + 4 * side, y - 9), (125 + 12 * side, y - 8)], 1.8, _LINE)
    pen.line([(125, y - 1), (122.5, y + 7), (126, y + 8)], 1.5, _LINE)
    pen.line([(120, y + 14), (125, y + 15), (130, y + 14)], 2.6, lips)


def _jack(pen: Pen, ink: Color, fine: bool) -> None:
    pen.fill([(82, 175), (84, 144), (104, 124), (146, 124), (166, 144), (168, 175)], ink)
    pen.fill([(92, 134), (106, 124), (168, 168), (168, 175), (150, 175)], _GOLD)
    pen.box(115, 108, 135, 128, _SKIN)
    pen.fill(((101, 66), (149, 66), (151, 108), (142, 114), (108, 114), (99, 108)), _STRAW)
    pen.oval(125, 90, 18, 25, _SKIN)
    cap = curve((94, 68), (86, 40), (120, 32), (142, 36), 12) + curve(
        (142, 36), (166, 42), (166, 58), (156, 68)
    )
    pen.fill(cap, ink)
    pen.line([(96, 68), (154, 68)], 8, _GOLD)
    pen.fill(
        curve((136, 62), (136, 38), (152, 28), (170, 24)) + curve((170, 24), (168, 44), (156, 58), (136, 62)),
        _GOLD,
    )
    pen.line([(87, 40), (87, 174)], 4, _BROWN)
    pen.fill([(87, 24), (94, 40), (87, 52), (80, 40)], _STEEL)
    if fine:
        _head(pen, 91, _AUBURN)
        pen.line([(138, 60), (150, 46), (166, 28)], 1.5, _BROWN)


def _queen(pen: Pen, ink: Color, fine: bool) -> None:
    pen.fill(arc(125, 88, 34, 40, 180, 360) + ((163, 150), (87, 150)), _AUBURN)
    pen.fill([(84, 175), (92, 146), (112, 128), (138, 128), (158, 146), (166, 175)], ink)
    pen.fill([(114, 108), (136, 108), (142, 127), (125, 146), (108, 127)], _SKIN)
    pen.oval(125, 91, 19, 25, _SKIN)
    pen.fill(
        curve((104, 84), (106, 62), (144, 62), (146, 84)) + curve((146, 84), (136, 70), (114, 70), (104, 84)),
        _AUBURN,
    )
    for x, y, r in ((105, 51, 8), (125, 44, 10), (145, 51, 8)):
        pen.oval(x, y, r, r, _GOLD)
        if fine:
            pen.oval(x, y, r * 0.5, r * 0.5, ink)
    pen.fill([(96, 50), (125, 54), (154, 50), (150, 69), (100, 69)], _GOLD)
    for u, v in arc(156, 132, 8, 8, -90, 270)[:-1:8]:
        pen.oval(u, v, 5.5, 5.5, ink)
    pen.oval(156, 132, 5, 5, _GOLD)
    if fine:
        pen.line([(156, 142), (150, 168)], 2, (60, 120, 60))
        pen.line(arc(125, 120, 14, 10, 15, 165), 2, _GOLD)
        _head(pen, 92, (190, 40, 50))


def _king(pen: Pen, ink: Color, fine: bool) -> None:
    pen.fill([(78, 175), (78, 140), (102, 120), (148, 120), (172, 140), (172, 175)], ink)
    pen.fill([(104, 119), (117, 119), (106, 175), (90, 175)], _GOLD)
    pen.fill([(146, 119), (133, 119), (144, 175), (160, 175)], _GOLD)
    pen.box(101, 68, 149, 104, _BROWN)
    pen.oval(125, 88, 20, 24, _SKIN)
    pen.fill([(102, 94), (113, 98), (137, 98), (148, 94), (147, 128), (125, 138), (103, 128)], _BROWN)
    pen.fill([(96, 72), (92, 32), (109, 52), (125, 26), (141, 52), (158, 32), (154, 72)], _GOLD)
    pen.box(97, 63, 153, 71, ink)
    pen.line([(165, 66), (165, 174)], 5, _GOLD)
    pen.oval(164, 58, 7, 9, _GOLD)
    if fine:
        for x, y in ((92, 33), (125, 28), (158, 33)):
            pen.oval(x, y, 4.5, 4.5, ink)
        _head(pen, 88, _BROWN)
        pen.line([(117, 106), (125, 103), (133, 106)], 2.4, (190, 70, 60))
        for x in (113, 125, 137):
            pen.line([(x, 114), (125 + (x - 125) * 0.8, 128)], 1.5, _STRAW)


_FIGURES: dict[str, Callable[[Pen, Color, bool], None]] = {"J": _jack, "Q": _queen, "K": _king}


def draw_emblem(pen: Pen, rank: str, x: float, y: float, size: float, ink: Color) -> None:
    """Draw a shield for J, a crown of balls for Q, one with a cross for K, ``size`` wide about (x, y)."""
    for outline in _EMBLEMS[rank]:
        pen.fill([(x + u * size / 2, y + v * size / 2) for u, v in outline], ink)


_EMBLEMS: dict[str, tuple[Path, ...]] = {
    "J": (
        ((-0.72, -0.9), (0.42, -0.9), (-0.72, 0.22)),
        ((0.72, -0.9), (0.72, 0.0))
        + curve((0.72, 0.0), (0.66, 0.5), (0.4, 0.75), (0, 0.95))
        + curve((0, 0.95), (-0.3, 0.8), (-0.52, 0.66), (-0.66, 0.46)),
    ),
    "Q": (
        *(
            arc(u, v, 0.14, 0.14)
            for u, v in ((-0.86, -0.36), (-0.45, -0.68), (0, -0.8), (0.45, -0.68), (0.86, -0.36))
        ),
        (
            *((-0.66, 0.5), (-0.9, -0.3), (-0.44, 0.08), (-0.48, -0.6), (-0.14, 0.0), (0, -0.72)),
            *((0.14, 0.0), (0.48, -0.6), (0.44, 0.08), (0.9, -0.3), (0.66, 0.5)),
        ),
        ((-0.66, 0.58), (0.66, 0.58), (0.66, 0.82), (-0.66, 0.82)),
    ),
    "K": (
        ((-0.07, -0.95), (0.07, -0.95), (0.07, -0.3), (-0.07, -0.3)),
        ((-0.22, -0.8), (0.22, -0.8), (0.22, -0.66), (-0.22, -0.66)),
        curve((0, -0.3), (0.3, -0.75), (1.3, -0.5), (0.68, 0.5))
        + curve((-0.68, 0.5), (-1.3, -0.5), (-0.3, -0.75), (0, -0.3)),
        ((-0.68, 0.58), (0.68, 0.58), (0.68, 0.82), (-0.68, 0.82)),
    ),
}

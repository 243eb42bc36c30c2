"""Kinds of landmarks with their colours and symbols (``kinds.yaml``), and invented names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import ImageDraw

from sftrl_ext.envs.virl.city.styles import Color

Pen = ImageDraw.ImageDraw
Ink = Color | int


class _Sketch:
    """Pen for a symbol in the square from (0, 0) to (100, 100)."""

    def __init__(self, pen: Pen, left: float, top: float, side: float, ink: Ink, ground: Ink) -> None:
        self._pen, self._left, self._top, self._scale = pen, left, top, side / 100
        self._ink, self._ground = ink, ground

    def draw(self, stroke: Mapping[str, Any]) -> None:
        """Draw one entry of a symbol: a box, oval, shape or line."""
        ink = self._ground if stroke.get("bare") else self._ink
        if "box" in stroke:
            self._pen.rectangle(self._corners(stroke["box"]), ink)
        elif "oval" in stroke:
            self._pen.ellipse(self._corners(stroke["oval"]), ink)
        elif "shape" in stroke:
            self._pen.polygon([self._at(*corner) for corner in stroke["shape"]], ink)
        else:
            width = max(1, round(stroke.get("weight", 8) * self._scale))
            self._pen.line([self._at(*corner) for corner in stroke["line"]], ink, width, "curve")

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self._left + x * self._scale, self._top + y * self._scale

    def _corners(self, box: Sequence[float]) -> tuple[float, float, float, float]:
        return (*self._at(*box[:2]), *self._at(*box[2:]))


@dataclass(frozen=True)
class Kind:
    """A kind of place.

    Attributes:
        color: Of its sign and of its facade.
        symbol: Strokes of its symbol, see ``kinds.yaml``.
        forms: Its names, with "{}" for the name of a person or a place.
    """

    color: Color
    symbol: tuple[Mapping[str, Any], ...]
    forms: tuple[str, ...]


def _load_kinds() -> dict[str, Kind]:
    data = yaml.safe_load(Path(__file__).with_name("kinds.yaml").read_text("utf-8"))
    return {
        name: Kind(tuple(kind["color"]), tuple(kind["symbol"]), tuple(kind["forms"]))
        for name, kind in data.items()
    }


KINDS = _load_kinds()
"""Kind of place to its look and its names, from ``kinds.yaml``."""

_FIRST = (
    "Al An Bel Bran Cor Dal El Fen Gar Hol Is Jun Kel Lor Mar Nol Or Pel Quin Ros San Tin Ul Var Wen Yar Zel"
)
_LAST = "a by den do er field ford ia ker la lo mont na o ra rin ro ston ta ton va vale wick wood"


def invent_names(rng: np.random.Generator) -> list[tuple[str, str]]:
    """Kinds and names of all landmarks that a city can have, no name part used twice, in random order."""
    stems = sorted({first + last for first in _FIRST.split() for last in _LAST.split()})
    kinds = list(KINDS)
    names = []
    for position, index in enumerate(rng.permutation(len(stems))):
        if position % len(kinds) == 0:
            order = rng.permutation(len(kinds))
        kind = kinds[order[position % len(kinds)]]
        forms = KINDS[kind].forms
        names.append((kind, forms[int(rng.integers(len(forms)))].format(stems[index])))
    return names


def draw_symbol(pen: Pen, kind: str, left: float, top: float, side: float, ink: Ink, ground: Ink) -> None:
    """Draw the symbol of a kind in a square."""
    sketch = _Sketch(pen, left, top, side, ink, ground)
    for stroke in KINDS[kind].symbol:
        sketch.draw(stroke)

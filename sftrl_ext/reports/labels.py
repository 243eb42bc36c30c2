"""Putting labels into a drawing so that they hide as little as possible of it and of each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from sftrl_ext.reports.style import text_renderer

_ANGLES = tuple(range(0, 360, 30))
_LEAD = 24.0
"""A label farther than this from its place gets a line to it, in points."""


@dataclass(frozen=True)
class Label:
    """A text for a place.

    Attributes:
        text: What it says.
        at: The place, in data coordinates.
        toward: Where it should stand rather, as a heading in degrees; None if anywhere.
        style: Options of the text.
        gid: Name of the text in an SVG file.
    """

    text: str
    at: tuple[float, float]
    toward: float | None = None
    style: Mapping[str, Any] = field(default_factory=dict)
    gid: str | None = None


def place_labels(
    axes: Axes,
    labels: Sequence[Label],
    lines: Sequence[tuple[float, float]],
    *,
    keep_off: Sequence[Bbox] = (),
) -> None:
    """Draw labels, each where it covers the least; the first ones choose first.

    Args:
        axes: What to draw into; its limits and place must be final.
        labels: The labels.
        lines: Places along what is drawn, in data coordinates; labels keep off them.
        keep_off: Boxes in pixels that labels keep off.
    """
    figure = axes.figure
    assert isinstance(figure, Figure)
    renderer = text_renderer(figure)
    pixel = figure.dpi / 72.0
    drawn = [axes.transData.transform(point) for point in lines]
    taken = [Bbox.from_bounds(x - 4 * pixel, y - 4 * pixel, 8 * pixel, 8 * pixel) for x, y in drawn]
    boxes = list(keep_off)
    whole = axes.get_window_extent(renderer)
    for label in labels:
        text = axes.annotate(
            label.text,
            label.at,
            xytext=(0, 0),
            textcoords="offset points",
            parse_math=False,
            **label.style,
        )
        text.set_gid(label.gid)
        size = text.get_window_extent(renderer)
        x, y = axes.transData.transform(label.at)
        best: tuple[float, Bbox, float, float, float] | None = None
        for radius in (13.0, 19.0, 28.0, 40.0, 56.0, 76.0):
            for angle in _ANGLES:
                east, north = math.sin(math.radians(angle)), math.cos(math.radians(angle))
                # The box touches the circle of this radius from outside.
                left = x + radius * pixel * east - size.width * (1 - east) / 2
                low = y + radius * pixel * north - size.height * (1 - north) / 2
                box = Bbox.from_bounds(left, low, size.width, size.height)
                cost = 0.6 * radius + _cost(box, boxes, taken, whole, pixel)
                if label.toward is not None:
                    cost += 0.12 * abs((angle - label.toward + 180) % 360 - 180)
                if best is None or cost < best[0]:
                    best = (cost, box, radius, left, low)
        assert best is not None
        _, box, radius, left, low = best
        text.set_position(((left - x) / pixel, (low - y) / pixel))
        text.set_horizontalalignment("left")
        text.set_verticalalignment("bottom")
        boxes.append(box)
        if radius > _LEAD:
            axes.annotate(
                "",
                label.at,
                xytext=(
                    (min(max(x, box.x0), box.x1) - x) / pixel,
                    (min(max(y, box.y0), box.y1) - y) / pixel,
                ),
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": "#777777", "lw": 0.6, "shrinkB": 5, "shrinkA": 1},
                zorder=3,
            )


def _cost(box: Bbox, boxes: Sequence[Bbox], taken: Sequence[Bbox], whole: Bbox, pixel: float) -> float:
    """How bad a place is: what it covers, and how far it is outside."""
    wide = box.padded(2 * pixel)
    cost = sum(80.0 + _overlap(wide, other) / pixel**2 for other in boxes if wide.overlaps(other))
    cost += sum(12.0 for other in taken if box.overlaps(other))
    out = max(whole.x0 - box.x0, box.x1 - whole.x1, whole.y0 - box.y0, box.y1 - whole.y1, 0.0)
    return cost + 40.0 * out / pixel


def _overlap(a: Bbox, b: Bbox) -> float:
    both = Bbox.intersection(a, b)
    return 0.0 if both is None else both.width * both.height

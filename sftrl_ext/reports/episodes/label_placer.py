"""Places labels in a drawing so that they cover little of it and not each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from sftrl_ext.reports.figures.style import text_renderer

_RADII = (13.0, 19.0, 28.0, 40.0, 56.0, 76.0)
"""Distances of a label from its point that are tried, in points of the figure."""

_LEAD = 24.0
"""A label farther than this from its point gets a line to it."""


@dataclass(frozen=True)
class Label:
    """Text that belongs to a point.

    Attributes:
        text: The text.
        at: The point, in data coordinates.
        toward: Preferred side of the point, as a heading in degrees; None if any.
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
        axes: The axes; limits and position must be final.
        labels: The labels.
        lines: Points along the drawn lines, in data coordinates; labels avoid them.
        keep_off: Boxes in pixels that labels avoid more.
    """
    figure = axes.figure
    assert isinstance(figure, Figure)
    renderer = text_renderer(figure)
    # Pixels per point of the figure; transformed coordinates are pixels, offsets of texts are points.
    pixel = figure.dpi / 72.0
    around_lines = [
        Bbox.from_bounds(x, y, 0, 0).padded(4 * pixel) for x, y in axes.transData.transform(lines)
    ]
    boxes = list(keep_off)
    frame = axes.get_window_extent(renderer)
    for label in labels:
        text = axes.annotate(
            label.text, label.at, xytext=(0, 0), textcoords="offset points", ha="left", va="bottom",
            parse_math=False, gid=label.gid, **label.style,
        )  # fmt: skip
        size = text.get_window_extent(renderer).size
        point = axes.transData.transform(label.at)

        def box(candidate: tuple[float, int], size: Any = size, point: Any = point) -> Bbox:
            """Box of a label that touches the circle of a radius around its point from outside."""
            radius, angle = candidate
            toward = np.array([math.sin(math.radians(angle)), math.cos(math.radians(angle))])
            return Bbox.from_bounds(*(point + radius * pixel * toward - size * (1 - toward) / 2), *size)

        def cost(candidate: tuple[float, int], label: Label = label, box: Any = box) -> float:
            # Penalties: 100 for each other label or kept-off box covered, 40 a point beyond the frame, 12 for
            # each point of a line covered, 0.6 a point of distance, 0.12 a degree from the preferred side.
            bounds = box(candidate)
            outside = max(*(frame.min - bounds.min), *(bounds.max - frame.max), 0.0) / pixel
            turned = 0 if label.toward is None else abs((candidate[1] - label.toward + 180) % 360 - 180)
            covered = 100 * bounds.padded(2 * pixel).count_overlaps(boxes)
            covered += 12 * bounds.count_overlaps(around_lines)
            return covered + 40 * outside + 0.6 * candidate[0] + 0.12 * turned

        best = min(product(_RADII, range(0, 360, 30)), key=cost)
        bounds = box(best)
        left, low = (bounds.min - point) / pixel
        text.set_position((left, low))
        boxes.append(bounds)
        if best[0] > _LEAD:
            nearest = np.clip(point, bounds.min, bounds.max)
            axes.annotate(
                "", label.at, xytext=(nearest - point) / pixel, textcoords="offset points", zorder=3,
                arrowprops={"arrowstyle": "-", "color": "#777777", "lw": 0.6, "shrinkB": 5, "shrinkA": 1},
            )  # fmt: skip

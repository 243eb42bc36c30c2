"""Parts that the paper's figures share: curves, colours of learning rates, opacity for compute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sftrl_ext.reports.analysis.arms import kind_colour
from sftrl_ext.reports.analysis.curves import Checkpoint, Curve
from sftrl_ext.reports.analysis.splits import lr_label
from sftrl_ext.reports.figures.style import FAINT, MARKERS, START_COLOUR, percent_axis
from sftrl_ext.reports.figures.success_figure import Points, curve_points, draw_curve
from sftrl_ext.reports.paper.runs import GigaScale, PaperRun, compute_label
from sftrl_ext.runs.stats import PER_RESPONSE, SMOOTHING_ORDER, smoothing_window

RATE_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#7A3B5E", "#222222")
"""Learning rates in ascending order."""

BOUND_COLOUR = "#B03A2E"
"""The paper's bounds and best results of others."""

FAINTEST = 0.22
"""Opacity of a checkpoint without compute."""


def rate_colour(lr: float | None, rates: Sequence[float | None]) -> str:
    """Colour of a learning rate among all of the figure's."""
    return RATE_COLOURS[rates.index(lr) % len(RATE_COLOURS)]


def rate_marker(lr: float | None, rates: Sequence[float | None]) -> str:
    """Marker of a learning rate among all of the figure's."""
    return MARKERS[rates.index(lr) % len(MARKERS)]


def curve_with_start(run: PaperRun, curve: Curve, split: str, metric: str, scale: GigaScale) -> Points:
    """Points of a curve from its start on, with compute in units of the axis."""
    groups = [*([curve.start] if curve.start else []), *curve.steps()]
    return [(x / scale.divisor, y, e) for x, y, e in curve_points(groups, split, run.axis, metric)]


def draw_against_compute(
    axes: Axes,
    run: PaperRun,
    split: str,
    metric: str,
    scale: GigaScale,
    styles: Sequence[tuple[Curve, str, str]],
) -> bool:
    """Draw curves on a split, smoothed where they have points enough, and a level line at each start.

    Args:
        axes: The panel.
        run: The run.
        split: The split.
        metric: A name of `curves.METRICS`.
        scale: Scale of the compute axis.
        styles: The curves, each with its colour and marker.

    Returns:
        False if there was nothing to draw.
    """
    drawn = False
    starts: dict[frozenset[tuple[str, int]], list[Checkpoint]] = {}
    for curve, colour, marker in styles:
        points = curve_with_start(run, curve, split, metric, scale)
        if not points:
            continue
        drawn = True
        draw_curve(axes, points, colour, marker, "-")
        if curve.start:
            starts[curve.start_key] = curve.start
    for start in starts.values():
        draw_start(axes, run, start, split, metric, scale)
    percent_axis(axes)
    axes.margins(x=0.05, y=0.12)
    axes.xaxis.set_major_locator(even_ticks(5))
    axes.yaxis.set_major_locator(even_ticks(6))
    # An axis ends a little above 100 %, and a curve that is 0 everywhere still gets some height.
    low, high = axes.get_ylim()
    high = min(max(high, 0.5), 104.0)
    axes.set_ylim(max(low, -0.04 * high), high)
    return drawn


def even_ticks(count: int) -> MaxNLocator:
    """Ticks at multiples of 1, 2 or 5 times a power of ten, ``count`` steps at most."""
    return MaxNLocator(count, steps=[1, 2, 5, 10])


def draw_start(
    axes: Axes, run: PaperRun, start: list[Checkpoint], split: str, metric: str, scale: GigaScale
) -> None:
    """Draw a start as a grey diamond with a dotted line at its level."""
    for x, y, e in curve_points([start], split, run.axis, metric):
        axes.axhline(y, color=FAINT, lw=0.9, ls=(0, (1, 2)), zorder=1)
        axes.errorbar(
            x / scale.divisor, y, e, fmt="D", ms=5.5, color=START_COLOUR, mec="white", mew=0.7,
            elinewidth=1.0, zorder=6,
        )  # fmt: skip


def draw_bound(axes: Axes, value: float) -> None:
    """Draw a bound of the paper as a dashed line."""
    axes.axhline(value, color=BOUND_COLOUR, lw=1.1, ls=(0, (5, 3)), zorder=1.5)


def bound_handle(label: str) -> Line2D:
    """Legend entry of `draw_bound`."""
    return Line2D([], [], label=label, color=BOUND_COLOUR, lw=1.1, ls=(0, (5, 3)))


def start_handle(label: str = "Init") -> Line2D:
    """Legend entry of a start."""
    return Line2D([], [], label=label, color=START_COLOUR, marker="D", ms=5.5, ls=":", lw=0.9, mec="white")


def kind_handle(kind: str, label: str) -> Line2D:
    """Legend entry of the headline curve of a kind of arm."""
    return Line2D([], [], label=label, color=kind_colour(kind), marker="o", ms=5, mew=0, lw=1.5)


def kind_styles(run: PaperRun) -> list[tuple[Curve, str, str]]:
    """The headline curves of a run with the colour of their kind of arm, and a marker."""
    return [(curve, kind_colour(run.analysis.arms.kind(curve.arm)), "o") for curve in run.contestants()]


def smoothing_handle(panels: Sequence[Axes]) -> list[Line2D]:
    """Legend entry of the smoothing, if any curve of some panels is smoothed."""
    lines = [line for panel in panels for line in panel.lines if line.get_linestyle() == "-"]
    if not any(smoothing_window(len(np.asarray(line.get_xdata()))) for line in lines):
        return []
    text = f"line: Savitzky-Golay, order {SMOOTHING_ORDER}"
    return [Line2D([], [], label=text, color=FAINT, lw=1.3)]


def dagger_handle(runs: Sequence[PaperRun]) -> list[Line2D]:
    """Legend entry of errors that take responses as independent, if a run has such."""
    if not any(run.analysis.metric == "steps" and run.analysis.per_response for run in runs):
        return []
    return [Line2D([], [], ls="", label=f"{PER_RESPONSE} SE per response")]


def rate_handles(rates: Sequence[float | None]) -> list[Line2D]:
    """Legend entries of learning rates, ascending."""
    handles = []
    for lr in rates:
        colour, marker = rate_colour(lr, rates), rate_marker(lr, rates)
        label = f"lr {lr_label(lr)}"
        handles.append(Line2D([], [], label=label, color=colour, marker=marker, ms=5, mew=0, lw=1.5))
    return handles


def label_compute(figure: Figure, run: PaperRun, scale: GigaScale) -> None:
    """Label the shared compute axis below a figure."""
    figure.supxlabel(compute_label(run, scale.unit), fontsize=9)


def opacity(cost: float | None, reach: float) -> float:
    """Opacity of a checkpoint: grows with compute up to 1 at the largest of the figure."""
    part = 1.0 if cost is None or not reach else cost / reach
    return FAINTEST + (1.0 - FAINTEST) * min(1.0, part)


def add_opacity_bar(figure: Figure, panels: Sequence[Axes], run: PaperRun) -> None:
    """Add a bar beside some panels that shows which opacity means how much compute."""
    scale = GigaScale.of(run.reach, run.axis)
    light = [1.0 - FAINTEST * 0.87] * 3
    dark = [0.13] * 3
    colours = LinearSegmentedColormap.from_list("compute", [light, dark])
    bar = figure.colorbar(
        ScalarMappable(Normalize(0.0, run.reach / scale.divisor), colours),
        ax=list(panels),
        aspect=30,
        pad=0.02,
    )
    bar.set_label(f"Opacity: {compute_label(run, scale.unit)}", fontsize=8)
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.yaxis.set_major_locator(even_ticks(5))


def bound_of(run: PaperRun, split: str, metric: str) -> float | None:
    """The paper's bound on a split, where it gives one for any arm."""
    entries: Any = [e for e in run.analysis.paper(metric) if e.split == split and e.says == "at_most"]
    return max((value for entry in entries for value in entry.values.values()), default=None)

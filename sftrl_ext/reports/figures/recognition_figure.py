"""Figures: how often the cards of a picture are recognized, against compute and against success."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sftrl_ext.reports.analysis.curves import Checkpoint, mean_over_seeds
from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.figures.style import (
    FAINT,
    START_COLOUR,
    draw_guides,
    lr_line,
    lr_marker,
    percent_axis,
    put_legend,
)
from sftrl_ext.reports.figures.success_figure import (
    against_compute,
    all_rates,
    curve_handle,
    split_panels,
    start_label,
)

Spot = tuple[float, float, float, float]
"""(success, recognition, SE of success, SE of recognition), in percent."""


def recognized_splits(analysis: Analysis) -> list[str]:
    """The splits whose records say if cards were recognized."""
    curves = analysis.curves
    points = [curves.start, *(group for curve in curves.arms for group in curve.steps())]
    return [
        s for s in curves.splits if any(mean_over_seeds(group, s, "recognition") for group in points if group)
    ]


def recognition_against_compute(analysis: Analysis) -> Figure | None:
    """Draw recognition on every split against compute, on the axis of the comparison; None for text."""
    splits = recognized_splits(analysis)
    axis = analysis.equal.axis or next(iter(analysis.axes), "")
    if not splits or not axis:
        return None
    label = "First responses that name the right cards (± SE)"
    return against_compute(analysis, axis, "recognition", label, splits)


def _spot(group: list[Checkpoint], split: str) -> Spot | None:
    x, y = mean_over_seeds(group, split), mean_over_seeds(group, split, "recognition")
    return (100 * x.p, 100 * y.p, 100 * x.se, 100 * y.se) if x and y else None


def _draw_panel(axes: Axes, analysis: Analysis, split: str) -> None:
    curves, rates = analysis.curves, all_rates(analysis)
    start = _spot(curves.start, split) if curves.start else None
    for curve in curves.arms:
        colour = analysis.arms.colour(curve.arm)
        way = [spot for group in curve.steps() if (spot := _spot(group, split))]
        begin = _spot(curve.start, split) if curve.start else None
        spots = ([begin] if begin else []) + way
        line = lr_line(curve.lr, curves.rates(curve.arm))
        axes.plot(
            [s[0] for s in spots], [s[1] for s in spots], line, lw=1.1, color=colour, alpha=0.6, zorder=2
        )
        marker = lr_marker(curve.lr, rates)
        for index, (x, y, dx, dy) in enumerate(way, start=1):
            part, last = index / len(way), index == len(way)
            axes.errorbar(
                x, y, xerr=dx, yerr=dy, fmt="none", ecolor=colour, elinewidth=1.3 if last else 0.7,
                alpha=1.0 if last else 0.35, zorder=3 + last,
            )  # fmt: skip
            axes.plot(
                x, y, marker, color=colour, ms=3.0 + 4.5 * part, mew=0.9 if last else 0, mec="white",
                alpha=0.45 + 0.55 * part**2, zorder=3.5 + part,
            )  # fmt: skip
    if start:
        x, y, dx, dy = start
        draw_guides(axes, x, y)
        axes.errorbar(
            x, y, xerr=dx, yerr=dy, fmt="D", ms=6.5, color=START_COLOUR, mec="white", mew=0.8,
            elinewidth=1.2, zorder=6,
        )  # fmt: skip
    axes.set_title(analysis.split_title(split))
    axes.margins(0.1)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    percent_axis(axes)
    percent_axis(axes, "x")


def recognition_against_success(analysis: Analysis) -> Figure | None:
    """Draw recognition (upward) against success, one panel for each split; None for text."""
    splits, curves = recognized_splits(analysis), analysis.curves
    if not splits or not curves.arms:
        return None
    figure, panels = split_panels(splits, height=2.6)
    for split, panel in panels.items():
        _draw_panel(panel, analysis, split)
    figure.supxlabel("Success per episode (± SE)", fontsize=9)
    figure.supylabel("First responses that name the right cards (± SE)", fontsize=9)
    handles = [curve_handle(analysis, curve) for curve in curves.arms]
    handles.append(Line2D([], [], label=start_label(analysis), color=START_COLOUR, marker="D", ls="", ms=6.5))
    handles.append(
        Line2D([], [], label="larger point: later in training", color=FAINT, marker="o", mew=0, ls="", ms=3.5)
    )
    put_legend(figure, handles, max(len(curves.rates(arm)) for arm in curves.arm_names()))
    return figure

"""Figure: the change out of distribution against the divergence from the start, one point per checkpoint."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator

from sftrl_ext.reports.analysis.forgetting import drift
from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.figures.style import (
    FAINT,
    START_COLOUR,
    WIDTH,
    lr_line,
    lr_marker,
    put_legend,
)
from sftrl_ext.reports.figures.success_figure import all_rates, curve_handle, start_label


def _draw_panel(axes: Axes, analysis: Analysis, split: str) -> bool:
    """Draw one split; whether there was anything."""
    rates, reach = all_rates(analysis), 0.0
    for curve in analysis.curves.arms:
        way = [moved for group in curve.steps() if (moved := drift(group, curve, split))]
        if not way:
            continue
        colour = analysis.arms.colour(curve.arm)
        xs, ys = [p.divergence.nats for p in way], [100 * p.change.delta for p in way]
        errors = [p.divergence.se or 0.0 for p in way], [100 * p.change.se for p in way]
        reach = max(reach, *(x + dx for x, dx in zip(xs, errors[0], strict=True)))
        line = lr_line(curve.lr, analysis.curves.rates(curve.arm))
        axes.plot([0.0, *xs], [0.0, *ys], line, lw=1.1, color=colour, alpha=0.55, zorder=2)
        axes.errorbar(
            xs, ys, xerr=errors[0], yerr=errors[1], fmt=lr_marker(curve.lr, rates), ms=5.5, mew=0,
            color=colour, elinewidth=0.9, alpha=0.9, zorder=3,
        )  # fmt: skip
    if not reach:
        return False
    axes.axhline(0.0, color=FAINT, lw=0.8, ls=(0, (1, 2)), zorder=1)
    axes.plot(0.0, 0.0, "D", ms=6.5, color=START_COLOUR, mec="white", mew=0.8, zorder=6, clip_on=False)
    # A divergence grows with the square of how far the weights are, so its root spreads the first steps.
    axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0.0)), np.square))
    axes.set_xlim(0.0, 1.06 * reach)
    axes.xaxis.set_major_locator(FixedLocator(_ticks(reach)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")
    axes.set_title(analysis.split_title(split))
    axes.margins(y=0.12)
    return True


def _ticks(reach: float) -> list[float]:
    """Six ticks about evenly spaced on a root scale, each a number of one digit, or of two from 1 to 1.9."""
    ticks = set()
    for part in range(6):
        value = reach * (part / 5) ** 2
        ticks.add(float(f"{value:.1e}" if f"{value:.0e}".startswith("1") else f"{value:.0e}"))
    return sorted(ticks)


def change_against_divergence(analysis: Analysis) -> Figure | None:
    """Draw the figure: one panel for each verdict's split; None where no divergence was measured."""
    splits, curves = analysis.main_splits, analysis.curves
    if not splits:
        return None
    figure = Figure(figsize=(WIDTH if len(splits) > 1 else 6.4, 4.4), layout="constrained")
    panels = figure.subplots(1, len(splits), squeeze=False)[0]
    drawn = [_draw_panel(panel, analysis, split) for panel, split in zip(panels, splits, strict=True)]
    if not any(drawn):
        return None
    figure.supxlabel(
        "KL(start || checkpoint) on the task trained on, nats per token (± SE; root scale)", fontsize=9
    )
    figure.supylabel(f"{analysis.measure}: change from the start in points (± SE)", fontsize=9)
    start = start_label(analysis) if curves.one_start else "Start of each arm"
    handles = [curve_handle(analysis, curve) for curve in curves.arms]
    handles.append(Line2D([], [], label=start, color=START_COLOUR, marker="D", ls="", ms=6.5))
    put_legend(figure, handles, max(len(curves.rates(arm)) for arm in curves.arm_names()))
    return figure

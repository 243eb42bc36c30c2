"""Figure: the start and the arms of several runs against the key that sets the runs apart."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sftrl_ext.reports.figures.style import MARKERS, START_COLOUR, mark_figure, percent_axis, put_legend
from sftrl_ext.reports.figures.success_figure import split_panels
from sftrl_ext.reports.varied_runs import VariedRuns, value_text

_SPREAD = 0.08
"""Distance of neighbouring arms along the axis, in steps from value to value."""


def success_against_key(runs: VariedRuns) -> Figure:
    """Draw the main measure on every split; the values stand side by side, whatever lies between them."""
    figure, panels = split_panels(runs.splits)
    names = runs.arm_names
    analysis = runs.runs[0].analysis
    start = analysis.curves.start_arm
    colours = {arm: START_COLOUR if arm == start else runs.arms.colour(arm) for arm in names}
    for split, panel in panels.items():
        for number, arm in enumerate(names):
            shift = _SPREAD * (number - (len(names) - 1) / 2)
            measures = [(x, run.measure(arm, split)) for x, run in enumerate(runs.runs)]
            points = [(x + shift, 100 * m.p, 100 * m.se) for x, m in measures if m is not None]
            if points:
                xs, ys, errors = zip(*points, strict=True)
                panel.errorbar(
                    xs, ys, errors, fmt=MARKERS[number % len(MARKERS)], ls="-", lw=1.2, ms=4.5, mew=0,
                    color=colours[arm], elinewidth=1.0,
                )  # fmt: skip
        panel.set_xticks(range(len(runs.runs)), [value_text(run.value) for run in runs.runs])
        panel.set_xlim(-0.4, len(runs.runs) - 0.6)
        panel.set_title(analysis.split_title(split))
        percent_axis(panel)
        low, high = panel.get_ylim()
        panel.set_ylim(max(low, -1.5), high)
    figure.supxlabel(runs.key, fontsize=9)
    figure.supylabel(analysis.axis_label(analysis.metric), fontsize=9)
    handles = [
        Line2D([], [], label=runs.arms.label(arm), color=colours[arm], marker=MARKERS[number % len(MARKERS)],
               lw=1.2, ms=6, mew=0)
        for number, arm in enumerate(names)
    ]  # fmt: skip
    put_legend(figure, handles, 1)
    if runs.no_claim is not None:
        mark_figure(figure, runs.no_claim)
    return figure

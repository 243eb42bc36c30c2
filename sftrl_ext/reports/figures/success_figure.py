"""Figure: success on every split against compute, both arms from the shared start."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sftrl_ext.reports.analysis.curves import Checkpoint, Curve, mean_cost, mean_over_seeds
from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.analysis.splits import in_rows, lr_label
from sftrl_ext.reports.figures.style import (
    FAINT,
    START_COLOUR,
    WIDTH,
    lr_line,
    lr_marker,
    percent_axis,
    put_legend,
)
from sftrl_ext.runs.compute import AXIS_TITLES, scaled
from sftrl_ext.runs.stats import SMOOTHING_ORDER, savitzky_golay, smoothing_window

Points = list[tuple[float, float, float]]
"""(x, success in percent, standard error in percent)."""


def curve_points(groups: list[list[Checkpoint]], split: str, axis: str, metric: str = "main") -> Points:
    """Points of a curve on a split: one per step that has a cost on ``axis`` and a result."""
    points = []
    for group in groups:
        x, y = mean_cost(group, axis), mean_over_seeds(group, split, metric)
        if x is not None and y is not None:
            points.append((x, 100 * y.p, 100 * y.se))
    return points


def draw_curve(axes: Axes, points: Points, colour: str, marker: str, line: str) -> None:
    """Draw points with error bars and a line, which is smoothed where there are points enough."""
    xs, ys, errors = (list(column) for column in zip(*points, strict=True))
    window = smoothing_window(len(points))
    axes.errorbar(
        xs, ys, errors, fmt=marker, ms=4.2 if window is None else 3.4, mew=0, color=colour,
        ecolor=colour, elinewidth=1.0, capsize=0, alpha=0.95 if window is None else 0.55, zorder=3,
    )  # fmt: skip
    if window is None:
        axes.plot(xs, ys, line, lw=1.2, color=colour, zorder=2)
    else:
        smooth = savitzky_golay(ys, window, SMOOTHING_ORDER)
        axes.plot(xs, smooth, line, lw=1.3, color=colour, zorder=4)


def _legend(analysis: Analysis, smoothed: bool) -> list[Line2D]:
    handles = []
    rates = all_rates(analysis)
    for curve in analysis.curves.arms:
        name = curve_name(analysis, curve, len(analysis.curves.rates(curve.arm)) > 1)
        handles.append(
            Line2D(
                [], [], label=name, color=analysis.arms.colour(curve.arm), lw=1.6, ms=6,
                ls=lr_line(curve.lr, analysis.curves.rates(curve.arm)),
                marker=lr_marker(curve.lr, rates), mew=0,
            )
        )  # fmt: skip
    grey = START_COLOUR
    handles.append(
        Line2D([], [], label=start_label(analysis), color=grey, marker="D", ls="", ms=6, mec="white")
    )
    if analysis.curves.base and analysis.curves.start_arm != "base":
        handles.append(Line2D([], [], label="Base model", color="none", marker="D", mec=grey, ms=5, ls=""))
    if smoothed:
        handles.append(
            Line2D([], [], label=f"thin line: Savitzky-Golay, order {SMOOTHING_ORDER}", color=FAINT, lw=1.2)
        )
    return handles


def all_rates(analysis: Analysis) -> list[float | None]:
    """Every learning rate of the compared arms, ascending: one marker each."""
    return sorted({curve.lr for curve in analysis.curves.arms}, key=lambda lr: lr or 0.0)


def success_against_compute(analysis: Analysis, axis: str) -> Figure | None:
    """Draw the figure on one compute axis; None if there is nothing to draw on it.

    Args:
        analysis: The analysed run.
        axis: One of `compute.AXES`.
    """
    return against_compute(
        analysis, axis, analysis.metric, analysis.axis_label(analysis.metric), analysis.curves.splits
    )


def routes_against_compute(analysis: Analysis) -> Figure | None:
    """Draw the success of whole routes on the axis of the comparison; None where it is the main measure."""
    axis = analysis.equal.axis or next(iter(analysis.axes), "")
    if analysis.metric != "steps" or not axis:
        return None
    return against_compute(
        analysis, axis, "success", "Routes walked to the end (± SE)", analysis.curves.splits
    )


def against_compute(
    analysis: Analysis, axis: str, metric: str, label: str, splits: Sequence[str]
) -> Figure | None:
    """Draw a metric against compute, one panel for each split; None if there is nothing to draw.

    Args:
        analysis: The analysed run.
        axis: One of `compute.AXES`.
        metric: A name of `curves.METRICS`.
        label: What it is called on the axis.
        splits: The splits that have it.
    """
    curves = analysis.curves
    reach = max((r for c in curves.arms if (r := c.reach(axis)) is not None), default=None)
    if reach is None or not splits:
        return None
    divisor, unit = scaled(reach, axis)
    figure, panels = split_panels(splits)
    rates, smoothed, marked = all_rates(analysis), False, False
    for split, panel in panels.items():
        start = curve_points([curves.start], split, axis, metric) if curves.start else []
        path = curve_points(curves.path.steps(), split, axis, metric) if curves.path else []
        apart = curves.base if curves.start_arm != "base" else []
        base = curve_points([apart], split, axis, metric) if apart else []
        lead = [(x / divisor, y, e) for x, y, e in base + path]
        if len(lead) > 1:
            panel.plot([p[0] for p in lead], [p[1] for p in lead], ":", lw=1.1, color=FAINT, zorder=1)
        if base:
            panel.plot(base[0][0] / divisor, base[0][1], "D", ms=4.5, mfc="white", mec=FAINT, zorder=3)
        for curve in curves.arms:
            begin = curve_points([curve.start], split, axis, metric) if curve.start else []
            spots = begin + curve_points(curve.steps(), split, axis, metric)
            points = [(x / divisor, y, e) for x, y, e in spots]
            if points:
                colour = analysis.arms.colour(curve.arm)
                line = lr_line(curve.lr, curves.rates(curve.arm))
                draw_curve(panel, points, colour, lr_marker(curve.lr, rates), line)
                smoothed = smoothed or smoothing_window(len(points)) is not None
        for x, y, e in start:
            panel.axhline(y, color=FAINT, lw=0.8, ls=(0, (1, 2)), zorder=1)
            panel.errorbar(
                x / divisor, y, e, fmt="D", ms=6.5, color=START_COLOUR, mec="white", mew=0.8,
                elinewidth=1.0, zorder=6,
            )  # fmt: skip
        marked = marked or _mark_paper(panel, analysis, split, metric)
        panel.set_title(analysis.split_title(split))
        percent_axis(panel)
        panel.margins(x=0.04, y=0.12)
        low, high = panel.get_ylim()
        panel.set_ylim(max(low, -1.5), high)
    figure.supxlabel(f"{AXIS_TITLES[axis]} ({unit})", fontsize=9)
    figure.supylabel(label, fontsize=9)
    handles = _legend(analysis, smoothed)
    if marked:
        label = next(e.label for e in analysis.expected if e.of_recognition)
        handles.append(Line2D([], [], label=label, color=FAINT, marker="<", mfc="white", ms=6, ls=""))
    put_legend(figure, handles, max(len(curves.rates(arm)) for arm in curves.arm_names()))
    return figure


def _mark_paper(axes: Axes, analysis: Analysis, split: str, metric: str) -> bool:
    """Mark the paper's numbers for recognition at the right edge of a panel; whether there are any."""
    entries = [
        e for e in analysis.expected if e.of_recognition and e.split == split and metric == "recognition"
    ]
    for entry in entries:
        for arm, value in entry.values.items():
            axes.plot(
                1.02, value, "<", ms=6, mfc="white", mec=analysis.arms.colour(arm),
                transform=axes.get_yaxis_transform(), clip_on=False, zorder=7,
            )  # fmt: skip
    return bool(entries)


def split_panels(splits: Sequence[str], height: float = 2.45) -> tuple[Figure, dict[str, Axes]]:
    """A figure with one panel for each split, up to three to a row, and room for a legend.

    Args:
        splits: The splits in order.
        height: Of a row, in inches.
    """
    rows = in_rows(splits, min(3, len(splits)) if len(splits) != 4 else 2)
    columns = max(len(row) for row in rows)
    figure = Figure(figsize=(WIDTH, height * len(rows) + 0.75), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    panels: dict[str, Axes] = {}
    for row, strip in zip(rows, grid, strict=True):
        panels.update(zip(row, strip, strict=False))
        for panel in strip[len(row) :]:
            panel.set_axis_off()
    return figure, panels


def start_label(analysis: Analysis) -> str:
    """The shared start as a legend has it."""
    return f"{analysis.arms.label(analysis.curves.start_arm)} (shared start)"


def curve_handle(analysis: Analysis, curve: Curve) -> Line2D:
    """The entry of a curve in the legend of a figure without a compute axis."""
    rates = analysis.curves.rates(curve.arm)
    return Line2D(
        [], [], label=curve_name(analysis, curve, len(rates) > 1), color=analysis.arms.colour(curve.arm),
        marker=lr_marker(curve.lr, all_rates(analysis)), ls=lr_line(curve.lr, rates), ms=7, mew=0, lw=1.3,
    )  # fmt: skip


def curve_name(analysis: Analysis, curve: Curve, several: bool) -> str:
    """Name of a curve for a legend; learning rate and seeds only where there are several."""
    name = analysis.arms.label(curve.arm) + (f", lr {lr_label(curve.lr)}" if several else "")
    return name + (f" ({curve.seed_count} seeds)" if curve.seed_count > 1 else "")

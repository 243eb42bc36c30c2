"""Figure: success out of distribution against in distribution, for every arm, learning rate and seed."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sftrl_ext.reports.analysis.curves import Checkpoint, Curve, mean_over_seeds
from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.analysis.splits import is_ood
from sftrl_ext.reports.analysis.verdict import ID_SPLIT
from sftrl_ext.reports.figures.style import (
    FAINT,
    START_COLOUR,
    WIDTH,
    draw_guides,
    lr_line,
    lr_marker,
    percent_axis,
    put_legend,
)
from sftrl_ext.reports.figures.success_figure import all_rates, curve_handle, start_label

Pair = tuple[float, float, float, float]
"""(ID success, OOD success, SE of ID, SE of OOD), in percent."""


def _pair(group: list[Checkpoint], split: str) -> Pair | None:
    x, y = mean_over_seeds(group, ID_SPLIT), mean_over_seeds(group, split)
    return (100 * x.p, 100 * y.p, 100 * x.se, 100 * y.se) if x and y else None


def _draw_seeds(axes: Axes, curve: Curve, split: str, colour: str, marker: str) -> None:
    """Draw the way of every seed by itself, thin, with a small marker at its end; nothing for one seed."""
    for checkpoints in curve.seeds.values() if len(curve.seeds) > 1 else ():
        start = [c for c in curve.start if c.seed == checkpoints[0].seed] or curve.start
        pairs = (_pair(group, split) for group in [start, *([c] for c in checkpoints)] if group)
        way = [pair[:2] for pair in pairs if pair]
        if way:
            axes.plot(*zip(*way, strict=True), "-", lw=0.6, color=colour, alpha=0.3, zorder=1.6)
            axes.plot(*way[-1], marker, ms=3, mew=0, color=colour, alpha=0.45, zorder=1.7)


def _draw_panel(axes: Axes, analysis: Analysis, split: str, large: bool) -> None:
    curves, rates = analysis.curves, all_rates(analysis)
    start = _pair(curves.start, split) if curves.start else None
    for curve in curves.arms:
        colour = analysis.arms.colour(curve.arm)
        marker, line = lr_marker(curve.lr, rates), lr_line(curve.lr, curves.rates(curve.arm))
        way = [pair for group in curve.steps() if (pair := _pair(group, split))]
        if not way:
            continue
        begin = _pair(curve.start, split) if curve.start else None
        spots = ([begin] if begin else []) + way
        _draw_seeds(axes, curve, split, colour, marker)
        axes.plot(
            [p[0] for p in spots], [p[1] for p in spots], line, lw=1.1, color=colour, alpha=0.55, zorder=2
        )
        for index, (x, y, _, _) in enumerate(way[:-1]):
            fade = 0.25 + 0.5 * (index + 1) / len(way)
            axes.plot(x, y, marker, ms=5 if large else 3.5, mew=0, color=colour, alpha=fade, zorder=3)
        x, y, dx, dy = way[-1]
        axes.errorbar(
            x, y, xerr=dx, yerr=dy, fmt=marker, ms=9 if large else 6, color=colour, mec="white", mew=0.9,
            elinewidth=1.3, zorder=5,
        )  # fmt: skip
    if start:
        x, y, dx, dy = start
        draw_guides(axes, x, y)
        axes.errorbar(
            x, y, xerr=dx, yerr=dy, fmt="D", ms=9 if large else 6, color=START_COLOUR, mec="white",
            mew=0.9, elinewidth=1.3, zorder=6,
        )  # fmt: skip
    axes.set_title(analysis.split_title(split))
    axes.margins(0.12)
    if not large:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    percent_axis(axes)
    percent_axis(axes, "x")


def _name_corners(axes: Axes) -> None:
    corners = (
        (0.985, 0.985, "right", "top", "generalizes: both up"),
        (0.985, 0.015, "right", "bottom", "memorizes: ID up, OOD down"),
    )
    for x, y, across, up, text in corners:
        axes.text(
            x, y, text, transform=axes.transAxes, ha=across, va=up, fontsize=8.5, style="italic", color=FAINT,
            zorder=1.5, bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
        )  # fmt: skip


def _beside_one(others: int) -> tuple[Figure, list[Axes], list[Axes]]:
    """A figure with one large panel, and as many small ones as there are others beside it and below."""
    side = 0 if not others else 1 if others <= 2 else 2
    columns = 2 + side
    rows = 2 + -(-max(0, others - 2 * side) // columns)
    figure = Figure(figsize=(WIDTH if others else 6.4, 2.35 * rows + 0.8), layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    main = figure.add_subplot(grid[0:2, 0:2])
    cells = [(row, 2 + column) for row in range(2) for column in range(side)]
    if others == 1:
        return figure, [main], [figure.add_subplot(grid[0:2, 2])]
    cells += [(row, column) for row in range(2, rows) for column in range(columns)]
    return figure, [main], [figure.add_subplot(grid[cell]) for cell in cells[:others]]


def _side_by_side(large: int, others: int) -> tuple[Figure, list[Axes], list[Axes]]:
    """A figure with several large panels in a row, and below them the others, three to a row."""
    rows = -(-others // 3)
    figure = Figure(figsize=(WIDTH, 4.2 + 2.35 * rows + 0.8), layout="constrained")
    grid = figure.add_gridspec(1 + rows, 3 * large, height_ratios=[4.2] + [2.35] * rows)
    mains = [figure.add_subplot(grid[0, 3 * i : 3 * i + 3]) for i in range(large)]
    cells = [divmod(i, 3) for i in range(others)]
    return (
        figure,
        mains,
        [figure.add_subplot(grid[1 + row, large * column : large * (column + 1)]) for row, column in cells],
    )


def ood_against_id(analysis: Analysis) -> Figure | None:
    """Draw the figure: the verdict's split large, the other out-of-distribution splits small beside it.

    With several verdicts their splits stand side by side, and the others below them.

    Returns:
        None if no out-of-distribution split was evaluated together with the split `id`.
    """
    curves = analysis.curves
    if analysis.split is None or ID_SPLIT not in curves.splits or not curves.arms:
        return None
    large = analysis.main_splits
    others = [split for split in curves.splits if is_ood(split) and split not in large]
    if len(large) > 1:
        figure, mains, panels = _side_by_side(len(large), len(others))
    else:
        figure, mains, panels = _beside_one(len(others))
    for main, split in zip(mains, large, strict=True):
        _draw_panel(main, analysis, split, large=True)
        _name_corners(main)
    for panel, split in zip(panels, others, strict=True):
        _draw_panel(panel, analysis, split, large=False)
    figure.supxlabel(f"{analysis.measure} in distribution (± SE)", fontsize=9)
    figure.supylabel(f"{analysis.measure} out of distribution (± SE)", fontsize=9)
    handles = [curve_handle(analysis, curve) for curve in curves.arms]
    handles.append(Line2D([], [], label=start_label(analysis), color=START_COLOUR, marker="D", ls="", ms=7))
    put_legend(figure, handles, max(len(curves.rates(arm)) for arm in curves.arm_names()))
    return figure

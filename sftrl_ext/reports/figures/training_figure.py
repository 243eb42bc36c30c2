"""Figure: what the trainers logged, step by step, as far as it is there."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator

from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.analysis.splits import lr_label
from sftrl_ext.reports.analysis.training import QUANTITIES, LoggedStage, Quantity, logged_stages, series
from sftrl_ext.reports.figures.style import WIDTH, lr_line, put_legend


def _draw(axes: Axes, analysis: Analysis, stages: list[LoggedStage], quantity: Quantity) -> None:
    for stage in stages:
        points = series(analysis, stage.name, quantity)
        if not points:
            continue
        rates = sorted({s.lr for s in stages if s.arm == stage.arm}, key=lambda lr: lr or 0.0)
        colour = analysis.arms.colour(stage.arm)
        axes.plot(
            [p[0] for p in points], [p[1] for p in points], lr_line(stage.lr, rates), color=colour, lw=1.1,
            alpha=0.8, marker="." if len(points) < 12 else None,
        )  # fmt: skip
    axes.margins(x=0.02)


def training_curves(analysis: Analysis) -> Figure | None:
    """Draw every logged quantity in its own panel: losses per arm, the rest for arms that learn by reward."""
    panels: list[tuple[str, list[LoggedStage], Quantity]] = []
    stages = logged_stages(analysis)
    arms = analysis.arms.order(stage.arm for stage in stages)
    for quantity in QUANTITIES:
        holders = [stage for stage in stages if series(analysis, stage.name, quantity)]
        if quantity.rl and holders:
            panels.append((quantity.title, holders, quantity))
        elif not quantity.rl:
            for arm in arms:
                trained = [stage for stage in holders if stage.arm == arm and analysis.arms.kind(arm) != "rl"]
                if trained:
                    panels.append((f"{quantity.title}: {analysis.arms.label(arm)}", trained, quantity))
    if not panels:
        return None
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH, 1.95 * rows + 0.7), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    for panel, (title, holders, quantity) in zip(grid.flat, panels, strict=False):
        _draw(panel, analysis, holders, quantity)
        panel.set_title(title)
        if quantity.title == "Loss" and len(panel.lines):
            values = [y for line in panel.lines for y in line.get_ydata()]
            if min(values) > 0 and max(values) > 8 * min(values):
                panel.set_yscale("log")
                panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                panel.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
                panel.yaxis.set_minor_locator(NullLocator())
    for panel in list(grid.flat)[len(panels) :]:
        panel.set_axis_off()
    figure.supxlabel("Training step of the stage (one line per seed)", fontsize=9)
    handles = []
    drawn = [stage for _, holders, _ in panels for stage in holders]
    for arm in analysis.arms.order(stage.arm for stage in drawn):
        rates = sorted({stage.lr for stage in drawn if stage.arm == arm}, key=lambda lr: lr or 0.0)
        for lr in rates:
            label = analysis.arms.label(arm) + (f", lr {lr_label(lr)}" if len(rates) > 1 else "")
            colour = analysis.arms.colour(arm)
            handles.append(Line2D([], [], label=label, color=colour, ls=lr_line(lr, rates), lw=1.8))
    rows = max(len({s.lr for s in drawn if s.arm == arm}) for arm in arms)
    put_legend(figure, handles, rows)
    return figure

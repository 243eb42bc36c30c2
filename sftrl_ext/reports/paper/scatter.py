"""Figures 8 and 10: two measures of a checkpoint against each other, opacity growing with compute."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sftrl_ext.reports.analysis.curves import Checkpoint, Curve, mean_cost, mean_over_seeds
from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.analysis.splits import is_ood, ood_kind
from sftrl_ext.reports.analysis.verdict import ID_SPLIT
from sftrl_ext.reports.figures.style import FAINT, START_COLOUR, WIDTH, draw_guides, percent_axis, put_legend
from sftrl_ext.reports.paper.curves import RULE_SPLIT
from sftrl_ext.reports.paper.panels import add_opacity_bar, even_ticks, opacity, start_handle
from sftrl_ext.reports.paper.runs import PaperRun

Spot = tuple[float, float, float, float]
"""(x, y, SE of x, SE of y), in percent."""

_ID_MARKER, _OOD_MARKER = "*", "o"


def recognition_and_success(runs: Sequence[PaperRun]) -> Figure | None:
    """Figure 8: recognition (upward) against success; a star in distribution joined to a circle outside it.

    One panel per kind of shift; the two ends of a line are one checkpoint.
    """
    (run,) = runs
    analysis = run.analysis
    splits = [split for split in analysis.main_splits if _spot_pair(analysis.curves.start, split) is not None]
    splits = splits or [
        s for s in analysis.curves.splits if is_ood(s) and _spot_pair(analysis.curves.start, s)
    ]
    splits.sort(key=lambda split: ood_kind(split) != "rule")
    curves = run.contestants()
    if not splits or not curves:
        return None
    figure = Figure(figsize=(WIDTH if len(splits) > 1 else 6.4, 4.3), layout="constrained")
    panels = list(figure.subplots(1, len(splits), squeeze=False, sharey=True)[0])
    for panel, split in zip(panels, splits, strict=True):
        for curve in curves:
            colour = analysis.arms.colour(curve.arm)
            steps = curve.steps()
            for group in steps:
                fade = opacity(mean_cost(group, run.axis) if run.axis else None, run.reach)
                last = group is steps[-1]
                _draw_pair(panel, group, split, colour, fade, zorder=5.0 if last else 3.0, errors=last)
        _draw_pair(panel, analysis.curves.start, split, START_COLOUR, 1.0, zorder=6.0)
        panel.set_title(f"In distribution and {analysis.split_title(split)}")
        panel.margins(0.08)
        panel.set_xlabel("Success per episode (± SE)")
        percent_axis(panel)
        percent_axis(panel, "x")
    for panel in panels:  # after all points: the panels share their upward axis
        for axis, set_limits in ((panel.xaxis, panel.set_xlim), (panel.yaxis, panel.set_ylim)):
            low, high = axis.get_view_interval()
            set_limits(max(low, -2.0), min(high, 101.0))
            axis.set_major_locator(even_ticks(6))
    panels[0].set_ylabel("Recognition: first responses with the right cards (± SE)")
    if run.reach:
        add_opacity_bar(figure, panels, run)
    handles = [_handle(analysis, curve.arm, analysis.arms.colour(curve.arm), "s") for curve in curves]
    handles.append(_handle(analysis, analysis.curves.start_arm, START_COLOUR, "s"))
    for marker, label, size in ((_ID_MARKER, "in distribution", 9), (_OOD_MARKER, "out of distribution", 6)):
        handles.append(Line2D([], [], label=label, color=FAINT, marker=marker, ls="", ms=size, mew=0))
    handles.append(Line2D([], [], label="one checkpoint", color=FAINT, lw=1.2))
    put_legend(figure, handles, 2)
    return figure


def growth_by_attempts(runs: Sequence[PaperRun]) -> Figure | None:
    """Figure 10: growth in distribution (upward) against growth under the other rule, one colour per arm.

    Growth is the change from the arm's start in points. The large point of an arm is its checkpoint at equal
    compute. The paper's growth under the other rule is a triangle at the upper edge.
    """
    (run,) = runs
    analysis = run.analysis
    figure = Figure(figsize=(WIDTH, 4.8), layout="constrained")
    panel = figure.subplots()
    drawn: list[Curve] = []
    for curve in analysis.curves.arms:
        colour = analysis.arms.colour(curve.arm)
        chosen = {(c.stage, c.step) for c in run.equal.chosen.get(curve.key, [])}
        for group in curve.steps():
            spot = _growth(group, curve)
            if spot is None:
                continue
            x, y, dx, dy = spot
            fade = opacity(mean_cost(group, run.axis) if run.axis else None, run.reach)
            main = bool(chosen & {(c.stage, c.step) for c in group})
            if main:
                panel.errorbar(x, y, xerr=dx, yerr=dy, fmt="none", ecolor=colour, elinewidth=1.2, zorder=4)
            panel.plot(
                x, y, "o", ms=10 if main else 5, color=colour, alpha=1.0 if main else fade,
                mec="white" if main else "none", mew=0.9, zorder=5 if main else 3,
            )  # fmt: skip
            drawn += [] if curve in drawn else [curve]
    if not drawn:
        return None
    draw_guides(panel, 0.0, 0.0)
    panel.plot(0.0, 0.0, "D", ms=6, color=START_COLOUR, mec="white", mew=0.8, zorder=6)
    stated = [e for e in analysis.paper_changes() if e.split == RULE_SPLIT]
    marked = [(analysis.arms.colour(arm), value) for entry in stated for arm, value in entry.values.items()]
    for colour, value in marked:
        panel.plot(
            value, 1.02, "v", ms=7, mfc="white", mec=colour, mew=1.4, clip_on=False, zorder=7,
            transform=panel.get_xaxis_transform(),
        )  # fmt: skip
    _signed(panel)
    panel.margins(0.08)
    if marked:
        low, high = panel.get_xlim()
        values = [value for _, value in marked]
        panel.set_xlim(min(low, min(values) - 0.5), max(high, max(values) + 0.5))
    panel.set_xlabel("Growth out of distribution: other rule, points from the start (± SE)")
    panel.set_ylabel("Growth in distribution, points (± SE)")
    panel.set_title(run.task_title, pad=12)
    if run.reach:
        add_opacity_bar(figure, [panel], run)
    handles = [_handle(analysis, curve.arm, analysis.arms.colour(curve.arm), "o") for curve in drawn]
    handles.append(start_handle(analysis.arms.label(analysis.curves.start_arm)))
    handles.append(
        Line2D([], [], label="large: at equal compute", color=FAINT, marker="o", ls="", ms=9, mec="white")
    )
    for label in dict.fromkeys(entry.label for entry in stated):
        handles.append(
            Line2D([], [], label=f"{label} (growth OOD)", color=FAINT, marker="v", mfc="white", ls="", ms=7)
        )
    put_legend(figure, handles, 2)
    return figure


def _handle(analysis: Analysis, arm: str, colour: str, marker: str) -> Line2D:
    """Legend entry of an arm."""
    return Line2D([], [], label=analysis.arms.label(arm), color=colour, marker=marker, ls="", ms=6.5)


def _signed(axes: Axes) -> None:
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(even_ticks(6))
        axis.set_major_formatter(lambda value, _: f"{value:+g}" if value else "0")


def _growth(group: list[Checkpoint], curve: Curve) -> Spot | None:
    """Change of a checkpoint from its start, under the other rule and in distribution."""
    numbers: list[tuple[float, float]] = []
    for split in (RULE_SPLIT, ID_SPLIT):
        moved = curve.change(group, split)
        if moved is None:
            return None
        numbers.append((100 * moved.delta, 100 * moved.se))
    (x, dx), (y, dy) = numbers
    return x, y, dx, dy


def _spot(group: list[Checkpoint], split: str) -> Spot | None:
    """Success and recognition of a checkpoint."""
    x, y = mean_over_seeds(group, split), mean_over_seeds(group, split, "recognition")
    return (100 * x.p, 100 * y.p, 100 * x.se, 100 * y.se) if x and y else None


def _spot_pair(group: list[Checkpoint], split: str) -> tuple[Spot, Spot] | None:
    inside, outside = _spot(group, ID_SPLIT), _spot(group, split)
    return (inside, outside) if group and inside and outside else None


def _draw_pair(
    panel: Axes,
    group: list[Checkpoint],
    split: str,
    colour: str,
    alpha: float,
    zorder: float = 3.0,
    errors: bool = True,
) -> None:
    """Draw one checkpoint: a star in distribution, a circle out of distribution, and the line between."""
    pair = _spot_pair(group, split)
    if pair is None:
        return
    for before, after in pairwise(pair):
        panel.plot(
            [before[0], after[0]], [before[1], after[1]], "-", lw=1.1, color=colour, alpha=0.55 * alpha,
            zorder=zorder - 1,
        )  # fmt: skip
    for (x, y, dx, dy), marker, size in zip(pair, (_ID_MARKER, _OOD_MARKER), (11, 6.5), strict=True):
        panel.plot(x, y, marker, ms=size, color=colour, mew=0, alpha=alpha, zorder=zorder)
        panel.errorbar(
            x, y, xerr=dx, yerr=dy, fmt="none", ecolor=colour, elinewidth=1.2 if errors else 0.5,
            alpha=alpha if errors else 0.35 * alpha, zorder=zorder - 0.5,
        )  # fmt: skip

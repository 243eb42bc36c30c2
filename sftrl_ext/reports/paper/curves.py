"""Figures 5, 9, 15, 16, 17, 18 and 19: success against compute."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sftrl_ext.reports.analysis.curves import Curve, mean_over_seeds
from sftrl_ext.reports.analysis.verdict import ID_SPLIT
from sftrl_ext.reports.figures.style import FAINT, WIDTH, put_legend
from sftrl_ext.reports.paper.panels import (
    bound_handle,
    bound_of,
    dagger_handle,
    draw_against_compute,
    draw_bound,
    kind_handle,
    kind_styles,
    label_compute,
    rate_colour,
    rate_handles,
    rate_marker,
    smoothing_handle,
    start_handle,
)
from sftrl_ext.reports.paper.runs import GigaScale, PaperRun, compute_label, measure_label

RULE_SPLIT = "rule_ood"
SPLIT_COLOURS = {ID_SPLIT: "#C0392B", RULE_SPLIT: "#2471A3"}
"""The paper's: red in distribution, blue out of distribution."""

ROWS = {ID_SPLIT: "In distribution", RULE_SPLIT: "Out of distribution: other rule"}


def all_tasks_over_compute(runs: Sequence[PaperRun]) -> Figure | None:
    """Figure 5: SFT and RL over compute, one column per task, in distribution above the other rule."""
    shown = [run for run in runs if run.reach and run.contestants()]
    if not shown:
        return None
    figure = Figure(figsize=(max(2.55 * len(shown), 5.2) + 0.4, 5.2), layout="constrained")
    grid = figure.subplots(2, len(shown), squeeze=False, sharex="col")
    for column, run in enumerate(shown):
        scale = GigaScale.of(run.reach, run.axis)
        for row, split in enumerate(ROWS):
            panel = grid[row][column]
            drawn = draw_against_compute(panel, run, split, run.analysis.metric, scale, kind_styles(run))
            if not drawn:
                _say_empty(panel, split)
        measure = measure_label(run.analysis, run.analysis.metric)
        grid[0][column].set_title(f"{run.task_title}\n{measure.lower()}")
        grid[1][column].set_xlabel(scale.unit)
    for row, title in enumerate(ROWS.values()):
        grid[row][0].set_ylabel(title)
    figure.supxlabel(compute_label(shown[0]), fontsize=9)
    handles = [*_kind_handles(shown), *smoothing_handle(list(grid.flat)), *dagger_handle(shown)]
    put_legend(figure, handles, 1)
    return figure


def rates_in_distribution(runs: Sequence[PaperRun]) -> Figure | None:
    """Figures 9 and 17: RL in distribution over compute, one curve per learning rate."""
    (run,) = runs
    curves = [c for c in run.analysis.curves.arms if run.analysis.arms.kind(c.arm) == "rl"]
    return _rates(run, curves, ID_SPLIT, run.analysis.metric)


def rates_after_overfitting(runs: Sequence[PaperRun]) -> Figure | None:
    """Figure 19: RL under the other rule from an over-fitted checkpoint, one curve per learning rate."""
    (run,) = runs
    analysis = run.analysis
    curves = [
        curve
        for curve in analysis.curves.arms
        if analysis.arms.kind(curve.arm) == "rl"
        and any(analysis.arms.kind(c.arm) == "sft" for c in curve.start)
    ]
    init = (
        mean_over_seeds(analysis.curves.start, RULE_SPLIT, analysis.metric) if analysis.curves.start else None
    )
    before = f" (init: {100 * init.p:.1f} %)" if init is not None else ""
    return _rates(run, curves, RULE_SPLIT, analysis.metric, start=f"Over-fitted start{before}")


def dialogues_over_compute(runs: Sequence[PaperRun]) -> Figure | None:
    """Figure 15: SFT in distribution and under the other rule over compute, one panel per arm.

    The paper has the panel of the dialogues with errors.
    """
    (run,) = runs
    analysis = run.analysis
    curves = [curve for curve in analysis.curves.arms if analysis.arms.kind(curve.arm) == "sft"][::-1]
    if not run.reach or not curves:
        return None
    scale, drawn = GigaScale.of(run.reach, run.axis), False
    figure = Figure(figsize=(WIDTH if len(curves) > 1 else 6.4, 3.6), layout="constrained")
    panels = figure.subplots(1, len(curves), squeeze=False)[0]
    for panel, curve in zip(panels, curves, strict=True):
        for split, colour in SPLIT_COLOURS.items():
            drawn |= draw_against_compute(panel, run, split, analysis.metric, scale, [(curve, colour, "o")])
        panel.set_title(analysis.arms.label(curve.arm))
    if not drawn:
        return None
    _share_height(panels)
    panels[0].set_ylabel(f"{run.task_title}: {measure_label(analysis, analysis.metric).lower()}")
    label_compute(figure, run, scale)
    handles = [
        Line2D([], [], label=ROWS[split], color=colour, marker="o", ms=5, mew=0, lw=1.5)
        for split, colour in SPLIT_COLOURS.items()
    ]
    put_legend(figure, [*handles, start_handle(), *smoothing_handle(list(panels))], 1)
    return figure


def routes_over_compute(runs: Sequence[PaperRun]) -> Figure | None:
    """Figures 1 and 18: whole routes by SFT and RL over compute, in distribution beside the other rule."""
    (run,) = runs
    if run.analysis.metric != "steps":
        return None
    return _two_splits(run, run.contestants(), "success")


def rates_by_arm(runs: Sequence[PaperRun]) -> Figure | None:
    """Figure 16: in distribution over compute, one panel per arm, one curve per learning rate."""
    (run,) = runs
    analysis = run.analysis
    arms = analysis.curves.arm_names()
    if not run.reach or ID_SPLIT not in analysis.curves.splits or not arms:
        return None
    rates = _rates_of(analysis.curves.arms)
    scale = GigaScale.of(run.reach, run.axis)
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    panels = figure.subplots(1, len(arms), squeeze=False, sharex=True)[0]
    bound = bound_of(run, ID_SPLIT, analysis.metric)
    for panel, arm in zip(panels, arms, strict=True):
        curves = [curve for curve in analysis.curves.arms if curve.arm == arm]
        draw_against_compute(panel, run, ID_SPLIT, analysis.metric, scale, _rate_styles(curves, rates))
        if bound is not None:
            draw_bound(panel, bound)
        count = f"{len(curves)} run{'s' * (len(curves) > 1)}"
        label = analysis.arms.label(arm)
        panel.set_title(f"{label[:1].upper()}{label[1:]}: {count}")
    _share_height(panels)
    panels[0].set_ylabel(f"{measure_label(analysis, analysis.metric)} in distribution")
    label_compute(figure, run, scale)
    handles = [*rate_handles(rates), start_handle(), *smoothing_handle(list(panels))]
    handles += [bound_handle(f"paper: none above {bound:g} %")] if bound is not None else []
    put_legend(figure, handles, 2)
    return figure


def _rates(
    run: PaperRun, curves: Sequence[Curve], split: str, metric: str, start: str | None = None
) -> Figure | None:
    """One panel with a curve per learning rate, and the paper's bound; None without a point."""
    analysis = run.analysis
    if not run.reach or not curves:
        return None
    rates, scale = _rates_of(curves), GigaScale.of(run.reach, run.axis)
    figure = Figure(figsize=(6.4, 3.9), layout="constrained")
    panel = figure.subplots()
    if not draw_against_compute(panel, run, split, metric, scale, _rate_styles(curves, rates)):
        return None
    bound = bound_of(run, split, metric)
    if bound is not None:
        draw_bound(panel, bound)
    offset = "in distribution" if split == ID_SPLIT else "under the other rule"
    panel.set_ylabel(f"{measure_label(analysis, metric)} {offset}")
    panel.set_title(
        f"{run.task_title}: {', '.join(dict.fromkeys(analysis.arms.label(c.arm) for c in curves))}"
    )
    panel.set_xlabel(compute_label(run, scale.unit))
    name = start or analysis.arms.label(curves[0].start[0].arm if curves[0].start else "init")
    handles = [*rate_handles(rates), *([start_handle(name)] if curves[0].start else [])]
    handles += [*smoothing_handle([panel]), *dagger_handle([run])]
    handles += [bound_handle(f"paper: at most {bound:g} %")] if bound is not None else []
    put_legend(figure, handles, 2)
    return figure


def _two_splits(run: PaperRun, curves: Sequence[Curve], metric: str) -> Figure | None:
    """A panel in distribution and one under the other rule, a curve per arm; None without a point."""
    analysis = run.analysis
    if not run.reach or not curves:
        return None
    scale = GigaScale.of(run.reach, run.axis)
    figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    panels = figure.subplots(1, 2)
    styles = [(curve, analysis.arms.colour(curve.arm), "o") for curve in curves]
    drawn, bounds = False, {}
    for panel, (split, title) in zip(panels, ROWS.items(), strict=True):
        if not draw_against_compute(panel, run, split, metric, scale, styles):
            _say_empty(panel, split)
            continue
        drawn = True
        if (bound := bound_of(run, split, metric)) is not None:
            draw_bound(panel, bound)
            bounds[split] = bound
        panel.set_title(title)
    if not drawn:
        return None
    panels[0].set_ylabel(f"{run.task_title}: {measure_label(analysis, metric).lower()}")
    label_compute(figure, run, scale)
    handles = []
    for arm in dict.fromkeys(curve.arm for curve in curves):
        colour = analysis.arms.colour(arm)
        handles.append(
            Line2D([], [], label=analysis.arms.label(arm), color=colour, marker="o", ms=5, mew=0, lw=1.5)
        )
    handles += [start_handle(), *smoothing_handle(list(panels))]
    handles += [bound_handle(f"paper: at most {bound:g} %") for bound in dict.fromkeys(bounds.values())]
    put_legend(figure, handles, 1)
    return figure


def _rates_of(curves: Sequence[Curve]) -> list[float | None]:
    return sorted({curve.lr for curve in curves}, key=lambda lr: lr or 0.0)


def _rate_styles(curves: Sequence[Curve], rates: Sequence[float | None]) -> list[tuple[Curve, str, str]]:
    return [(curve, rate_colour(curve.lr, rates), rate_marker(curve.lr, rates)) for curve in curves]


def _kind_handles(runs: Sequence[PaperRun]) -> list[Line2D]:
    kinds = {run.analysis.arms.kind(curve.arm) for run in runs for curve in run.contestants()}
    handles = [kind_handle(kind, label) for kind, label in (("sft", "SFT"), ("rl", "RL")) if kind in kinds]
    return [*handles, start_handle()]


def _share_height(panels: Sequence[Axes]) -> None:
    """Give panels in a row one range upward, wide enough for the points of each."""
    points = [panel.dataLim.y1 for panel in panels]
    high = min(max(1.06 * max(points), *(panel.get_ylim()[1] for panel in panels)), 104.0)
    for index, panel in enumerate(panels):
        panel.set_ylim(-0.04 * high, high)
        panel.tick_params(axis="y", labelleft=index == 0)


def _say_empty(panel: Axes, split: str) -> None:
    """Leave a panel empty but for a sentence."""
    panel.text(0.5, 0.5, f"{split} was not evaluated", transform=panel.transAxes, ha="center", color=FAINT)

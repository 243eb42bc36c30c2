"""Figures 6 and 7: SFT, init and RL out of distribution at equal compute."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from sftrl_ext.reports.analysis.arms import kind_colour
from sftrl_ext.reports.analysis.curves import Checkpoint, mean_over_seeds
from sftrl_ext.reports.analysis.splits import Expected
from sftrl_ext.reports.figures.style import percent_axis, put_legend
from sftrl_ext.reports.paper.curves import RULE_SPLIT
from sftrl_ext.reports.paper.panels import (
    dagger_handle,
    draw_against_compute,
    even_ticks,
    kind_handle,
    kind_styles,
    smoothing_handle,
    start_handle,
)
from sftrl_ext.reports.paper.runs import GigaScale, PaperRun, compute_label, measure_label

VISUAL_SPLIT = "visual_ood"
BEST_COLOUR = "#E69F00"
_LABELS = {"sft": "SFT", "init": "Init", "rl": "RL"}


def rule_bars(runs: Sequence[PaperRun]) -> Figure | None:
    """Figure 6: bars RL, init and SFT under the other rule at equal compute, one panel per task."""
    shown = [run for run in runs if _bars(run, RULE_SPLIT, run.analysis.metric)]
    if not shown:
        return None
    figure = Figure(figsize=(max(2.3 * len(shown), 4.6), 2.9), layout="constrained")
    panels = figure.subplots(1, len(shown), squeeze=False)[0]
    for index, (panel, run) in enumerate(zip(panels, shown, strict=True)):
        metric = run.analysis.metric
        _draw_rows(panel, _bars(run, RULE_SPLIT, metric))
        panel.tick_params(axis="y", labelleft=index == 0)
        panel.set_title(f"{run.task_title}\n{measure_label(run.analysis, metric).lower()}")
        panel.set_xlabel(_budget(run), fontsize=8)
    figure.supxlabel(
        f"Out of distribution: other rule. {_equal_compute(shown[0])}",
        fontsize=9,
    )
    put_legend(figure, [*_handles(shown, RULE_SPLIT), *dagger_handle(shown)], 1)
    return figure


def visual_curves_and_bars(runs: Sequence[PaperRun]) -> Figure | None:
    """Figure 7: visual OOD over compute and at equal compute, two panels per task.

    Success counts episodes: of a route, the whole route. The best result before the paper is a dashed line.
    """
    shown = [run for run in runs if _bars(run, VISUAL_SPLIT, "success")]
    if not shown:
        return None
    figure = Figure(figsize=(4.6 * len(shown) + (0.8 if len(shown) == 1 else 0.0), 3.7), layout="constrained")
    ratios = [1.5, 1.0] * len(shown)
    panels = figure.subplots(1, 2 * len(shown), squeeze=False, gridspec_kw={"width_ratios": ratios})[0]
    lines = []
    for index, run in enumerate(shown):
        left, right = panels[2 * index], panels[2 * index + 1]
        if run.reach:
            scale = GigaScale.of(run.reach, run.axis)
            draw_against_compute(left, run, VISUAL_SPLIT, "success", scale, kind_styles(run))
            left.set_xlabel(scale.unit)
        else:
            left.set_axis_off()
        lines.append(left)
        _draw_columns(right, _bars(run, VISUAL_SPLIT, "success"))
        best = _previous_best(run)
        for panel in (left, right):
            if best is not None:
                panel.axhline(best, color=BEST_COLOUR, lw=1.4, ls=(0, (5, 3)), zorder=1.5)
            panel.set_ylim(min(0.0, panel.get_ylim()[0]), max(panel.get_ylim()[1], 1.1 * (best or 0.0)))
            _end_ticks_at_100(panel)
        left.set_title(f"{run.task_title}: {measure_label(run.analysis, 'success').lower()}")
        right.set_xlabel(_budget(run), fontsize=8)
        left.set_ylabel("Out of distribution: other look" if index == 0 else "")
    if shown[0].axis:
        figure.supxlabel(f"Curves: {compute_label(shown[0])}. Bars: at equal compute", fontsize=9)
    handles = [kind_handle(kind, _LABELS[kind]) for kind in ("sft", "rl")]
    handles += [start_handle(), *smoothing_handle(lines), *_paper_handles(shown, VISUAL_SPLIT)]
    bests = dict.fromkeys(best for run in shown if (best := _previous_best(run)) is not None)
    handles += [
        Line2D([], [], label=f"previous best, {best:.1f} %", color=BEST_COLOUR, lw=1.4, ls=(0, (5, 3)))
        for best in bests
    ]
    put_legend(figure, handles, 2)
    return figure


@dataclass(frozen=True)
class _Bar:
    """A bar in percent.

    Attributes:
        kind: A key of `_LABELS`.
        length, error: Success and its standard error.
        text: The number, and its change from the init.
        paper: The paper's number; None if it gives none.
    """

    kind: str
    length: float
    error: float
    text: str
    paper: float | None

    @property
    def end(self) -> float:
        """End of the bar, its error and the paper's number."""
        return max(self.length + self.error, self.paper or 0.0)


def _bars(run: PaperRun, split: str, metric: str) -> list[_Bar]:
    """The bars SFT, init and RL at equal compute, where they were evaluated."""
    analysis = run.analysis
    groups: dict[str, list[Checkpoint]] = {
        analysis.arms.kind(curve.arm): run.equal.chosen.get(curve.key, []) for curve in run.contestants()
    }
    groups["init"] = analysis.curves.start
    start = mean_over_seeds(groups["init"], split, metric) if groups["init"] else None
    paper, bars = _paper_numbers(run, split, metric), []
    for kind in _LABELS:
        measure = mean_over_seeds(groups[kind], split, metric) if groups.get(kind) else None
        if measure is None:
            continue
        text = f"{100 * measure.p:.1f}"
        if start is not None and kind != "init":
            text += f"\n({100 * (measure.p - start.p):+.1f})"
        bars.append(_Bar(kind, 100 * measure.p, 100 * measure.se, text, paper.get(kind)))
    return bars


def _draw_rows(panel: Axes, bars: Sequence[_Bar]) -> None:
    """Draw horizontal bars, RL above the init above SFT."""
    kinds = list(_LABELS)
    for bar in bars:
        row = kinds.index(bar.kind)
        panel.barh(row, bar.length, 0.68, color=kind_colour(bar.kind), edgecolor="white", linewidth=0.5)
        panel.errorbar(
            bar.length, row, xerr=bar.error, color="#333333", elinewidth=1.1, capsize=2.5, capthick=1.1
        )
        if bar.paper is not None:
            ends = [row - 0.44, row + 0.44]
            panel.plot([bar.paper, bar.paper], ends, color="black", lw=1.6, zorder=5, solid_capstyle="butt")
        panel.annotate(
            bar.text, (bar.end, row), xytext=(4, 0), textcoords="offset points", ha="left", va="center",
            fontsize=8, linespacing=1.05,
        )  # fmt: skip
    panel.set_yticks(range(len(kinds)), list(_LABELS.values()))
    panel.tick_params(axis="y", length=0, labelcolor="black")
    panel.grid(axis="y", visible=False)
    # Room for the numbers at the ends of the bars; a panel of zeros is 1 % wide.
    panel.set_xlim(0, max(1.42 * max(bar.end for bar in bars), 1.0))
    panel.set_ylim(-0.6, len(kinds) - 0.4)
    panel.xaxis.set_major_locator(even_ticks(5))
    percent_axis(panel, "x")
    panel.set_xticks([tick for tick in panel.get_xticks() if 0 <= tick <= min(panel.get_xlim()[1], 100.0)])


def _draw_columns(panel: Axes, bars: Sequence[_Bar]) -> None:
    """Draw upright bars: SFT, the init, RL."""
    for index, bar in enumerate(bars):
        panel.bar(index, bar.length, 0.72, color=kind_colour(bar.kind), edgecolor="white", linewidth=0.5)
        panel.errorbar(
            index, bar.length, bar.error, color="#333333", elinewidth=1.1, capsize=2.5, capthick=1.1
        )
        if bar.paper is not None:
            ends = [index - 0.44, index + 0.44]
            panel.plot(ends, [bar.paper, bar.paper], color="black", lw=1.6, zorder=5, solid_capstyle="butt")
        panel.annotate(
            bar.text, (index, bar.end), xytext=(0, 3), textcoords="offset points", ha="center", va="bottom",
            fontsize=8, linespacing=1.05,
        )  # fmt: skip
    panel.set_xticks(range(len(bars)), [_LABELS[bar.kind] for bar in bars])
    panel.tick_params(axis="x", length=0, labelcolor="black")
    panel.grid(axis="x", visible=False)
    panel.set_ylim(0, max(1.26 * max(bar.end for bar in bars), 1.0))
    panel.set_xlim(-0.6, len(bars) - 0.4)
    panel.yaxis.set_major_locator(even_ticks(6))
    percent_axis(panel)
    _end_ticks_at_100(panel)


def _end_ticks_at_100(panel: Axes) -> None:
    """Leave the room above 100 % to numbers."""
    low, high = panel.get_ylim()
    ticks = [tick for tick in panel.get_yticks() if low <= tick <= min(high, 100.0)]
    panel.set_yticks(ticks)


def _paper_entries(run: PaperRun, split: str, metric: str) -> list[Expected]:
    return [e for e in run.analysis.paper(metric) if e.split == split and e.says == "level"]


def _paper_numbers(run: PaperRun, split: str, metric: str) -> dict[str, float]:
    """The paper's number of each kind."""
    numbers: dict[str, float] = {}
    for entry in _paper_entries(run, split, metric):
        numbers |= {run.analysis.arms.kind(arm): value for arm, value in entry.values.items()}
    return numbers


def _previous_best(run: PaperRun) -> float | None:
    bests = [entry.previous_best for entry in _paper_entries(run, VISUAL_SPLIT, "success")]
    return max((best for best in bests if best is not None), default=None)


def _handles(runs: Sequence[PaperRun], split: str) -> list[Patch | Line2D]:
    handles: list[Patch | Line2D] = [
        Patch(color=kind_colour(kind), label=label) for kind, label in _LABELS.items()
    ]
    return [*handles, *_paper_handles(runs, split)]


def _paper_handles(runs: Sequence[PaperRun], split: str) -> list[Line2D]:
    labels = dict.fromkeys(
        entry.label
        for run in runs
        for metric in ("success", "steps")
        for entry in _paper_entries(run, split, metric)
    )
    return [Line2D([], [], label=label, color="black", lw=1.6) for label in labels]


def _budget(run: PaperRun) -> str:
    """Compute of the comparison of a task."""
    if run.equal.budget is None:
        return "last checkpoints"
    scale = GigaScale.of(run.equal.budget, run.axis)
    return f"at {run.equal.budget / scale.divisor:.3g}{' × ' if scale.power else ' '}{scale.unit}"


def _equal_compute(run: PaperRun) -> str:
    if run.equal.budget is None:
        return "Last checkpoint of each arm"
    return f"{compute_label(run)}, equal for the arms of a task"

"""Figure: the bars SFT / start / RL at equal compute on every split, beside the paper's."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sftrl_ext.reports.analysis.curves import Checkpoint, mean_over_seeds
from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.analysis.splits import Expected, in_rows, lr_label
from sftrl_ext.reports.analysis.verdict import ID_SPLIT
from sftrl_ext.reports.figures.style import WIDTH, percent_axis, put_legend
from sftrl_ext.runs.compute import readable

_EDGE = "white"
MANY_BARS = 6


@dataclass(frozen=True)
class Bar:
    """One bar: an arm's name as written below it, its colour, and the checkpoints behind it.

    Attributes:
        rate: Its learning rate, where the arm has several bars: what is written below it if there are many.
    """

    name: str
    arm: str
    colour: str
    checkpoints: list[Checkpoint]
    rate: str = ""


def bars_of(analysis: Analysis) -> list[Bar]:
    """The bars of every panel in order: SFT, start, RL; one per learning rate where there are few."""
    curves, bars, begin = analysis.curves, [], analysis.curves.start_arm
    for arm in analysis.arms.order([*curves.arm_names(), begin]):
        if arm == begin:
            if curves.start:
                bars.append(Bar(analysis.arms.label(arm), arm, analysis.arms.colour(arm), curves.start))
            continue
        shown = [curve for curve in analysis.shown if curve.arm == arm]
        for curve in shown:
            rate = lr_label(curve.lr) if len(shown) > 1 else ""
            label = "\n".join([*analysis.arms.label(arm).split(), *([rate] if rate else [])])
            bars.append(Bar(label, arm, analysis.arms.colour(arm), analysis.equal.chosen[curve.key], rate))
    return bars


def _draw_bars(axes: Axes, analysis: Analysis, bars: list[Bar], split: str, metric: str) -> None:
    ticks: list[float] = []
    labels: list[str] = []
    top = 0.0

    def put(x: float, height: float, error: float | None, colour: str, name: str, paper: str) -> None:
        nonlocal top
        if paper:
            axes.bar(x, height, 0.8, color="white", edgecolor=colour, hatch="////", linewidth=1.1)
        else:
            axes.bar(x, height, 0.8, color=colour, edgecolor=_EDGE, linewidth=0.5)
        if error is not None:
            axes.errorbar(x, height, error, color="#333333", elinewidth=1.1, capsize=2.5, capthick=1.1)
        peak = height + (error or 0.0)
        axes.annotate(
            paper or f"{height:.1f}", (x, peak), xytext=(0, 2), textcoords="offset points", ha="center",
            va="bottom", fontsize=8, color="#666666" if paper else "black",
        )  # fmt: skip
        top = max(top, peak)
        ticks.append(x)
        labels.append(name)

    position = 0.0
    for bar in bars:
        measure = mean_over_seeds(bar.checkpoints, split, metric)
        if measure is not None:
            name = bar.rate if bar.rate and len(bars) > MANY_BARS else bar.name
            put(position, 100 * measure.p, 100 * measure.se, bar.colour, name, "")
            position += 1.0
    for entry in _of_the_paper(analysis, split, metric):
        position += 0.5
        for arm in analysis.arms.order(entry.values):
            name = analysis.arms.label(arm).replace(" ", "\n")
            put(position, entry.values[arm], None, analysis.arms.colour(arm), name, entry.text(arm))
            position += 1.0
    axes.set_xticks(ticks, labels)
    axes.tick_params(axis="x", length=0, labelcolor="black")
    axes.grid(axis="x", visible=False)
    axes.set_ylim(0, max(top * 1.16, 1.0))
    axes.set_xlim(-0.6, max(ticks, default=0) + 0.6)
    axes.set_title(analysis.split_title(split))
    percent_axis(axes)


def _of_the_paper(analysis: Analysis, split: str, metric: str) -> list[Expected]:
    """The paper's numbers for a measure on a split."""
    return [entry for entry in analysis.paper(metric) if entry.split == split]


def _panel_widths(analysis: Analysis, bars: list[Bar], splits: list[str], metric: str) -> dict[str, float]:
    widths = {}
    for split in splits:
        paper = sum(len(e.values) + 0.5 for e in _of_the_paper(analysis, split, metric))
        widths[split] = (
            sum(mean_over_seeds(bar.checkpoints, split, metric) is not None for bar in bars) + paper + 0.7
        )
    return widths


def _rows(splits: list[str], bars: int) -> list[list[str]]:
    """Break panels into rows: two, then up to three to a row (two, if the bars are many), evenly."""
    first, rest = splits[:2], splits[2:]
    count = -(-len(rest) // (3 if bars <= 5 else 2))
    rows, done = [first], 0
    for row in range(count):
        # What is left over the rows that are left, rounded up: rows differ by one panel at most.
        size = -(-(len(rest) - done) // (count - row))
        rows.append(rest[done : done + size])
        done += size
    return rows


def where(analysis: Analysis) -> str:
    """At what compute the checkpoints are compared, in words."""
    if analysis.equal.budget is None:
        return "last checkpoint of each arm"
    rule = {"counted": " (counted tokens)", "paper": " (paper's formula)", "tokens": ""}[analysis.equal.axis]
    amount = readable(analysis.equal.budget, analysis.equal.axis)
    return f"each arm's last checkpoint at or below {amount}{rule}, the most that every arm reached"


def route_bars_at_equal_compute(analysis: Analysis) -> Figure | None:
    """The same for whole routes, where the main measure is of their steps; None elsewhere."""
    return bars_at_equal_compute(analysis, "success") if analysis.metric == "steps" else None


def bars_at_equal_compute(analysis: Analysis, metric: str | None = None) -> Figure | None:
    """Draw SFT / start / RL on every split, and the paper's numbers, hatched, beside theirs.

    Args:
        analysis: The analysed run.
        metric: "success" or "steps"; by default the main measure of the run.
    """
    metric = metric or analysis.metric
    bars = bars_of(analysis)
    if not analysis.curves.arms or not bars:
        return None
    order = [s for s in (ID_SPLIT, *analysis.main_splits) if s in analysis.curves.splits]
    splits = order + [s for s in analysis.curves.splits if s not in order]
    widths = _panel_widths(analysis, bars, splits, metric)
    rows = _rows(splits, len(bars))
    # Longer names need wider panels.
    short = len(bars) <= 5 and all(len(analysis.arms.label(bar.arm)) <= 5 for bar in bars)
    several = len(analysis.verdicts) > 1 and short
    if several:
        rows = [order, *in_rows(splits[len(order) :], 3)]
    figure = Figure(figsize=(WIDTH, 2.5 * len(rows) + 0.7), layout="constrained")
    widest = max(sum(widths[s] for s in row) for row in rows)
    if several:
        widths |= {s: max(widest / 3, widths[s]) for row in rows[1:] for s in row}
    for strip, row in zip(figure.subfigures(len(rows), 1, squeeze=False).flat, rows, strict=True):
        room = widest - sum(widths[s] for s in row)
        # A row that is little narrower than the widest fills the figure; another keeps the widths of its
        # bars.
        room = room if room > 0.3 * widest else 0.0
        ratios = [widths[s] for s in row] + ([room] if room > 0.01 else [])
        grid = strip.add_gridspec(1, len(ratios), width_ratios=ratios)
        for column, split in enumerate(row):
            _draw_bars(strip.add_subplot(grid[column]), analysis, bars, split, metric)
        if room > 0.01:
            strip.add_subplot(grid[len(row)]).set_axis_off()
    figure.supylabel(analysis.axis_label(metric), fontsize=9)
    arms = list(dict.fromkeys(bar.arm for bar in bars))
    handles = [
        Patch(color=analysis.arms.colour(a), label=f"{analysis.arms.label(a)}, this run") for a in arms
    ]
    for label in dict.fromkeys(e.label for s in splits for e in _of_the_paper(analysis, s, metric)):
        handles.append(Patch(facecolor="white", edgecolor="#555555", hatch="////", label=label))
    put_legend(figure, handles, 1, title=where(analysis), title_fontsize=8.5)
    return figure

"""Figure: how the responses were graded at equal compute, in distribution and on the verdicts' splits."""

from __future__ import annotations

from collections import Counter

from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.analysis.verdict import ID_SPLIT
from sftrl_ext.reports.figures.bar_figure import bars_of
from sftrl_ext.reports.figures.style import WIDTH, percent_axis, put_legend

OUTCOME_COLOURS = {
    "correct": "#009E73",
    "wrong_value": "#F0E442",
    "wrong_numbers": "#E69F00",
    "wrong_action": "#E69F00",
    "wrong_observation": "#F0E442",
    "cards_not_recognized": "#56B4E9",
    "illegal_formula": "#CC79A7",
    "unparsable": "#7A3B5E",
}
_DARK = ("correct", "unparsable")


def outcome_shares(analysis: Analysis) -> Figure | None:
    """Draw how the responses on the `id` split and on the verdicts' splits were graded, at equal compute."""
    splits = [s for s in (ID_SPLIT, *analysis.main_splits) if s in analysis.curves.splits]
    bars = bars_of(analysis)
    counted: dict[tuple[str, int], Counter[str]] = {}
    for split in splits:
        for index, bar in enumerate(bars):
            total: Counter[str] = Counter()
            for checkpoint in bar.checkpoints:
                if split in checkpoint.results:
                    total.update(checkpoint.results[split].outcomes)
            if sum(total.values()):
                counted[split, index] = total
    if not counted or not analysis.curves.arms:
        return None
    names = {name for total in counted.values() for name, n in total.items() if n}
    order = [n for n in OUTCOME_COLOURS if n in names] + sorted(names - set(OUTCOME_COLOURS))
    figure = Figure(figsize=(WIDTH, 0.34 * len(bars) + 1.35), layout=ConstrainedLayoutEngine(wspace=0.06))
    panels = figure.subplots(1, len(splits), squeeze=False, sharey=True)[0]
    for panel, split in zip(panels, splits, strict=True):
        for index, _ in enumerate(bars):
            shares = counted.get((split, index))
            left = 0.0
            for name in order if shares else ():
                share = 100 * shares[name] / sum(shares.values()) if shares else 0.0
                colour = OUTCOME_COLOURS.get(name, "#BBBBBB")
                panel.barh(index, share, 0.72, left=left, color=colour, edgecolor="white", linewidth=0.6)
                if share >= 9:
                    ink = "white" if name in _DARK else "black"
                    panel.text(
                        left + share / 2,
                        index,
                        f"{share:.0f}",
                        ha="center",
                        va="center",
                        fontsize=8,
                        color=ink,
                    )
                left += share
        panel.set_title(analysis.split_title(split))
        panel.set_xlim(0, 100)
        panel.set_yticks(range(len(bars)), [bar.name.replace("\n", " ") for bar in bars])
        panel.tick_params(axis="y", length=0, labelcolor="black")
        panel.grid(axis="y", visible=False)
        percent_axis(panel, "x")
    panels[0].invert_yaxis()
    figure.supxlabel("Share of the graded responses", fontsize=9)
    handles = [Patch(color=OUTCOME_COLOURS.get(n, "#BBBBBB"), label=n.replace("_", " ")) for n in order]
    put_legend(figure, handles, 1)
    return figure

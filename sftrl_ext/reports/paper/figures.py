"""Registry of the paper's figures, and the function behind ``sftrl report .. --figure``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from sftrl_ext.errors import SftrlError, unknown_name
from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.figures.style import look, mark_figure, save
from sftrl_ext.reports.paper.bars import rule_bars, visual_curves_and_bars
from sftrl_ext.reports.paper.curves import (
    all_tasks_over_compute,
    dialogues_over_compute,
    rates_after_overfitting,
    rates_by_arm,
    rates_in_distribution,
    routes_over_compute,
)
from sftrl_ext.reports.paper.runs import TITLES, PaperRun, load_analysis, on_common_axis
from sftrl_ext.reports.paper.scatter import growth_by_attempts, recognition_and_success


@dataclass(frozen=True)
class PaperFigure:
    """A figure of the paper.

    Attributes:
        name: Its number, and stem of its files.
        title: Its subject.
        caption: How to read it.
        needs: What runs have to hold for it.
        draw: Draws it; None where the runs have nothing for it.
        several: True if it takes one run per task; else it takes one run.
        in_report: True if the report of a single run has it too, where the recipe is for this figure.
    """

    name: str
    title: str
    caption: str
    needs: str
    draw: Callable[[Sequence[PaperRun]], Figure | None]
    several: bool = False
    in_report: bool = True


_SMOOTH = (
    "Error bars are standard errors; curves of nine points or more are smoothed (Savitzky-Golay, order 3)."
)

PAPER_FIGURES = (
    PaperFigure(
        "fig1",
        "Whole routes over compute",
        f"Routes of which every point was solved. {_SMOOTH}",
        "a run of routes with checkpoints on the compute axis",
        routes_over_compute,
        in_report=False,
    ),
    PaperFigure(
        "fig5",
        "SFT and RL over compute, all tasks",
        f"In distribution above, the other rule below. {_SMOOTH}",
        "an SFT or RL arm with checkpoints on the compute axis",
        all_tasks_over_compute,
        several=True,
        in_report=False,
    ),
    PaperFigure(
        "fig6",
        "SFT, init and RL under the other rule at equal compute, all tasks",
        "Bars ± SE, in brackets the change from the init in points; black lines are the paper's numbers.",
        "split rule_ood, evaluated for the init or an arm",
        rule_bars,
        several=True,
        in_report=False,
    ),
    PaperFigure(
        "fig7",
        "Visual out-of-distribution",
        "Over compute, and at equal compute as bars ± SE with the change from the init in points; black "
        f"lines are the paper's numbers, the dashed line is the best result before the paper. {_SMOOTH}",
        "split visual_ood, evaluated for the init or an arm",
        visual_curves_and_bars,
        several=True,
    ),
    PaperFigure(
        "fig8",
        "Recognition against success",
        "A star in distribution and a circle out of distribution, joined, are one checkpoint; the more "
        "opaque, the more compute.",
        "recognition on split id and on a split out of distribution (cards as images)",
        recognition_and_success,
    ),
    PaperFigure(
        "fig9",
        "RL without SFT init, by learning rate",
        f"In distribution over compute. {_SMOOTH}",
        "an RL arm with checkpoints on the compute axis, evaluated on split id",
        rates_in_distribution,
    ),
    PaperFigure(
        "fig10",
        "Growth in distribution against growth out of distribution, by attempts",
        "One point per checkpoint, the more opaque, the more compute; the large points are at equal compute.",
        "arms with a start, evaluated on splits id and rule_ood",
        growth_by_attempts,
    ),
    PaperFigure(
        "fig15",
        "SFT on dialogues with errors and feedback",
        f"In distribution and under the other rule over compute. {_SMOOTH}",
        "an SFT arm with checkpoints on the compute axis",
        dialogues_over_compute,
    ),
    PaperFigure(
        "fig16",
        "SFT by learning rate and frozen parts",
        f"In distribution over compute. {_SMOOTH}",
        "arms with checkpoints on the compute axis, evaluated on split id",
        rates_by_arm,
    ),
    PaperFigure(
        "fig17",
        "RL by learning rate",
        f"In distribution over compute. {_SMOOTH}",
        "an RL arm with checkpoints on the compute axis, evaluated on split id",
        rates_in_distribution,
    ),
    PaperFigure(
        "fig18",
        "Whole routes over compute",
        f"Routes of which every point was solved. {_SMOOTH}",
        "a run of routes with checkpoints on the compute axis",
        routes_over_compute,
    ),
    PaperFigure(
        "fig19",
        "RL from an over-fitted SFT checkpoint, by learning rate",
        f"Under the other rule over compute. {_SMOOTH}",
        "an RL arm that starts from an SFT arm's checkpoint, evaluated on split rule_ood",
        rates_after_overfitting,
    ),
)


def paper_figure(name: str) -> PaperFigure:
    """The figure of a name.

    Raises:
        SftrlError: for an unknown name, with the nearest known one.
    """
    for figure in PAPER_FIGURES:
        if figure.name == name:
            return figure
    raise unknown_name("figure", name, [figure.name for figure in PAPER_FIGURES])


def figures_of_recipe(analysis: Analysis) -> list[PaperFigure]:
    """Figures that the report of a run has because its recipe is for them."""
    recipe = analysis.run.recipe
    names = [recipe.name, analysis.run.state.recipe or "", *recipe.also]
    numbers = {match.group(0) for name in names if (match := re.match(r"fig\d+", name))}
    return [figure for figure in PAPER_FIGURES if figure.in_report and figure.name in numbers]


def draw_for_run(figure: PaperFigure, analysis: Analysis) -> Figure | None:
    """Draw a figure from one run, on the run's first compute axis; None if it has nothing for it."""
    return figure.draw(on_common_axis([analysis]))


def write_paper_figure(
    name: str, paths: Sequence[Path], folder: Path, axis: str | None = None, rl_tokens: str | None = None
) -> tuple[Path, Path]:
    """Draw a figure of the paper as PNG and SVG.

    Args:
        name: Name of the figure.
        paths: Run folders or results files: one per task where the figure has a panel for each, else one.
        folder: Where the files go.
        axis: Compute axis, a name of `compute.AXES`; None takes the first that all runs have.
        rl_tokens: Reading of D_RL in the paper's formula; None takes each recipe's.

    Returns:
        Paths of the PNG and of the SVG.

    Raises:
        SftrlError: for an unknown figure, runs that do not fit it, or an axis that a run lacks.
    """
    figure = paper_figure(name)
    if not figure.several and len(paths) != 1:
        raise SftrlError(f"--figure {name}: found {len(paths)} runs, expected one.")
    analyses = [load_analysis(path, rl_tokens) for path in paths]
    counts = Counter(analysis.task for analysis in analyses)
    repeated = [task for task, count in counts.items() if count > 1]
    if repeated:
        same = [
            str(path) for path, analysis in zip(paths, analyses, strict=True) if analysis.task == repeated[0]
        ]
        raise SftrlError(
            f"--figure {name}: {' and '.join(same)} are of one task ({repeated[0]}); "
            "expected one run per task."
        )
    order = list(TITLES)
    analyses.sort(key=lambda analysis: order.index(analysis.task) if analysis.task in order else len(order))
    runs = on_common_axis(analyses, axis)
    folder.mkdir(parents=True, exist_ok=True)
    with look():
        drawn = figure.draw(runs)
        if drawn is None:
            listed = ", ".join(str(path) for path in paths)
            raise SftrlError(f"--figure {name}: nothing to draw from {listed}; it needs {figure.needs}.")
        marks = [
            f"{TITLES.get(analysis.task, analysis.task)}: {analysis.mark}"
            for analysis in analyses
            if analysis.mark
        ]
        if marks:
            mark_figure(drawn, "; ".join(marks))
        return save(drawn, folder, name)

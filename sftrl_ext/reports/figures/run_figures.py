"""The figures of a report: their file names, titles, captions, and the functions that draw them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from sftrl_ext.reports.analysis.forgetting import forgetting_sentences
from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.figures.bar_figure import bars_at_equal_compute, route_bars_at_equal_compute, where
from sftrl_ext.reports.figures.forgetting_figure import change_against_divergence
from sftrl_ext.reports.figures.outcome_figure import outcome_shares
from sftrl_ext.reports.figures.recognition_figure import (
    recognition_against_compute,
    recognition_against_success,
)
from sftrl_ext.reports.figures.style import look, mark_figure, save
from sftrl_ext.reports.figures.success_figure import routes_against_compute, success_against_compute
from sftrl_ext.reports.figures.tradeoff_figure import ood_against_id
from sftrl_ext.reports.figures.training_figure import training_curves
from sftrl_ext.reports.pages.method import recognition_sentences
from sftrl_ext.reports.paper.figures import PAPER_FIGURES, PaperFigure, draw_for_run, figures_of_recipe


@dataclass(frozen=True)
class FigureSpec:
    """A figure of the report.

    Attributes:
        name: Stem of its files.
        title: Its heading; ``{measure}`` stands for the main measure.
        caption: How to read it; ``{where}`` stands for the compute of the comparison.
        draw: Makes it, or None where the run has nothing for it.
        aside: True if a page may fold it away.
        says: Makes the sentences on what it shows in this run, if it has any.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Analysis], Figure | None]
    aside: bool = False
    says: Callable[[Analysis], list[str]] | None = None


@dataclass(frozen=True)
class DrawnFigure:
    """A figure that was drawn, its files, and what it shows in sentences."""

    spec: FigureSpec
    caption: str
    png: Path
    svg: Path
    says: tuple[str, ...] = ()


_CURVES = (
    "{measure} on every split from the shared start on (grey diamond; dotted: its level). "
    "Bars are standard errors; the axes do not begin at zero."
)

FIGURES = (
    FigureSpec(
        "bars",
        "{contest} at equal compute",
        "{measure} ± SE: {where}. Hatched: the paper's numbers for its own model, for the direction, not "
        "for the height.",
        bars_at_equal_compute,
    ),
    FigureSpec(
        "ood_vs_id",
        "Out of distribution against in distribution",
        "The way of each arm from the shared start at every learning rate, one point per evaluated "
        "checkpoint, the last one large with its standard errors; thin lines are single seeds, where there "
        "are several. To the right is better on what was trained, up is better on what was not: at one "
        "height on the horizontal axis, arms are compared at equal success in distribution.",
        ood_against_id,
    ),
    FigureSpec(
        "forgetting_vs_divergence",
        "Forgetting against divergence from the start",
        "One point per evaluated checkpoint, from each arm's own start on (grey diamond), with standard "
        "errors. Farther to the right, the model is farther from its start on episodes that the start played "
        "of the task trained on; farther down, more is lost of what was not trained. arXiv 2509.04259 finds "
        "that this divergence predicts what is forgotten: then all arms lie on one falling line, with a rank "
        "correlation of -1. Checkpoints of one run are not independent of each other, so no significance is "
        "claimed.",
        change_against_divergence,
        says=forgetting_sentences,
    ),
    FigureSpec(
        "success_vs_compute",
        "{measure} against compute, from counted tokens",
        _CURVES,
        partial(success_against_compute, axis="counted"),
    ),
    FigureSpec(
        "success_vs_compute_paper",
        "{measure} against compute, by the paper's formula",
        _CURVES,
        partial(success_against_compute, axis="paper"),
        aside=True,
    ),
    FigureSpec(
        "success_vs_tokens",
        "{measure} against tokens",
        _CURVES,
        partial(success_against_compute, axis="tokens"),
        aside=True,
    ),
    FigureSpec(
        "recognition_vs_success",
        "Recognition against success",
        "One point per evaluated checkpoint, growing with training, from the shared start on (grey diamond), "
        "with standard errors. Farther down, fewer cards are recognized in the first response; straight to "
        "the left, the cards are still recognized but fewer hands are solved. The axes do not begin at zero.",
        recognition_against_success,
        says=recognition_sentences,
    ),
    FigureSpec(
        "recognition_vs_compute",
        "Recognition against compute",
        "Share of first responses that name the right cards, from the shared start on (grey diamond; dotted: "
        "its level). Bars are standard errors; the axes do not begin at zero.",
        recognition_against_compute,
    ),
    FigureSpec(
        "outcomes",
        "How the responses were graded",
        "Shares of the verdicts over all responses: {where}.",
        outcome_shares,
    ),
    FigureSpec(
        "training", "Training curves", "As the trainers logged them; unsmoothed.", training_curves, aside=True
    ),
)


_HATCHED = re.compile(r" Hatched: [^.]*\.")

ROUTE_FIGURES = (
    FigureSpec(
        "route_bars",
        "Whole routes at equal compute",
        "Routes of which every point was right in the end, ± SE: {where}. Hatched: the paper's numbers.",
        route_bars_at_equal_compute,
    ),
    FigureSpec(
        "routes_vs_compute",
        "Whole routes against compute",
        "Routes of which every point was right in the end, from the shared start on (grey diamond). Bars are "
        "standard errors; the axes do not begin at zero.",
        routes_against_compute,
    ),
)
"""Further figures of runs whose main measure is of steps; they follow those of the main measure."""


def _in_report(figure: PaperFigure) -> FigureSpec:
    """A figure of the paper as the report of a single run has it."""
    number = figure.name.removeprefix("fig")
    return FigureSpec(
        figure.name,
        f"{figure.title} (Figure {number} of the paper)",
        figure.caption,
        partial(draw_for_run, figure),
    )


def _remove(folder: Path, name: str) -> None:
    """Remove the files of a figure that an earlier report drew."""
    for suffix in ("png", "svg"):
        (folder / f"{name}.{suffix}").unlink(missing_ok=True)


def draw_figures(analysis: Analysis, folder: Path) -> Iterator[DrawnFigure]:
    """Draw every figure the run has numbers for, as PNG and SVG; files of the others are removed.

    Args:
        analysis: The analysed run.
        folder: Where the files go; must exist.
    """
    main = [spec.name for spec in FIGURES].index("success_vs_tokens") + 1
    of_paper = [_in_report(figure) for figure in figures_of_recipe(analysis)]
    for name in {paper.name for paper in PAPER_FIGURES} - {spec.name for spec in of_paper}:
        _remove(folder, name)
    for spec in (*of_paper, *FIGURES[:main], *ROUTE_FIGURES, *FIGURES[main:]):
        with look():
            figure = spec.draw(analysis)
            if figure is None:
                _remove(folder, spec.name)
                continue
            if analysis.mark:
                mark_figure(figure, analysis.mark)
            png, svg = save(figure, folder, spec.name)
        says = tuple(spec.says(analysis)) if spec.says and analysis.no_claim is None else ()
        caption = spec.caption.format(where=where(analysis), measure=analysis.measure)
        if analysis.mark:
            caption = (
                f"{caption if analysis.expected else _HATCHED.sub('', caption)} Routes of {analysis.mark}."
            )
        named = replace(spec, title=spec.title.format(measure=analysis.measure, contest=analysis.contest))
        yield DrawnFigure(named, caption, png, svg, says)

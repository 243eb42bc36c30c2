"""Figures of walked routes: the map with what was answered at each point, and the street views."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from sftrl_ext.plain_text import one_line
from sftrl_ext.reports.analysis.arms import Arms
from sftrl_ext.reports.episodes.dialogues import Line
from sftrl_ext.reports.episodes.pictures import PointView, views_of
from sftrl_ext.reports.episodes.route_map import COLOURS, TEXT_COLOURS, draw_map
from sftrl_ext.reports.episodes.walks import (
    AHEAD,
    FAILED,
    FIRST,
    LATER,
    NOT_STORED,
    Visit,
    Walk,
    short,
)
from sftrl_ext.reports.figures.style import FAINT, INK, WIDTH
from sftrl_ext.runs.records import SampleEpisode

COLUMNS = 6
"""Street views in a row."""

_LINE = 0.148
"""Height of a line of the list, in inches."""


def title_of(arms: Arms, episode: SampleEpisode, walk: Walk) -> str:
    """Title of an episode's figure."""
    parts = [arms.label(episode.arm), one_line(episode.split), f"step {episode.step}", f"seed {episode.seed}"]
    return " · ".join([*parts, f"route {walk.view.index}"])


def route_figure(arms: Arms, episode: SampleEpisode, walk: Walk) -> Figure:
    """An episode on its route: map, answers point by point, and street views if there are any."""
    rows = sum(max(1, len(visit.answers)) for visit in walk.visits) + 3
    map_height = max(4.3, rows * _LINE)
    seen = views_of(episode.facts, [visit.number for visit in walk.reached])
    cell = (WIDTH - 0.4) / COLUMNS
    strip = math.ceil(len(seen) / COLUMNS) * (cell + 0.22) + 0.15 if seen else 0.0
    head, foot = 0.62, 0.55
    height = head + map_height + foot + strip
    figure = Figure((WIDTH, height))
    _title(figure, arms, episode, walk, x=0.2 / WIDTH, top=1 - 0.1 / height, size=10.5)
    bottom = (foot + strip) / height
    axes = figure.add_axes((0.02, bottom, 0.59, map_height / height))
    draw_map(axes, walk)
    _list(figure.add_axes((0.63, bottom, 0.36, map_height / height)), walk, map_height)
    _views(figure, seen, walk, top=strip, cell=cell)
    return figure


def map_figure(arms: Arms, episode: SampleEpisode, walk: Walk) -> Figure:
    """The map alone, as wide as a column of a report."""
    width, height = 4.6, 5.0
    figure = Figure((width, height))
    _title(figure, arms, episode, walk, x=0.02, top=1 - 0.08 / height, size=9)
    draw_map(figure.add_axes((0.01, 0.13, 0.98, 0.76)), walk)
    return figure


def views_figure(facts: Mapping[str, Any], walks: Sequence[Walk]) -> Figure | None:
    """The street views at every point of a route that any of its episodes reached; None if there are none."""
    seen = views_of(facts, sorted({visit.number for walk in walks for visit in walk.reached}))
    if not seen:
        return None
    cell = (WIDTH - 0.4) / COLUMNS
    strip = math.ceil(len(seen) / COLUMNS) * (cell + 0.22) + 0.05
    figure = Figure((WIDTH, strip))
    _views(figure, seen, walks[0] if len(walks) == 1 else None, top=strip, cell=cell)
    return figure


def _title(
    figure: Figure, arms: Arms, episode: SampleEpisode, walk: Walk, *, x: float, top: float, size: float
) -> None:
    figure.text(
        x, top, title_of(arms, episode, walk), va="top", fontsize=size, fontweight="bold", gid="title"
    )
    colour = TEXT_COLOURS[FIRST if walk.solved else FAILED]
    below = top - 0.22 / figure.get_figheight()
    figure.text(
        x, below, walk.verdict, va="top", fontsize=size, fontweight="bold", color=colour, gid="verdict"
    )


def _list(axes: Axes, walk: Walk, height: float) -> None:
    """Point by point what was right and what was answered."""
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(height / _LINE, 0)
    columns = (0.055, 0.09, 0.46)
    for x, word in zip(columns[1:], ("right", "answered"), strict=True):
        axes.text(x, 0.6, word, fontsize=8, fontweight="bold", color=INK, va="center")
    axes.axhline(1.2, color="#B0B0B0", lw=0.8)
    row = 2.0
    for visit in walk.visits:
        dim = visit.state == AHEAD
        colour = FAINT if dim else INK
        axes.text(columns[0], row, str(visit.number), fontsize=7.5, ha="right", va="center", color=colour)
        axes.text(columns[1], row, short(visit.point.action), fontsize=7.5, va="center", color=colour)
        for answer, (summary, good) in [(answer, _summary(walk, answer)) for answer in visit.answers]:
            mark = TEXT_COLOURS[(FIRST if len(visit.answers) == 1 else LATER) if good else FAILED]
            axes.text(
                columns[2], row, f"{'✓' if answer.outcome == 'correct' else '✗'} {summary}", fontsize=7.5,
                va="center", color=mark, parse_math=False, gid=f"answer-{visit.number}",
            )  # fmt: skip
            row += 1
        row += not visit.answers


def _summary(walk: Walk, answer: Line) -> tuple[str, bool]:
    """An answer in brief, and True if it is right."""
    good = answer.outcome == "correct"
    if answer.content == NOT_STORED:
        return str(answer.outcome).replace("_", " "), good
    text = short(walk.action(answer) or "no action")
    text = text if len(text) <= 24 else f"{text[:23]}…"
    return text + (", saw wrong" if answer.outcome == "wrong_observation" else ""), good


def _views(figure: Figure, seen: Sequence[PointView], walk: Walk | None, *, top: float, cell: float) -> None:
    """The street views in rows below ``top`` inches, each framed in the colour of its point."""
    width, height = figure.get_size_inches()
    states: dict[int, Visit] = {visit.number: visit for visit in walk.visits} if walk else {}
    for index, view in enumerate(seen):
        row, column = divmod(index, COLUMNS)
        low = top - (row + 1) * (cell + 0.22) + 0.04
        box = ((0.2 + column * cell) / width, low / height, (cell - 0.08) / width, (cell - 0.08) / height)
        axes = figure.add_axes(box, gid=f"view-{view.number}")
        axes.imshow(np.asarray(view.image), interpolation="none" if view.image.width < 60 else "antialiased")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(False)
        visit = states.get(view.number)
        for side in axes.spines.values():
            side.set_visible(True)
            side.set_color(COLOURS[visit.state] if visit else "#B0B0B0")
            side.set_linewidth(2.0 if visit else 0.8)
        axes.set_title(f"point {view.number}", fontsize=7.5, fontweight="normal", loc="left", pad=2)

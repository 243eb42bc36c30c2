"""An episode as one picture: what it showed, and its dialogue with the verdicts."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from sftrl_ext.plain_text import one_line
from sftrl_ext.reports.analysis.arms import Arms
from sftrl_ext.reports.episodes.dialogues import Line, dialogue, fact_items
from sftrl_ext.reports.episodes.pictures import in_words, pictures
from sftrl_ext.reports.figures.style import FAINT, INK, WIDTH, text_renderer
from sftrl_ext.runs.records import SampleEpisode

_COLUMNS = 100
"""Characters in a line of a message."""

_MOST = 60
"""Lines of a message that are drawn."""

_LINE = 0.15
"""Height of a line, in inches."""

_GOOD, _BAD = "#00805E", "#C1121F"


def dialogue_figure(arms: Arms, episode: SampleEpisode) -> Figure:
    """Draw an episode: the picture of its hand, if it has one, and below it every message."""
    messages = [(line, _wrapped(line.content)) for line in dialogue(episode)]
    images = pictures(episode.facts)
    shown = 2.4 if images else 0.0
    shown_text = in_words(episode.facts)
    head = 0.75 + (0.2 if shown_text else 0.0)
    height = head + shown + sum(len(text) * _LINE + 0.38 for _, text in messages) + 0.1
    figure = Figure((WIDTH, height))
    top = _title(figure, arms, episode, shown_text, height)
    for index, image in enumerate(images):
        wide = min(shown * image.width / image.height, (WIDTH - 0.4) / len(images))
        box = (0.2 + index * (wide + 0.1), top - shown + 0.1, wide, shown - 0.15)
        axes = figure.add_axes((box[0] / WIDTH, box[1] / height, box[2] / WIDTH, box[3] / height), gid="hand")
        axes.imshow(np.asarray(image), aspect="equal")
        axes.set_anchor("W")
        axes.set_axis_off()
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(0, height)
    axes.set_axis_off()
    low = top - shown
    for line, text in messages:
        tall = len(text) * _LINE + 0.30
        _draw(figure, line, text, low, tall, arms.colour(episode.arm))
        axes.add_patch(
            FancyBboxPatch(
                (_left(line) - 0.08, low - tall), 8.1, tall - 0.02, boxstyle="round,pad=0,rounding_size=0.06",
                fc="#EEF4F9" if line.role == "assistant" else "#F6F6F4", ec="none", zorder=0,
            )
        )  # fmt: skip
        low -= tall + 0.08
    return figure


def _left(line: Line) -> float:
    return 0.95 if line.role == "assistant" else 0.28


def _title(figure: Figure, arms: Arms, episode: SampleEpisode, shown_text: str, height: float) -> float:
    """Write what it is; where there is room below, in inches."""
    split = one_line(episode.split)
    title = f"{arms.label(episode.arm)} · {split} · step {episode.step} · seed {episode.seed} ·"
    x, top = 0.2 / WIDTH, height - 0.12
    text = figure.text(x, top / height, title, va="top", fontsize=10.5, fontweight="bold", gid="title")
    figure.text(
        x + text.get_window_extent(text_renderer(figure)).width / figure.dpi / WIDTH + 0.007, top / height,
        "solved" if episode.solved else "not solved", va="top", fontsize=10.5, fontweight="bold",
        color=_GOOD if episode.solved else _BAD, gid="verdict",
    )  # fmt: skip
    facts = " · ".join(f"{key}: {text}" for key, text in fact_items(episode.facts))
    for line in (textwrap.shorten(facts, 130, placeholder=" …"), shown_text):
        top -= 0.22
        if line:
            figure.text(x, top / height, line, va="top", fontsize=8, color=FAINT)
    return height - 0.75 - (0.2 if shown_text else 0.0)


def _draw(figure: Figure, line: Line, text: list[str], low: float, tall: float, colour: str) -> None:
    width, height = figure.get_size_inches()
    x = _left(line) / width
    model = line.role == "assistant"
    who = figure.text(
        x, (low - 0.06) / height, "model" if model else line.role, va="top", fontsize=7.5, fontweight="bold",
        color=colour if model else FAINT,
    )  # fmt: skip
    if line.outcome is not None:
        good = line.outcome == "correct"
        verdict = f"{'✓' if good else '✗'} {line.outcome.replace('_', ' ')}"
        verdict += "" if line.reward is None else f"  {line.reward:+g}"
        after = x + who.get_window_extent(text_renderer(figure)).width / figure.dpi / width + 0.012
        figure.text(
            after, (low - 0.06) / height, verdict, va="top", fontsize=7.5, fontweight="bold",
            color=_GOOD if good else _BAD,
        )  # fmt: skip
    for row, row_text in enumerate(text):
        figure.text(
            x, (low - 0.24 - row * _LINE) / height, row_text, va="top", fontsize=7.5, color=INK,
            family="DejaVu Sans Mono", parse_math=False,
        )  # fmt: skip


def _wrapped(text: str) -> list[str]:
    """The lines of a message, broken; those beyond `_MOST` are counted only."""
    lines = [
        part
        for line in text.strip().splitlines()
        for part in textwrap.wrap(line, _COLUMNS, drop_whitespace=False, replace_whitespace=False) or [""]
    ]
    return lines if len(lines) <= _MOST else [*lines[:_MOST], f"… {len(lines) - _MOST} more lines"]

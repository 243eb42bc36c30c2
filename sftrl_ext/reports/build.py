"""From a run folder to its report, by the stored metrics alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sftrl_ext.files import write_text
from sftrl_ext.reports.analysis.run_analysis import analyse
from sftrl_ext.reports.episodes.dialogues import pick_side_by_side
from sftrl_ext.reports.episodes.sample_pictures import draw_samples
from sftrl_ext.reports.figures.matplotlib_needed import needs_matplotlib
from sftrl_ext.reports.pages.method import verdict_sentences
from sftrl_ext.reports.summary import summarize


@dataclass(frozen=True)
class ReportPaths:
    """Files of a report, and its verdict.

    Attributes:
        folder: ``run_dir/report``.
        markdown, html, summary: The pages and the JSON of the numbers.
        figures: Name of each figure to its (PNG, SVG).
        verdict: The sentences of the verdict.
        notes: What was missing or has to be known.
    """

    folder: Path
    markdown: Path
    html: Path
    summary: Path
    figures: Mapping[str, tuple[Path, Path]]
    verdict: tuple[str, ...]
    notes: tuple[str, ...]


def build_report(run_dir: Path, rl_tokens: str | None = None) -> ReportPaths:
    """Write ``report/`` of a run folder: figures, ``report.md``, ``report.html``, ``summary.json``.

    Where episodes show pictures, ``episode-<n>.*`` holds those of the sample episodes; of a route
    ``episode-<n>-<arm>.png`` is a map.

    Only stored metrics are read, and the same metrics give the same bytes. What is missing makes the report
    smaller, with a note.

    Args:
        run_dir: Run folder; need not be finished.
        rl_tokens: Reading of D_RL in the paper's formula, ``per_epoch`` or ``once``; None takes the recipe's.

    Raises:
        SftrlError: if it is no run folder, a stored file is malformed (file and line are named), or
            matplotlib is not installed.
    """
    with needs_matplotlib("a report"):
        from sftrl_ext.reports.figures.run_figures import draw_figures
        from sftrl_ext.reports.pages.render import report_pages
    analysis = analyse(Path(run_dir), rl_tokens)
    folder = Path(run_dir) / "report"
    folder.mkdir(parents=True, exist_ok=True)
    figures = list(draw_figures(analysis, folder))
    shown = pick_side_by_side(analysis)
    pictures = draw_samples(analysis.arms, shown, folder)
    pages = {
        **report_pages(analysis, figures, shown, pictures),
        "summary.json": json.dumps(summarize(analysis), indent=2, allow_nan=False, default=str) + "\n",
    }
    for name, text in pages.items():
        write_text(folder / name, text)
    return ReportPaths(
        folder=folder,
        markdown=folder / "report.md",
        html=folder / "report.html",
        summary=folder / "summary.json",
        figures={drawn.spec.name: (drawn.png, drawn.svg) for drawn in figures},
        verdict=tuple(verdict_sentences(analysis)),
        notes=tuple(analysis.notes),
    )

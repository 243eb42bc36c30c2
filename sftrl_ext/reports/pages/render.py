"""Pages of the report and of the episode viewer: contents gathered here, laid out by ``templates/``."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from markupsafe import Markup

from sftrl_ext.plain_text import markdown_line, printable
from sftrl_ext.reports.analysis.arms import Arms
from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.analysis.splits import lr_label
from sftrl_ext.reports.episodes.dialogues import SideBySide, fact_items
from sftrl_ext.reports.episodes.pictures import in_words
from sftrl_ext.reports.episodes.sample_pictures import SamplePictures
from sftrl_ext.reports.episodes.walks import parts
from sftrl_ext.reports.pages.chart_data import chart_data
from sftrl_ext.reports.pages.cities import city_heading, city_splits, city_table
from sftrl_ext.reports.pages.episode_data import episode_data
from sftrl_ext.reports.pages.inline import page_parts
from sftrl_ext.reports.pages.method import axis_sentences, method_notes, verdict_groups
from sftrl_ext.reports.pages.mismatch import MISMATCH, mismatch_table
from sftrl_ext.reports.pages.tables import (
    DIVERGENCE,
    Table,
    all_rows,
    change_table,
    compared_rows,
    divergence_table,
    equal_id_table,
    fairness_table,
    recognition_table,
    run_facts,
    sample_table,
    stage_table,
    success_table,
)
from sftrl_ext.runs.records import SampleEpisode
from sftrl_ext.templates import template_environment

if TYPE_CHECKING:
    from sftrl_ext.reports.figures.run_figures import DrawnFigure

FAIRNESS = "Fairness card (! where arms differ)"
"""Title of the table of the arms' settings and costs."""


@dataclass(frozen=True)
class NumberTable:
    """A table of results under its title.

    Attributes:
        title: A sentence above the table, or the summary of a folded one.
        table: The numbers.
        folded: Hide the table until the title is clicked.
    """

    title: str
    table: Table
    folded: bool = False


def report_pages(
    analysis: Analysis,
    figures: Sequence[DrawnFigure],
    instances: Sequence[SideBySide],
    pictures: Sequence[SamplePictures],
) -> dict[str, str]:
    """Render the report as a self-contained HTML page, and as Markdown that links the files beside it.

    Args:
        analysis: The analysed run.
        figures: The drawn figures; the HTML page inlines their PNG files.
        instances: The sample episodes of the Markdown page; the HTML page has all that are kept.
        pictures: The pictures of each of them.

    Returns:
        ``report.md`` and ``report.html``.
    """
    content = _report_content(analysis, figures)
    samples = [_instance(instance, drawn) for instance, drawn in zip(instances, pictures, strict=True)]
    markdown = _environment().get_template("report.md.j2").render(content, instances=samples)
    return {"report.md": printable(markdown), "report.html": _report_html(analysis, content)}


def live_page(analysis: Analysis, stamp: str) -> str:
    """Render the report of a run that goes on, without figures, for a server that writes it anew.

    Args:
        analysis: The run so far.
        stamp: State of the files that it was read from; the page loads itself again when the server has
            another one.
    """
    return _report_html(analysis, _report_content(analysis, []), stamp)


def error_page(title: str, error: str, stamp: str) -> str:
    """Render why a run has no page yet; it loads itself again as `live_page` does."""
    template = _environment().get_template("error.html.j2")
    parts = page_parts({"chart": None, "episodes": None, "stamp": stamp}, live=True)
    return printable(template.render(title=title, error=error, **parts))


def _report_content(analysis: Analysis, figures: Sequence[DrawnFigure]) -> dict[str, Any]:
    return {
        "title": analysis.title,
        "arms": analysis.arms,
        "mark": analysis.mark,
        "verdicts": [
            {"pattern": split_verdict.verdict.pattern, "headline": headline, "findings": findings}
            for split_verdict, (headline, *findings) in zip(
                analysis.verdicts, verdict_groups(analysis), strict=analysis.no_claim is None
            )
        ],
        "axes": axis_sentences(analysis),
        "notes": analysis.notes,
        "figures": figures,
        "numbers": number_tables(analysis) if analysis.run.records else [],
        "tables": _training_tables(analysis),
        "facts": run_facts(analysis),
        "method": method_notes(analysis),
    }


def _report_html(analysis: Analysis, content: Mapping[str, Any], stamp: str | None = None) -> str:
    chart = chart_data(analysis)
    kept = None
    if analysis.run.episodes:
        rates = {stage.name: lr_label(stage.lr) for stage in analysis.run.stages if stage.lr is not None}
        kept = episode_data(analysis.run.episodes, analysis.arms, first=set(chart["compared"]), rates=rates)
    data = {"chart": chart, "episodes": kept} | ({} if stamp is None else {"stamp": stamp})
    template = _environment().get_template("report.html.j2")
    parts = page_parts(data, live=stamp is not None)
    return printable(template.render(content, chart=chart, episodes=kept, **parts))


def episodes_page(title: str, arms: Arms, episodes: Sequence[SampleEpisode]) -> str:
    """Render kept episodes as one self-contained HTML page.

    Args:
        title: The page's heading.
        arms: Labels of the arms.
        episodes: The episodes.
    """
    kept = episode_data(episodes, arms)
    template = _environment().get_template("episodes.html.j2")
    parts = page_parts({"chart": None, "episodes": kept})
    return printable(template.render(title=title, left_out=kept["left_out"], **parts))


def number_tables(analysis: Analysis) -> list[NumberTable]:
    """Tables of results: at equal compute, then every evaluated checkpoint."""
    compared, every = compared_rows(analysis), all_rows(analysis)
    tables = [
        NumberTable(
            f"{analysis.measure} ± SE in percent, seeds pooled.",
            success_table(analysis, compared, paper=True),
        )
    ]
    if (changes := change_table(analysis)) is not None:
        tables.append(NumberTable("Change from the start ± SE in points, with the paper's.", changes))
    if (readings := equal_id_table(analysis)) is not None:
        title = "At equal success in distribution: where each first reaches the largest that both reach"
        tables.append(NumberTable(f"{title} (± SE in percent).", readings, folded=len(readings.rows) > 12))
    tables.append(NumberTable("Every evaluated checkpoint", success_table(analysis, every), folded=True))
    if analysis.metric == "steps":
        routes = success_table(analysis, compared, paper=True, metric="success")
        every_route = success_table(analysis, every, metric="success")
        tables.append(NumberTable("Routes walked to the end ± SE in percent.", routes))
        tables.append(NumberTable("Routes at every evaluated checkpoint", every_route, folded=True))
    for split in city_splits(analysis):
        tables.append(NumberTable(city_heading(split), city_table(analysis, split)))
    if analysis.recognizes:
        cards = recognition_table(analysis, compared, paper=True)
        every_card = recognition_table(analysis, every)
        tables.append(NumberTable("First responses that name the right cards ± SE in percent.", cards))
        tables.append(NumberTable("Recognition at every evaluated checkpoint", every_card, folded=True))
    if any(record.trained_rule_first is not None for record in analysis.run.records):
        title = "First responses that solve by the trained rule, not by the one stated, ± SE in percent"
        tables.append(NumberTable(f"{title}.", success_table(analysis, compared, metric="trained_rule")))
        every_first = success_table(analysis, every, metric="trained_rule")
        tables.append(NumberTable(f"{title}, at every evaluated checkpoint", every_first, folded=True))
    if (samples := sample_table(analysis, compared)) is not None:
        title = "pass@k ± SE in percent; distinct solutions per instance, of those it has"
        tables.append(NumberTable(f"{title}.", samples))
    if (distances := divergence_table(analysis)) is not None:
        tables.append(NumberTable(DIVERGENCE, distances, folded=True))
    return tables


def _training_tables(analysis: Analysis) -> list[tuple[str, Table]]:
    tables = []
    if (card := fairness_table(analysis)) is not None:
        tables.append((FAIRNESS, card))
    if (disagreement := mismatch_table(analysis)) is not None:
        tables.append((MISMATCH, disagreement))
    if analysis.run.stages:
        tables.append(("Time and memory", stage_table(analysis)))
    return tables


def _instance(instance: SideBySide, drawn: SamplePictures) -> dict[str, Any]:
    return {
        "split": instance.split,
        "facts": instance.facts,
        "words": in_words(instance.facts),
        "shown": drawn.shown,
        "prompt": instance.prompt(),
        "played": [
            {"episode": episode, "walk": walk, "map": path, "parts": parts(episode, walk, instance.shared)}
            for episode, walk, path in zip(instance.episodes, drawn.walks, drawn.maps, strict=True)
        ],
    }


def _environment() -> Environment:
    environment = template_environment("sftrl_ext.reports.pages")
    filters: dict[str, Any] = {
        "prose": _prose,
        "fenced": _fenced,
        "line": lambda text: markdown_line(str(text)),
        "uri": _file_uri,
        "fact_items": fact_items,
    }
    environment.filters |= filters
    return environment


def _prose(text: str) -> Markup:
    """Escaped text with backquoted parts as code elements."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False)))


def _fenced(text: str) -> str:
    """Text in a fence longer than any run of backquotes in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text.rstrip()}\n{fence}"


def _file_uri(path: Path) -> str:
    """A PNG file as a data address, so that the page carries it."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:image/png;base64,{data}"

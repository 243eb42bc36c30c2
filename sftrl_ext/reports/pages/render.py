"""Pages of the report and of the episode viewer: contents gathered here, laid out by ``templates/``."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment
from markupsafe import Markup

from sftrl_ext.plain_text import markdown_line, printable
from sftrl_ext.reports.analysis.arms import Arms
from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.analysis.splits import split_title
from sftrl_ext.reports.episodes.dialogues import SideBySide, fact_items
from sftrl_ext.reports.episodes.pictures import in_words
from sftrl_ext.reports.episodes.sample_pictures import SamplePictures
from sftrl_ext.reports.episodes.walks import Walk, parts
from sftrl_ext.reports.pages.cities import city_heading, city_splits, city_table
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

_ARM_CLASSES = ("sft", "rl", "init", "base")
_IMAGE_TYPES = {".png": "png", ".jpg": "jpeg"}


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
        instances: The sample episodes.
        pictures: The pictures of each of them.

    Returns:
        ``report.md`` and ``report.html``.
    """
    content = {
        "title": analysis.title,
        "arms": analysis.arms,
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
        "instances": [
            _instance(instance, drawn, analysis.task)
            for instance, drawn in zip(instances, pictures, strict=True)
        ],
        "tables": _training_tables(analysis),
        "facts": run_facts(analysis),
        "method": method_notes(analysis),
    }
    environment = _environment()
    return {
        name: printable(environment.get_template(f"{name}.j2").render(content))
        for name in ("report.md", "report.html")
    }


def episodes_page(
    title: str,
    arms: Arms,
    episodes: Sequence[SampleEpisode],
    walks: Sequence[Walk | None],
    pictures: Sequence[Sequence[Path]],
) -> str:
    """Render single episodes as one self-contained HTML page.

    Args:
        title: The page's heading.
        arms: Labels of the arms.
        episodes: The episodes, one below the other.
        walks: The walk of each, if it is on a route.
        pictures: Of each the PNG files that show it; they are inlined.
    """
    played = [
        {
            "episode": episode,
            "walk": walk,
            "parts": parts(episode, walk),
            "pictures": paths,
            "words": in_words(episode.facts),
        }
        for episode, walk, paths in zip(episodes, walks, pictures, strict=True)
    ]
    template = _environment().get_template("episodes.html.j2")
    return printable(template.render(title=title, arms=arms, episodes=played))


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


def _instance(instance: SideBySide, drawn: SamplePictures, task: str) -> dict[str, Any]:
    return {
        "title": split_title(instance.split, task),
        "split": instance.split,
        "facts": instance.facts,
        "words": in_words(instance.facts),
        "shown": drawn.shown,
        "on_route": drawn.walks[0] is not None,
        "prompt": instance.prompt(),
        "played": [
            {"episode": episode, "walk": walk, "map": path, "parts": parts(episode, walk, instance.shared)}
            for episode, walk, path in zip(instance.episodes, drawn.walks, drawn.maps, strict=True)
        ],
    }


def _environment() -> Environment:
    environment = template_environment("sftrl_ext.reports.pages")
    environment.filters |= {
        "prose": _prose,
        "fenced": _fenced,
        "line": lambda text: markdown_line(str(text)),
        "uri": _file_uri,
        "fact_items": fact_items,
        "arm_class": lambda kind: kind if kind in _ARM_CLASSES else "other",
    }
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
    """A picture's file as a data address, so that the page carries it."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:image/{_IMAGE_TYPES[path.suffix]};base64,{data}"

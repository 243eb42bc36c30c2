"""The report as one HTML file that needs nothing else: figures inlined, episodes side by side, no scripts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from sftrl_ext.reports.analysis import Analysis
from sftrl_ext.reports.cities import city_heading, city_splits, city_table
from sftrl_ext.reports.dialogues import SideBySide
from sftrl_ext.reports.figures import DrawnFigure
from sftrl_ext.reports.method import axis_sentences, method_notes, verdict_groups
from sftrl_ext.reports.mismatch import MISMATCH, mismatch_table
from sftrl_ext.reports.page_episodes import file_uri, instance_html
from sftrl_ext.reports.page_style import html_document
from sftrl_ext.reports.sample_pictures import SamplePictures
from sftrl_ext.reports.tables import (
    DIVERGENCE,
    Table,
    all_rows,
    change_table,
    compared_rows,
    divergence_table,
    recognition_table,
    run_facts,
    stage_table,
    success_table,
)


def _prose(text: str) -> str:
    """Escaped text with `code` marks turned into elements."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def _items(texts: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{_prose(text)}</li>" for text in texts) + "</ul>"


def _fold(summary: str, body: str) -> str:
    return f"<details><summary>{escape(summary)}</summary>{body}</details>"


def _table(table: Table) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        kinds = ("w" if i < table.words else "n" for i in range(len(row)))
        return "".join(f'<{tag} class="{k}">{escape(c)}</{tag}>' for k, c in zip(kinds, row, strict=True))

    head = f"<thead><tr>{cells(table.header, 'th')}</tr></thead>"
    body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in table.rows)
    return f'<div class="wide"><table>{head}<tbody>{body}</tbody></table></div>'


def _figure(drawn: DrawnFigure) -> str:
    image = f'<img src="{file_uri(drawn.png)}" alt="{escape(drawn.spec.title)}">'
    body = f"<figure>{image}<figcaption>{_prose(drawn.caption)}</figcaption></figure>"
    body += _items(drawn.says) if drawn.says else ""
    if drawn.spec.aside:
        return _fold(drawn.spec.title, body)
    return f"<section><h2>{escape(drawn.spec.title)}</h2>{body}</section>"


def _recognition(found: Analysis) -> tuple[str, str]:
    """The tables of recognition: at equal compute, and of every checkpoint."""
    lead = "<p>First responses that name the right cards ± SE in percent.</p>"
    every = _fold(
        "Recognition at every evaluated checkpoint", _table(recognition_table(found, all_rows(found)))
    )
    return lead + _table(recognition_table(found, compared_rows(found), paper=True)), every


def _whole_routes(found: Analysis) -> tuple[str, str]:
    """The tables of whole routes: at equal compute, and of every checkpoint."""
    lead = "<p>Routes walked to the end ± SE in percent.</p>"
    compared = success_table(found, compared_rows(found), paper=True, metric="success")
    every = _table(success_table(found, all_rows(found), metric="success"))
    return lead + _table(compared), _fold("Routes at every evaluated checkpoint", every)


def html_page(
    found: Analysis,
    figures: Sequence[DrawnFigure],
    shown: Sequence[SideBySide],
    pictures: Sequence[SamplePictures],
) -> str:
    """Write the report as one self-contained HTML page.

    Args:
        found: The analysed run.
        figures: The drawn figures; their PNG files are read and inlined.
        shown: The sample episodes.
        pictures: The pictures of each of them; these files are inlined too.
    """
    parts = [f"<h1>{escape(found.title)}</h1>"]
    for one, (headline, *findings) in zip(found.judged, verdict_groups(found), strict=True):
        kind = escape(one.verdict.pattern)
        parts.append(f'<div class="verdict {kind}"><p>{_prose(headline)}</p>{_items(findings)}</div>')
    if axes := axis_sentences(found):
        parts.append(f"<section><h2>Compute axes</h2>{_items(axes)}</section>")
    if found.notes:
        parts.append(f'<div class="notes">{_items(found.notes)}</div>')
    parts += [_figure(drawn) for drawn in figures]
    if found.run.records:
        compared = _table(success_table(found, compared_rows(found), paper=True))
        if (changes := change_table(found)) is not None:
            compared += "<p>Change from the start ± SE in points, with the paper's.</p>" + _table(changes)
        every = _fold("Every evaluated checkpoint", _table(success_table(found, all_rows(found))))
        lead = f"<p>{found.measure} ± SE in percent, seeds pooled.</p>"
        if found.metric == "steps":
            lead, compared, every = f"{lead}{compared}{every}", *_whole_routes(found)
        for split in city_splits(found):
            every += f"<p>{_prose(city_heading(split))}</p>{_table(city_table(found, split))}"
        if found.recognizes:
            lead, compared, every = f"{lead}{compared}{every}", *_recognition(found)
        if (distances := divergence_table(found)) is not None:
            every += _fold(DIVERGENCE, _table(distances))
        parts.append(f"<section><h2>Numbers</h2>{lead}{compared}{every}</section>")
    if shown:
        rows = "".join(
            instance_html(found.arms, one, found.task, drawn)
            for one, drawn in zip(shown, pictures, strict=True)
        )
        parts.append(f"<section><h2>Sample episodes</h2>{rows}</section>")
    if (disagreement := mismatch_table(found)) is not None:
        parts.append(f"<section><h2>{MISMATCH}</h2>{_table(disagreement)}</section>")
    if found.run.stages:
        parts.append(f"<section><h2>Time and memory</h2>{_table(stage_table(found))}</section>")
    facts = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in run_facts(found))
    parts.append(f"<section><h2>The run</h2><dl>{facts}</dl></section>")
    parts.append(f"<section><h2>How the numbers are made</h2>{_items(method_notes(found))}</section>")
    return html_document(found.title, "".join(parts))

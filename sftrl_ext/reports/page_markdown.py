"""The report as Markdown, with the figures as files beside it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sftrl_ext.reports.analysis import Analysis
from sftrl_ext.reports.cities import city_heading, city_splits, city_table
from sftrl_ext.reports.dialogues import Line, SideBySide, fact_items
from sftrl_ext.reports.figures import DrawnFigure
from sftrl_ext.reports.method import axis_sentences, method_notes, verdict_groups
from sftrl_ext.reports.mismatch import MISMATCH, mismatch_table
from sftrl_ext.reports.pictures import in_words
from sftrl_ext.reports.sample_pictures import SamplePictures
from sftrl_ext.reports.tables import (
    DIVERGENCE,
    all_rows,
    change_table,
    compared_rows,
    divergence_table,
    recognition_table,
    run_facts,
    stage_table,
    success_table,
)
from sftrl_ext.reports.walks import parts


def _fold(summary: str, body: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{body}\n\n</details>"


def _fenced(text: str) -> str:
    """Text in a fence longer than any run of backquotes in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text.rstrip()}\n{fence}"


def _instance(found: Analysis, shown: SideBySide, drawn: SamplePictures) -> str:
    facts = " · ".join(f"{key}: {text}" for key, text in fact_items(shown.facts))
    blocks = [f"### `{shown.split}`\n\n{facts}"]
    if words := in_words(shown.facts):
        blocks += [*(f"![{words}]({picture.name})" for picture in drawn.shown), f"Shown: {words}."]
    blocks += [f"**{line.role}**\n\n{_fenced(line.content)}" for line in shown.prompt()]
    for episode, walk, path in zip(shown.episodes, drawn.walks, drawn.maps, strict=True):
        lines = [f"![{walk.verdict}]({path.name})"] if walk is not None and path is not None else []
        for part in parts(episode, walk, shown.shared):
            lines += [f"#### {part.heading}"] if part.heading else []
            lines += map(_line, part.lines)
        solved = "solved" if episode.solved else "not solved"
        title = f"{found.arms.label(episode.arm)}, step {episode.step}, seed {episode.seed}: {solved}"
        blocks.append(_fold(title, "\n\n".join(lines)))
    return "\n\n".join(blocks)


def _line(line: Line) -> str:
    verdict = "" if line.outcome is None else f" · {line.outcome}"
    verdict += "" if line.reward is None else f" ({line.reward:+g})"
    return f"**{line.role}**{verdict}\n\n{_fenced(line.content)}"


def markdown_page(
    found: Analysis,
    figures: Sequence[DrawnFigure],
    shown: Sequence[SideBySide],
    pictures: Sequence[SamplePictures],
) -> str:
    """Write the report.

    Args:
        found: The analysed run.
        figures: The drawn figures; linked by file name, so the page must lie beside them.
        shown: The sample episodes.
        pictures: The pictures of each of them, beside the page too.
    """
    parts = [f"# {found.title}"]
    for headline, *findings in verdict_groups(found):
        parts.append(f"**{headline}**")
        if findings:
            parts.append("\n".join(f"- {sentence}" for sentence in findings))
    if axes := axis_sentences(found):
        parts.append("## Compute axes\n\n" + "\n".join(f"- {sentence}" for sentence in axes))
    if found.notes:
        parts.append("\n".join(f"> - {note}" for note in found.notes))
    for drawn in figures:
        image = f"![{drawn.spec.title}]({drawn.png.name})\n\n{drawn.caption} [SVG]({drawn.svg.name})"
        if drawn.says:
            image += "\n\n" + "\n".join(f"- {sentence}" for sentence in drawn.says)
        parts.append(
            _fold(drawn.spec.title, image) if drawn.spec.aside else f"## {drawn.spec.title}\n\n{image}"
        )
    if found.run.records:
        compared = success_table(found, compared_rows(found), paper=True).to_markdown()
        every = success_table(found, all_rows(found)).to_markdown()
        parts.append(f"## Numbers\n\n{found.measure} ± SE in percent, seeds pooled.\n\n{compared}")
        if (changes := change_table(found)) is not None:
            parts.append(
                f"Change from the start ± SE in points, with the paper's.\n\n{changes.to_markdown()}"
            )
        parts.append(_fold("Every evaluated checkpoint", every))
        if found.metric == "steps":
            compared = success_table(found, compared_rows(found), paper=True, metric="success").to_markdown()
            every = success_table(found, all_rows(found), metric="success").to_markdown()
            parts.append(f"Routes walked to the end ± SE in percent.\n\n{compared}")
            parts.append(_fold("Routes at every evaluated checkpoint", every))
        for split in city_splits(found):
            parts.append(f"{city_heading(split)}\n\n{city_table(found, split).to_markdown()}")
        if found.recognizes:
            compared = recognition_table(found, compared_rows(found), paper=True).to_markdown()
            every = recognition_table(found, all_rows(found)).to_markdown()
            parts.append(f"First responses that name the right cards ± SE in percent.\n\n{compared}")
            parts.append(_fold("Recognition at every evaluated checkpoint", every))
        if (distances := divergence_table(found)) is not None:
            parts.append(_fold(DIVERGENCE, distances.to_markdown()))
    if shown:
        parts.append(
            "## Sample episodes\n\n"
            + "\n\n".join(_instance(found, *one) for one in zip(shown, pictures, strict=True))
        )
    if (disagreement := mismatch_table(found)) is not None:
        parts.append(f"## {MISMATCH}\n\n{disagreement.to_markdown()}")
    if found.run.stages:
        parts.append(f"## Time and memory\n\n{stage_table(found).to_markdown()}")
    facts = "\n".join(f"- {name}: {value}" for name, value in run_facts(found))
    parts.append(f"## The run\n\n{facts}")
    notes = "\n".join(f"- {note}" for note in method_notes(found))
    parts.append(f"## How the numbers are made\n\n{notes}")
    return "\n\n".join(parts) + "\n"

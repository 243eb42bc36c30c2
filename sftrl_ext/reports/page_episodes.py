"""Episodes as HTML: what was shown, and the dialogues with their verdicts, of a route point by point."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path

from sftrl_ext.reports.arms import Arms
from sftrl_ext.reports.dialogues import Line, SideBySide, fact_items
from sftrl_ext.reports.page_style import arm_classes, html_document
from sftrl_ext.reports.pictures import in_words
from sftrl_ext.reports.sample_pictures import SamplePictures
from sftrl_ext.reports.splits import split_title
from sftrl_ext.reports.walks import Walk, parts
from sftrl_ext.runs.records import SampleEpisode

_LONG = 900
"""Characters from which a user's message is folded."""

_KINDS = {".png": "png", ".jpg": "jpeg"}


def file_uri(path: Path) -> str:
    """A picture's file as the address of an image that a page carries in itself."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"data:image/{_KINDS[path.suffix]};base64,{data}"


def _line(line: Line) -> str:
    text = f"<pre>{escape(line.content.strip())}</pre>"
    if line.role != "assistant":
        if len(line.content) > _LONG:
            first = line.content.strip().splitlines()[0][:90]
            text = f"<details><summary>{escape(first)} …</summary>{text}</details>"
        return f'<div class="turn user"><span class="who">{escape(line.role)}</span>{text}</div>'
    badge = ""
    if line.outcome is not None:
        good = line.outcome == "correct"
        reward = "" if line.reward is None else f" {line.reward:+g}"
        words = f"{'✓' if good else '✗'} {line.outcome.replace('_', ' ')}{reward}"
        badge = f'<span class="badge {"good" if good else "bad"}">{escape(words)}</span>'
    return f'<div class="turn model"><span class="who">model</span>{badge}{text}</div>'


def _dialogue(episode: SampleEpisode, walk: Walk | None, skip: int = 0) -> str:
    out = []
    for part in parts(episode, walk, skip):
        if part.heading:
            out.append(f'<p class="point">{escape(part.heading)}</p>')
        out += map(_line, part.lines)
    return "".join(out)


def _head(arms: Arms, episode: SampleEpisode, *, where: bool = False) -> str:
    good, words = ("good", "solved") if episode.solved else ("bad", "not solved")
    split = f" <code>{escape(episode.split)}</code>" if where else ""
    kind, label = arm_classes(arms.kind(episode.arm)), escape(arms.label(episode.arm))
    return (
        f'<h4><span class="arm {kind}">{label}</span>{split} '
        f'step {episode.step} <span class="badge {good}">{words}</span></h4>'
    )


def _chips(episode: SampleEpisode) -> str:
    return "".join(
        f"<span class='chip'>{escape(k)}: <b>{escape(v)}</b></span>" for k, v in fact_items(episode.facts)
    )


def _map(path: Path | None, walk: Walk | None) -> str:
    if path is None or walk is None:
        return ""
    return f'<img class="map" src="{file_uri(path)}" alt="the route on a map: {escape(walk.verdict)}">'


def instance_html(arms: Arms, shown: SideBySide, task: str, drawn: SamplePictures) -> str:
    """An instance with the episodes of the arms that played it, side by side.

    Args:
        arms: How the arms are called.
        shown: The episodes.
        task: The task's short name, for the title of the split.
        drawn: Their pictures.
    """
    columns = "".join(
        f'<div class="episode">{_head(arms, episode)}{_map(path, walk)}'
        f"{_dialogue(episode, walk, shown.shared)}</div>"
        for episode, walk, path in zip(shown.episodes, drawn.walks, drawn.maps, strict=True)
    )
    prompt = "".join(_line(line) for line in shown.prompt())
    title = f"<h3>{escape(split_title(shown.split, task))} <code>{escape(shown.split)}</code></h3>"
    chips = f"<p>{_chips(shown.episodes[0])}</p>"
    return f'{title}{chips}{_shown(shown.episodes[0], drawn)}{prompt}<div class="side">{columns}</div>'


def _shown(episode: SampleEpisode, drawn: SamplePictures) -> str:
    """What the episodes showed, drawn again; nothing for text."""
    words = escape(in_words(episode.facts))
    kind = "hand" if drawn.walks[0] is None else "views"
    images = "".join(f'<img class="{kind}" src="{file_uri(path)}" alt="{words}">' for path in drawn.shown)
    return f"<figure>{images}<figcaption>{words}</figcaption></figure>" if images or words else ""


def episodes_page(
    title: str,
    arms: Arms,
    episodes: Sequence[SampleEpisode],
    walks: Sequence[Walk | None],
    pictures: Sequence[Sequence[Path]],
) -> str:
    """A page of single episodes that needs nothing else.

    Args:
        title: Its heading.
        arms: How the arms are called.
        episodes: The episodes, one below the other.
        walks: The walk of each, if it is on a route.
        pictures: Of each the PNG files that show it; they are inlined.
    """
    out = []
    for episode, walk, paths in zip(episodes, walks, pictures, strict=True):
        kind = "hand" if walk is None else "map"
        words = escape(in_words(episode.facts)) if walk is None else escape(walk.verdict)
        images = "".join(f'<img class="{kind}" src="{file_uri(path)}" alt="{words}">' for path in paths)
        figure = f"<figure>{images}<figcaption>{words}</figcaption></figure>" if images or words else ""
        out.append(
            f"<section>{_head(arms, episode, where=True)}<p>{_chips(episode)}</p>{figure}"
            f"{_dialogue(episode, walk)}</section>"
        )
    return html_document(title, f"<h1>{escape(title)}</h1>{''.join(out)}")

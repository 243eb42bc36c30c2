"""Kept episodes as JSON for the viewer of a page: each text once, pictures and routes by instance."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from PIL import Image

from sftrl_ext.plain_text import one_line, printable
from sftrl_ext.reports.analysis.arms import Arms
from sftrl_ext.reports.analysis.splits import split_order
from sftrl_ext.reports.episodes.dialogues import fact_items
from sftrl_ext.reports.episodes.pictures import in_words, pictures
from sftrl_ext.reports.episodes.walks import FAILED, NOT_STORED, Walk, parts, walk_of
from sftrl_ext.runs.records import SampleEpisode

MOST_TEXT, MOST_PICTURES = 1_200_000, 1_000_000
"""Characters of dialogues, and of pictures as base64, that a page carries; it stays below 5 MB with them."""

_SIDE, _VIEW_SIDE = 360, 200
"""Longest side of pictures and of street views, in pixels."""


@dataclass
class _Texts:
    """Distinct texts in the order of their first use."""

    index: dict[str, int] = field(default_factory=dict)
    size: int = 0

    def add(self, text: str) -> int:
        """Position of a text."""
        text = printable(text)
        if text not in self.index:
            self.index[text] = len(self.index)
            self.size += len(text)
        return self.index[text]


@dataclass
class _Instance:
    """An instance of a split, and what its episodes reached of it."""

    split: str
    facts: Mapping[str, Any]
    walk: Walk | None = None
    reached: set[int] = field(default_factory=set)


def episode_data(
    episodes: Sequence[SampleEpisode],
    arms: Arms,
    *,
    first: Collection[str] = (),
    rates: Mapping[str, str] | None = None,
    draw: bool = True,
) -> dict[str, Any]:
    """Episodes as JSON for the viewer.

    Args:
        episodes: The kept episodes.
        arms: Names and colours of the arms.
        first: Checkpoints, ``<stage>@<step>``, whose episodes are kept where not all fit; then later steps.
        rates: Stage to its learning rate as text.
        draw: False leaves out pictures.

    Returns:
        ``texts``, ``instances``, ``episodes`` and ``arms``; ``left_out`` counts episodes that did not fit.
    """
    texts = _Texts()
    instances: dict[tuple[str, str], _Instance] = {}
    lines: dict[int, dict[str, Any]] = {}
    order = sorted(
        range(len(episodes)), key=lambda n: (f"{episodes[n].stage}@{episodes[n].step}" not in first, -n)
    )
    for number in order:
        if texts.size > MOST_TEXT:
            break
        episode = episodes[number]
        key = episode.split, json.dumps(episode.facts, sort_keys=True, default=str)
        instance = instances.setdefault(key, _Instance(episode.split, episode.facts))
        walk = walk_of(episode)
        if walk is not None:
            instance.walk = walk
            instance.reached |= {visit.number for visit in walk.reached}
        lines[number] = {
            "key": key,
            "rate": (rates or {}).get(episode.stage, ""),
            **_episode(episode, walk, texts),
        }
    splits = split_order(split for split, _ in instances)
    ordered = sorted(instances, key=lambda key: (splits.index(key[0]), key[1]))
    position = {key: number for number, key in enumerate(ordered)}
    names = arms.order(episode.arm for episode in episodes)
    return {
        "texts": list(texts.index),
        "instances": list(_instances([instances[key] for key in ordered], ordered, draw)),
        "episodes": [{"instance": position[line.pop("key")], **line} for _, line in sorted(lines.items())],
        "arms": [
            {"name": one_line(arm), "label": arms.label(arm), "colour": arms.colour(arm)} for arm in names
        ],
        "left_out": len(episodes) - len(lines),
    }


def _episode(episode: SampleEpisode, walk: Walk | None, texts: _Texts) -> dict[str, Any]:
    """One episode: the checkpoint that played it, its verdict and its dialogue."""
    outcomes = [one_line(str(attempt.get("outcome", ""))) for attempt in episode.attempts]
    dialogue = [
        {
            "point": part.visit.number if part.visit else None,
            "heading": part.heading,
            "lines": [
                [line.role, texts.add(line.content.strip()), line.outcome, line.reward] for line in part.lines
            ],
        }
        for part in parts(episode, walk)
    ]
    stored = {
        "stage": one_line(episode.stage),
        "arm": one_line(episode.arm),
        "seed": episode.seed,
        "step": episode.step,
        "solved": episode.solved,
        "outcome": outcomes[-1] if outcomes else "",
        "parts": dialogue,
    }
    return stored if walk is None else stored | {"walk": _walked(walk)}


def _walked(walk: Walk) -> dict[str, Any]:
    """States of the points of a route, and the headings that the last answer and the right one lead to."""
    last = walk.reached[-1] if walk.reached else None
    headings: list[float | None] = [None, None]
    if last is not None and not walk.solved and last.state == FAILED:
        answers = [walk.action(answer) for answer in last.answers if answer.content != NOT_STORED]
        actions = (answers[-1] if answers else None, last.point.action)
        headings = [walk.view.action_heading(action, last.point.heading) for action in actions]
    return {
        "verdict": walk.verdict,
        "states": [visit.state for visit in walk.visits],
        "answered": headings[0],
        "right": headings[1],
    }


def _instances(
    instances: Sequence[_Instance], keys: Sequence[tuple[str, str]], draw: bool
) -> Iterator[dict[str, Any]]:
    """Instances with their pictures, as far as these fit."""
    labels = _labels(instances)
    room = MOST_PICTURES if draw else 0
    for instance, key, label in zip(instances, keys, labels, strict=True):
        numbers = tuple(sorted(instance.reached)) if instance.walk and instance.walk.view.image else ()
        drawn = _drawn(key[1], numbers) if room > 0 else ()
        room -= sum(map(len, drawn))
        yield {
            "id": hashlib.sha256("\n".join(key).encode(errors="replace")).hexdigest()[:8],
            "split": printable(instance.split),
            "label": label,
            "facts": fact_items(instance.facts),
            "shown": in_words(instance.facts),
            "pictures": drawn,
            "pictured": numbers if drawn else (),
            "route": _route(instance.walk) if instance.walk else None,
        }


def _labels(instances: Sequence[_Instance]) -> list[str]:
    """Short names: the facts in which the instances of a split differ, or the number of the route."""
    items = [dict(fact_items(instance.facts)) for instance in instances]
    values: dict[tuple[str, str], set[str]] = {}
    for instance, facts in zip(instances, items, strict=True):
        for key, text in facts.items():
            values.setdefault((instance.split, key), set()).add(text)
    labels = []
    for number, (instance, facts) in enumerate(zip(instances, items, strict=True), 1):
        varying = [
            text
            for key, text in facts.items()
            if not key.endswith("seed") and len(values[instance.split, key]) > 1
        ]
        if instance.walk is not None:
            varying.insert(0, f"route {instance.walk.view.index + 1}")
        labels.append(" · ".join(varying)[:80] or f"instance {number}")
    return labels


def _route(walk: Walk) -> list[dict[str, Any]]:
    """The points of a route for its map."""
    return [
        {
            "number": visit.number,
            "x": round(visit.point.position[0], 2),
            "y": round(visit.point.position[1], 2),
            "heading": round(visit.point.heading, 1),
            "action": visit.point.action,
            "observation": one_line(visit.point.observation),
            "landmark": one_line(visit.point.landmark or ""),
        }
        for visit in walk.visits
    ]


@lru_cache(maxsize=1024)
def _drawn(facts: str, points: tuple[int, ...]) -> tuple[str, ...]:
    """Pictures of an instance as data addresses; of a route the street views at some points."""
    side = _VIEW_SIDE if points else _SIDE
    return tuple(_uri(image) for image in pictures(json.loads(facts), side, points))


def _uri(image: Image.Image) -> str:
    out = io.BytesIO()
    image.convert("RGB").save(out, format="WEBP", quality=75)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode('ascii')}"

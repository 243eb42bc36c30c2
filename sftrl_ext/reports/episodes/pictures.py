"""Pictures of stored episodes, drawn again from their facts."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sftrl_ext.envs  # noqa: F401  (registers the tasks)
from sftrl_ext.envs.task import TASKS, make_episode
from sftrl_ext.errors import SftrlError
from sftrl_ext.plain_text import one_line

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 420
"""Longest side of a picture in a report, in pixels."""

VIEW_SIDE = 300
"""Side of the street views in a figure, in pixels."""


def has_picture(facts: Mapping[str, Any]) -> bool:
    """True if an episode shows pictures, by its facts."""
    return facts.get("modality") == "image"


def in_words(facts: Mapping[str, Any]) -> str:
    """Describe what an episode shows at its start; "" if it has no image. See `TaskSpec.describe`."""
    task = str(facts.get("task"))
    return one_line(TASKS[task].describe(facts)) if has_picture(facts) and task in TASKS else ""


def pictures(facts: Mapping[str, Any], side: int | None = SIDE, points: Sequence[int] = ()) -> list[Image]:
    """The pictures of an episode.

    Args:
        facts: The stored facts.
        side: Longest side in pixels that larger pictures are shrunk to; None leaves them as they were seen.
        points: Of a route the points to look from, counted from 1; by default its start.

    Returns:
        None at all for a text episode, and where the facts do not suffice to draw one.
    """
    if not has_picture(facts):
        return []
    if points:
        return [seen.image for seen in views_of(facts, points, side)]
    try:
        images = make_episode(facts).images()
    except (SftrlError, OSError):
        return []
    small = [image.copy() for image in images]
    for image in small:
        if side is not None:
            image.thumbnail((side, side))
    return small


def pngs(facts: Mapping[str, Any], side: int | None = SIDE, points: Sequence[int] = ()) -> list[bytes]:
    """The pictures of an episode as PNG files, the same bytes for the same facts; see `pictures`."""
    files = []
    for image in pictures(facts, side, points):
        out = io.BytesIO()
        image.save(out, format="PNG", optimize=True)
        files.append(out.getvalue())
    return files


@dataclass(frozen=True)
class PointView:
    """Street view at a point of a route, counted from 1."""

    number: int
    image: Image


def views_of(
    facts: Mapping[str, Any], numbers: Sequence[int], side: int | None = VIEW_SIDE
) -> list[PointView]:
    """The street views at points of a route, drawn again as the model sees them there.

    Args:
        facts: The stored facts of the route's episode.
        numbers: The points, counted from 1.
        side: Most pixels on a side; None for what the model saw.

    Returns:
        None at all for a text episode, or where the panoramas are not there any more.
    """
    if not has_picture(facts):
        return []
    rendered = facts.get("image_size")
    size = rendered if side is None else min(side, rendered) if isinstance(rendered, int) else side
    try:
        return [
            PointView(n, make_episode({**facts, "image_size": size, "first_point": n - 1}).images()[0])
            for n in numbers
        ]
    except (SftrlError, OSError):
        return []


def write_pictures(
    facts: Mapping[str, Any],
    folder: Path,
    stem: str,
    side: int | None = SIDE,
    points: Sequence[int] = (),
) -> list[Path]:
    """Write the pictures of an episode as ``<stem>.png``, ``<stem>-2.png``, ...; their paths. See `pngs`."""
    paths = []
    for number, png in enumerate(pngs(facts, side, points), start=1):
        path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
        folder.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
        paths.append(path)
    return paths

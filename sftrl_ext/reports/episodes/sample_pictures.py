"""The pictures of a report's sample episodes: hands drawn again, routes on maps, and their street views."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sftrl_ext.plain_text import safe_name
from sftrl_ext.reports.analysis.arms import Arms
from sftrl_ext.reports.episodes.dialogues import SideBySide
from sftrl_ext.reports.episodes.pictures import write_pictures
from sftrl_ext.reports.episodes.walks import Walk, walk_of


@dataclass(frozen=True)
class SamplePictures:
    """The pictures of one instance.

    Attributes:
        shown: What the instance showed.
        walks: Of each episode its walk, if it is on a route.
        maps: Of each episode the map of its walk, if it is on a route.
    """

    shown: tuple[Path, ...]
    walks: tuple[Walk | None, ...]
    maps: tuple[Path | None, ...]


def draw_samples(arms: Arms, shown: Sequence[SideBySide], folder: Path) -> list[SamplePictures]:
    """Write ``episode-<n>.*``, what each instance showed, and ``episode-<n>-<arm>.png``, the maps of routes.

    Earlier files of these names are removed.
    """
    for old in (*folder.glob("episode-*.png"), *folder.glob("episode-*.jpg")):
        old.unlink()
    return [
        _draw(arms, instance, folder, f"episode-{number}") for number, instance in enumerate(shown, start=1)
    ]


def _draw(arms: Arms, shown: SideBySide, folder: Path, stem: str) -> SamplePictures:
    from sftrl_ext.reports.episodes.route_figure import map_figure, views_figure
    from sftrl_ext.reports.figures.style import look, write_figure

    walks = tuple(walk_of(episode) for episode in shown.episodes)
    if walks[0] is None:  # all have the same facts
        return SamplePictures(tuple(write_pictures(shown.facts, folder, stem)), walks, (None,) * len(walks))
    maps = []
    with look():
        for episode, walk in zip(shown.episodes, walks, strict=True):
            assert walk is not None
            maps.append(folder / f"{stem}-{safe_name(episode.arm)}.png")
            write_figure(map_figure(arms, episode, walk), maps[-1])
        views = views_figure(shown.facts, [walk for walk in walks if walk is not None])
        if views is None:
            return SamplePictures((), walks, tuple(maps))
        write_figure(views, folder / f"{stem}.jpg")
    return SamplePictures((folder / f"{stem}.jpg",), walks, tuple(maps))

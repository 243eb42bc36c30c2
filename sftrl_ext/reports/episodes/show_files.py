"""The episode viewer's files: an episode as a picture, or several as one page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import write_text
from sftrl_ext.plain_text import safe_name
from sftrl_ext.reports.analysis.arms import Arms
from sftrl_ext.reports.episodes.walks import walk_of
from sftrl_ext.reports.figures.matplotlib_needed import needs_matplotlib
from sftrl_ext.runs.records import SampleEpisode

KINDS = (".png", ".svg", ".html")
"""Suffixes of the files that can be written."""


def check_out(out: Path) -> None:
    """Refuse a file of another kind.

    Raises:
        SftrlError: naming the kinds.
    """
    if not out.is_dir() and out.suffix and out.suffix.lower() not in KINDS:
        raise SftrlError(f"--out {out}: expected a folder, or a file ending in {', '.join(KINDS)}.")


def write_episodes(episodes: Sequence[SampleEpisode], out: Path, arms: Arms | None = None) -> list[Path]:
    """Draw episodes: a route on its map with its street views, a hand with its dialogue.

    Args:
        episodes: The episodes.
        out: A ``.html`` file for all of them on one page that needs nothing else; a ``.png`` or ``.svg`` file
            for one picture (``<name>-2``, ``<name>-3``, ... for the further ones); else a folder for one PNG
            file each. Folders are made.
        arms: How the arms are called.

    Returns:
        What was written.

    Raises:
        SftrlError: if ``out`` is another kind of file, or matplotlib is missing.
    """
    check_out(out)
    arms = arms or Arms()
    suffix = "" if out.is_dir() else out.suffix.lower()
    (out if not suffix else out.parent).mkdir(parents=True, exist_ok=True)
    if suffix == ".html":
        return [_page(arms, episodes, out)]
    paths = []
    for number, episode in enumerate(episodes, start=1):
        if suffix:
            paths.append(out if number == 1 else out.with_name(f"{out.stem}-{number}{out.suffix}"))
        else:
            name = f"{safe_name(episode.split)}-{safe_name(episode.arm)}-{episode.step}-{number}"
            paths.append(out / f"{name}.png")
        _picture(arms, episode, paths[-1])
    return paths


def _picture(arms: Arms, episode: SampleEpisode, path: Path) -> None:
    """Draw one episode into one file."""
    with needs_matplotlib("a picture of an episode"):
        from sftrl_ext.reports.episodes.dialogue_figure import dialogue_figure
        from sftrl_ext.reports.episodes.route_figure import route_figure
        from sftrl_ext.reports.figures.style import look, write_figure
    walk = walk_of(episode)
    with look():
        drawn = dialogue_figure(arms, episode) if walk is None else route_figure(arms, episode, walk)
        write_figure(drawn, path)


def _page(arms: Arms, episodes: Sequence[SampleEpisode], out: Path) -> Path:
    """All episodes on one page: a viewer with filters, routes on maps, hands as they were seen."""
    from sftrl_ext.reports.pages.render import episodes_page

    write_text(out, episodes_page("Episodes", arms, episodes))
    return out

"""The episode viewer of the terminal: stored episodes as dialogues, each response with its verdict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from sftrl_ext.errors import SftrlError, unknown_name
from sftrl_ext.plain_text import one_line, safe_name
from sftrl_ext.reports.analysis.arms import Arms, arms_of
from sftrl_ext.reports.episodes.dialogues import Line, fact_items
from sftrl_ext.reports.episodes.pictures import in_words, write_pictures
from sftrl_ext.reports.episodes.show_files import check_out, write_episodes
from sftrl_ext.reports.episodes.walks import (
    AHEAD,
    CUT,
    FAILED,
    FIRST,
    LATER,
    NOT_STORED,
    Walk,
    parts,
    walk_of,
)
from sftrl_ext.runs.episode_files import read_episode_file
from sftrl_ext.runs.records import SampleEpisode
from sftrl_ext.runs.run_folder import load_run

_ARM_STYLES = {"sft": "dark_orange3", "rl": "dodger_blue2", "init": "grey50", "base": "grey62"}
_STATE_STYLES = {FIRST: "green4", LATER: "dark_goldenrod", FAILED: "red3", CUT: "magenta", AHEAD: "grey62"}


def _keep(episodes: list[SampleEpisode], kind: str, wanted: str | None) -> list[SampleEpisode]:
    if wanted is None:
        return episodes
    kept = [episode for episode in episodes if getattr(episode, kind) == wanted]
    if not kept:
        raise unknown_name(kind, wanted, {getattr(episode, kind) for episode in episodes})
    return kept


def _print_episode(
    console: Console, arms: Arms, episode: SampleEpisode, pictures: Path | None, number: int
) -> None:
    colour = _ARM_STYLES.get(arms.kind(episode.arm), "green4")
    title = Text.assemble(
        (f" {arms.label(episode.arm)} ", f"bold white on {colour}"),
        f" {one_line(episode.split)} · step {episode.step} · seed {episode.seed} · ",
        ("solved", "bold green") if episode.solved else ("not solved", "bold red"),
    )
    console.print(Rule(title, align="left", style=colour))
    facts = " · ".join(f"{key}: {text}" for key, text in fact_items(episode.facts))
    if facts:
        console.print(Text(facts, style="dim"))
    walk = walk_of(episode)
    if walk is not None:
        console.print(_way(walk))
    if shown_text := in_words(episode.facts):
        console.print(Text(f"shown: {shown_text}", style="dim"))
        stem = f"{safe_name(episode.split)}-{safe_name(episode.arm)}-{episode.step}-{number}"
        points = [visit.number for visit in walk.reached] if walk else []
        for path in write_pictures(episode.facts, pictures, stem, None, points) if pictures else ():
            console.print(Text(f"picture: {path}", style="dim"))
    for part in parts(episode, walk):
        if part.visit is not None:
            console.print(Text(f"▸ {part.heading}", style=f"bold {_STATE_STYLES[part.visit.state]}"))
        for line in part.lines:
            _print_line(console, line, colour)
    console.print()


def _way(walk: Walk) -> Text:
    """The numbers of all points in the colours of what became of them, and how the episode ended."""
    text = Text("points: ", style="dim")
    for visit in walk.visits:
        text.append(f"{visit.number} ", style=_STATE_STYLES[visit.state])
    return text.append(f"· {walk.verdict}", style="bold green" if walk.solved else "bold red")


def _print_line(console: Console, line: Line, colour: str) -> None:
    body = Text(line.content.strip())
    if line.role != "assistant":
        message = Padding(Text.assemble((f"{line.role}  ", "bold dim"), body), (0, 8, 0, 0))
        console.print(message, soft_wrap=False)  # wrapped here, or the console would cut it
        return
    good = line.outcome == "correct"
    label = Text("model", style=f"bold {colour}")
    if line.outcome is not None:
        label.append(f"  {'✓' if good else '✗'} {line.outcome}", style="bold green" if good else "bold red")
    if line.reward is not None:
        label.append(f"  {line.reward:+g}", style="dim")
    if line.content == NOT_STORED:
        console.print(Padding(Text.assemble(label, (f"  {line.content}", "dim")), (0, 0, 0, 8)))
        return
    panel = Panel(body, title=label, title_align="left", border_style=colour)
    console.print(Padding(panel, (0, 0, 0, 8)), soft_wrap=False)


def kept_episodes(sources: Sequence[Path]) -> tuple[list[SampleEpisode], Arms]:
    """Episodes of a run folder, of files of single evaluations (``evals/*.jsonl``), or of both together.

    Raises:
        SftrlError: if there are none, a file is malformed, or two run folders are named.
    """
    folders = [source for source in sources if not source.is_file()]
    if len(folders) > 1:
        raise SftrlError(
            f"expected one run folder and files of episodes, found {', '.join(map(str, folders))}."
        )
    run = load_run(folders[0]) if folders else None
    episodes = list(run.episodes) if run else []
    stored = arms_of(run) if run else Arms()
    titles = dict(stored.titles)
    for source in sources:
        if source.is_file():
            played = read_episode_file(source)
            titles |= {episode.arm: episode.arm for episode in played}
            episodes += played
    if not episodes:
        file = folders[0] / "eval" / "episodes.jsonl" if folders else sources[0]
        raise SftrlError(f"{file}: no stored episodes; evaluate the run first.")
    return episodes, replace(stored, titles=titles)


def show_episodes(
    sources: Path | Sequence[Path],
    console: Console,
    *,
    arm: str | None = None,
    split: str | None = None,
    seed: int | None = None,
    step: int | None = None,
    solved: bool | None = None,
    limit: int | None = None,
    pictures: Path | None = None,
    out: Path | None = None,
) -> int:
    """Print stored episodes, a route point by point.

    Args:
        sources: Run folder, or several files of episodes; see `kept_episodes`.
        console: Where to print.
        arm: Only this arm ("init", "sft", "rl").
        split: Only this split.
        seed: Only this seed.
        step: Only this step; by default the last step of each arm, and in a page every step.
        solved: Only solved episodes (True) or unsolved ones (False).
        limit: How many at most; by default 5, and in a page all.
        pictures: Folder that the pictures of the episodes are written into, as the model saw them, if any.
        out: Where the episodes are drawn too, a file or a folder; see `write_episodes`.

    Returns:
        How many were printed.

    Raises:
        SftrlError: if the run has no episodes, or none of that arm, split, seed or step; or if ``out``
            is another kind of file, or matplotlib is missing that draws it.
    """
    if out is not None:
        check_out(out)
    paged = out is not None and out.suffix.lower() == ".html" and not out.is_dir()
    episodes, arms = kept_episodes([sources] if isinstance(sources, Path) else sources)
    episodes = _keep(_keep(episodes, "arm", arm), "split", split)
    if step is None and paged:
        kept = episodes
    elif step is None:
        last = {name: max(e.step for e in episodes if e.arm == name) for name in {e.arm for e in episodes}}
        kept = [e for e in episodes if e.step == last[e.arm]]
    else:
        kept = [e for e in episodes if e.step == step]
    kept = [e for e in kept if seed is None or e.seed == seed]
    kept = [e for e in kept if solved is None or e.solved is solved]
    if not kept:
        steps = ", ".join(str(s) for s in sorted({e.step for e in episodes}))
        seeds = ", ".join(str(s) for s in sorted({e.seed for e in episodes}))
        raise SftrlError(f"no stored episode fits; stored steps: {steps}; seeds: {seeds}.")
    printed = kept[: 5 if limit is None else limit]
    for number, episode in enumerate(printed, start=1):
        _print_episode(console, arms, episode, pictures, number)
    if out is not None:
        for path in write_episodes(kept if paged and limit is None else printed, out, arms):
            console.print(Text(f"written: {path}", style="bold"))
    if len(kept) > len(printed):
        console.print(Text(f"{len(kept) - len(printed)} more episodes fit.", style="dim"))
    return len(printed)

"""The episode viewer of the terminal: stored episodes as dialogues, each response with its verdict."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.text import Text

from sftrl_ext.errors import SftrlError, unknown_name
from sftrl_ext.reports.dialogues import dialogue, fact_items
from sftrl_ext.reports.pictures import in_words, write_pictures
from sftrl_ext.reports.runfiles import SampleEpisode, load_run
from sftrl_ext.reports.splits import arm_label

_ARM_STYLES = {"sft": "dark_orange3", "rl": "dodger_blue2", "init": "grey50", "base": "grey62"}


def _keep(episodes: list[SampleEpisode], kind: str, wanted: str | None) -> list[SampleEpisode]:
    if wanted is None:
        return episodes
    kept = [episode for episode in episodes if getattr(episode, kind) == wanted]
    if not kept:
        raise unknown_name(kind, wanted, {getattr(episode, kind) for episode in episodes})
    return kept


def _print_episode(console: Console, episode: SampleEpisode, pictures: Path | None, number: int) -> None:
    colour = _ARM_STYLES.get(episode.arm, "green4")
    title = Text.assemble(
        (f" {arm_label(episode.arm)} ", f"bold white on {colour}"),
        f" {episode.split} · step {episode.step} · seed {episode.seed} · ",
        ("solved", "bold green") if episode.solved else ("not solved", "bold red"),
    )
    console.print(Rule(title, align="left", style=colour))
    facts = " · ".join(f"{key}: {text}" for key, text in fact_items(episode.facts))
    if facts:
        console.print(Text(facts, style="dim"))
    if words := in_words(episode.facts):
        console.print(Text(f"shown: {words}", style="dim"))
        stem = f"{episode.split}-{episode.arm}-{episode.step}-{number}"
        for path in write_pictures(episode.facts, pictures, stem, side=None) if pictures else ():
            console.print(Text(f"picture: {path}", style="dim"))
    for line in dialogue(episode):
        body = Text(line.content.strip())
        if line.role != "assistant":
            console.print(Padding(Text.assemble((f"{line.role}  ", "bold dim"), body), (0, 8, 0, 0)))
            continue
        good = line.outcome == "correct"
        label = Text("model", style=f"bold {colour}")
        if line.outcome is not None:
            label.append(
                f"  {'✓' if good else '✗'} {line.outcome}", style="bold green" if good else "bold red"
            )
        if line.reward is not None:
            label.append(f"  {line.reward:+g}", style="dim")
        panel = Panel(body, title=label, title_align="left", border_style=colour)
        console.print(Padding(panel, (0, 0, 0, 8)))
    console.print()


def show_episodes(
    run_dir: Path,
    console: Console,
    *,
    arm: str | None = None,
    split: str | None = None,
    seed: int | None = None,
    step: int | None = None,
    solved: bool | None = None,
    limit: int = 5,
    pictures: Path | None = None,
) -> int:
    """Print stored episodes of a run.

    Args:
        run_dir: Run folder.
        console: Where to print.
        arm: Only this arm ("init", "sft", "rl").
        split: Only this split.
        seed: Only this seed.
        step: Only this step; by default the last step of each arm.
        solved: Only solved episodes (True) or unsolved ones (False).
        limit: How many at most.
        pictures: Folder that the pictures of the episodes are written into, as the model saw them, if any.

    Returns:
        How many were printed.

    Raises:
        SftrlError: if the run has no episodes, or none of that arm, split, seed or step.
    """
    episodes = load_run(run_dir).episodes
    if not episodes:
        raise SftrlError(
            f"{Path(run_dir) / 'eval' / 'episodes.jsonl'}: no stored episodes; evaluate the run first."
        )
    episodes = _keep(_keep(episodes, "arm", arm), "split", split)
    if step is None:
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
    for number, episode in enumerate(kept[:limit], start=1):
        _print_episode(console, episode, pictures, number)
    if len(kept) > limit:
        console.print(Text(f"{len(kept) - limit} more episodes fit.", style="dim"))
    return min(len(kept), limit)

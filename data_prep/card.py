"""The dataset card: what is in the files of a run, and which of them share number multisets, or routes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_prep.hand_draws import draw_lines, read_draws
from data_prep.schema import read_schema
from sftrl_ext.envs import parse_facts
from sftrl_ext.envs.general_points.cards import SUITS_OF, parse_cards
from sftrl_ext.envs.general_points.hands import HandSpec
from sftrl_ext.envs.general_points.rules import RULES
from sftrl_ext.envs.virl.track import read_track

Multiset = tuple[tuple[int, ...], int]
"""Sorted numbers, and the target."""

MOST_LEFT_OUT = 50
"""Sentences of the card about what is left out, at most."""

RouteKey = tuple[tuple[float, float], ...]
"""The start of a route and its milestones."""


@dataclass
class FileFacts:
    """What one file holds.

    Attributes:
        path: The file.
        rows: How many rows.
        answered: Rows with a dialogue (SFT rows).
        splits: Rows per split.
        seeds: Seeds of the rows.
        rules: Rows per card rule.
        templates: Prompt templates of the rows.
        shown: Rows per way of showing cards: the modality, with the look of images.
        suits: Suit letters of the cards.
        hands: Different rows of ranks under a rule.
        draws: Split to how its hands were drawn, where the file says it.
        multisets: Different number multisets.
        actions: Rows per action space, for rows of routes.
        routes: Different routes, by their points.
        rails: Different rails.
    """

    path: Path
    rows: int = 0
    answered: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    seeds: set[int] = field(default_factory=set)
    rules: Counter[str] = field(default_factory=Counter)
    templates: set[str] = field(default_factory=set)
    shown: Counter[str] = field(default_factory=Counter)
    suits: set[str] = field(default_factory=set)
    hands: set[tuple[str, tuple[str, ...]]] = field(default_factory=set)
    draws: Mapping[str, HandSpec] = field(default_factory=dict)
    multisets: set[Multiset] = field(default_factory=set)
    actions: Counter[str] = field(default_factory=Counter)
    routes: set[RouteKey] = field(default_factory=set)
    rails: set[tuple[RouteKey, int]] = field(default_factory=set)


def inspect_file(path: str | Path) -> FileFacts:
    """Read what a file holds from the facts of its rows, in constant memory.

    Raises:
        SftrlError: if the file does not have our schema.
    """
    path = Path(path)
    read_schema(path)
    found = FileFacts(path)
    with pq.ParquetFile(path) as file:
        found.draws = read_draws(file.schema_arrow, path)
        for batch in file.iter_batches(columns=["extra_info", "train_turns"]):
            for extra, turns in zip(
                batch["extra_info"].to_pylist(), batch["train_turns"].to_pylist(), strict=True
            ):
                found.rows += 1
                found.answered += bool(turns)
                found.splits[extra["split"]] += 1
                found.seeds.add(extra["seed"])
                facts = parse_facts(extra["facts"], f"{path}: row {found.rows - 1}: facts")
                if not facts:
                    continue
                if facts.get("task") == "virl":
                    _add_walk(found, facts)
                    continue
                rule = facts["rule"]
                cards = parse_cards(facts["cards"])
                ranks = tuple(card.rank for card in cards)
                found.suits.update([card.suit for card in cards])
                found.shown[_shown(facts)] += 1
                found.rules[rule] += 1
                found.templates.add(facts["template"])
                if (rule, ranks) not in found.hands:
                    found.hands.add((rule, ranks))
                numbers = tuple(sorted(RULES[rule].number(rank) for rank in ranks))
                found.multisets.add((numbers, facts["target"]))
    return found


def _add_walk(found: FileFacts, facts: Mapping[str, Any]) -> None:
    """Count a row of a route."""
    track = read_track(facts["route"])
    key = (track.start.geocode, *(leg.end.geocode for leg in track.legs))
    found.actions[facts["action_space"]] += 1
    found.templates.add(facts["template"])
    size = facts.get("image_size")
    found.shown[f"{facts['modality']} {size}x{size}" if size else str(facts["modality"])] += 1
    found.routes.add(key)
    found.rails.add((key, facts["rail_seed"]))


def card_text(files: Sequence[FileFacts], left_out: Sequence[str] = ()) -> str:
    """The card as Markdown, with the files named by their stems.

    Args:
        files: What the files hold.
        left_out: One sentence for each thing that the files leave out of their sources.
    """
    walks = [facts for facts in files if facts.actions]
    hands = [facts for facts in files if not facts.actions]
    lines = [*(_hand_lines(hands) if hands or not walks else ()), *_walk_lines(walks, hands)]
    if left_out:
        rest = len(left_out) - MOST_LEFT_OUT
        lines += ["", "## Left out", "", *(f"- {sentence}" for sentence in left_out[:MOST_LEFT_OUT])]
        lines += [f"- and {rest} more; the log of the stage `data` has them all."] if rest > 0 else []
    return "\n".join(lines) + "\n"


def _walk_lines(files: Sequence[FileFacts], others: Sequence[FileFacts]) -> list[str]:
    """The card of files of routes, after that of other files if there are any."""
    if not files:
        return []
    lines = [] if not others else [""]
    lines += [
        *(["# Dataset card", ""] if not others else []),
        "Made by `data_prep`. A *route* is told by its start and milestones; a *rail* is a route with the",
        "points of one walk. The splits `..._unseen` hold only routes that no training split holds.",
        "",
        "| file | rows | kind | splits | actions | seeds | template | observed as | rails | routes |",
        "|---|---:|---|---|---|---|---|---|---:|---:|",
    ]
    for facts in files:
        lines.append(_line(facts, facts.actions, f"{len(facts.rails):,}", f"{len(facts.routes):,}"))
    return [*lines, *_overlap(files, "Routes", [facts.routes for facts in files])]


def _line(facts: FileFacts, rules: Counter[str], *further: str) -> str:
    """A file's line in its table: what every file has, with its rules, and the task's further columns."""
    columns = [
        facts.path.stem,
        f"{facts.rows:,}",
        "RL / evaluation" if not facts.answered else "SFT",
        _counts(facts.splits),
        _counts(rules),
        ", ".join(map(str, sorted(facts.seeds))),
        ", ".join(sorted(facts.templates)),
        _counts(facts.shown),
        *further,
    ]
    return f"| {' | '.join(columns)} |"


def _overlap(files: Sequence[FileFacts], what: str, sets: Sequence[Set[Any]]) -> list[str]:
    """The table of what two files share."""
    lines = ["", "## Overlap", "", f"{what} that two files share.", ""]
    lines += [f"| | {' | '.join(facts.path.stem for facts in files)} |", f"|---|{'---:|' * len(files)}"]
    for facts, own in zip(files, sets, strict=True):
        lines.append(f"| {facts.path.stem} | {' | '.join(str(len(own & other)) for other in sets)} |")
    return lines


def _hand_lines(files: Sequence[FileFacts]) -> list[str]:
    lines = [
        "# Dataset card",
        "",
        "Made by `data_prep`. A *number multiset* is a hand's numbers under its rule, sorted, with the",
        "target; the splits `..._unseen` hold only multisets that no training split holds.",
        "",
        "| file | rows | kind | splits | rules | seeds | template | cards as | suits | hands "
        "| number multisets |",
        "|---|---:|---|---|---|---|---|---|---|---:|---:|",
    ]
    for facts in files:
        numbers = f"{len(facts.hands):,}", f"{len(facts.multisets):,}"
        lines.append(_line(facts, facts.rules, _suits(facts.suits), *numbers))
    lines += draw_lines(_draws_of(files))
    return [*lines, *_overlap(files, "Number multisets", [facts.multisets for facts in files])]


def _draws_of(files: Sequence[FileFacts]) -> dict[str, list[HandSpec]]:
    """Split to the different ways in which its hands were drawn; suits make no difference but for a deck."""
    found: dict[str, list[HandSpec]] = {}
    for facts in files:
        for split, spec in facts.draws.items():
            plain = spec if spec.draw == "deck" else replace(spec, suits="mixed")
            specs = found.setdefault(split, [])
            if plain not in specs:
                specs.append(plain)
    return found


def write_card(
    files: Sequence[str | Path], path: str | Path, left_out: Sequence[str] = (), origins: str = ""
) -> str:
    """Write the card of some parquet files, and give its text.

    Args:
        files: The parquet files.
        path: Where to, usually ``dataset_card.md`` beside the files.
        left_out: One sentence for each thing that the files leave out of their sources.
        origins: A section on the files that rows were read from; see `data_prep.origins`.
    """
    text = card_text([inspect_file(file) for file in files], left_out)
    text += f"\n{origins}" if origins else ""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, target)
    return text


def _counts(counter: Counter[str]) -> str:
    if len(counter) == 1:
        return next(iter(counter))
    return ", ".join(f"{name} {count:,}" for name, count in counter.items())


def _shown(facts: Mapping[str, Any]) -> str:
    """How a row shows its cards, in words."""
    look = facts.get("look")
    if not look:
        return str(facts.get("modality", "text"))
    rest = [f"{name} {value}" for name, value in look.items() if name not in ("width", "height")]
    return f"image {look.get('width')}x{look.get('height')} ({', '.join(rest)})"


def _suits(letters: set[str]) -> str:
    """The narrowest colour that has all these suits."""
    known = letters - {""}
    fitting = [name for name, suits in SUITS_OF.items() if known <= set(suits)]
    return min(fitting, key=lambda name: len(SUITS_OF[name])) if known else "none"

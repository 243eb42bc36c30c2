"""The dataset card's table of hands: their rules, suits, draws and number multisets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_prep.hand_draws import draw_lines, read_draws
from data_prep.task_card import TaskCard
from sftrl_ext.envs.general_points.cards import SUITS_OF, parse_cards
from sftrl_ext.envs.general_points.families import LARGEST_CARD
from sftrl_ext.envs.general_points.hands import HandSpec
from sftrl_ext.envs.general_points.rules import DRAWN, RULES, holds_face

Multiset = tuple[tuple[int, ...], int]
"""Sorted numbers, and the target."""


class HandCard(TaskCard):
    """The hands of one file.

    Attributes:
        suits: Suit letters of the cards.
        hands: Different rows of ranks under a rule.
        file: Name of the file.
        draws: Split to how its hands were drawn, where the file says it.
        multisets: Different number multisets.
        rows: Number of rows.
        drawn: Different drawn rules.
        with_face: Rows whose hand holds a J, Q or K.
        with_large: Rows whose hand has a number above 10.
        targets: Numbers to reach.
    """

    intro = (
        "Made by `data_prep`. A *number multiset* is a hand's numbers under its rule, sorted, with the",
        "target; the splits `..._unseen` hold only multisets that no training split holds.",
    )
    heads = ("rules", "cards as")
    columns = ("suits", "hands:", "number multisets:")
    shared = "Number multisets"

    def __init__(self) -> None:
        super().__init__()
        self.suits: set[str] = set()
        self.hands: set[tuple[str, tuple[str, ...]]] = set()
        self.draws: Mapping[str, HandSpec] = {}
        self.multisets: set[Multiset] = set()
        self.file = ""
        self.rows = self.with_face = self.with_large = 0
        self.drawn: set[str] = set()
        self.targets: set[int] = set()

    def read_schema(self, schema: pa.Schema, path: Path) -> None:
        """Read the draws of the splits from the metadata."""
        self.file = path.stem
        self.draws = read_draws(schema, path)

    def add(self, facts: Mapping[str, Any]) -> None:
        """See `TaskCard`."""
        rule = facts["rule"]
        cards = parse_cards(facts["cards"])
        ranks = tuple(card.rank for card in cards)
        self.suits.update(card.suit for card in cards)
        self.shown[_shown(facts)] += 1
        drawn = rule.startswith(DRAWN)
        self.rules["drawn rules" if drawn else rule] += 1
        self.drawn.update({rule} if drawn else ())
        self.hands.add((rule, ranks))
        numbers = tuple(sorted(RULES[rule].number(rank) for rank in ranks))
        self.multisets.add((numbers, facts["target"]))
        self.rows += 1
        self.with_face += holds_face(cards)
        self.with_large += numbers[-1] > LARGEST_CARD
        self.targets.add(facts["target"])

    def cells(self) -> Sequence[str]:
        """See `TaskCard`."""
        return _suits(self.suits), f"{len(self.hands):,}", f"{len(self.multisets):,}"

    def instances(self) -> Set[Any]:
        """See `TaskCard`."""
        return self.multisets

    @classmethod
    def further_lines(cls, cards: Sequence[HandCard]) -> list[str]:
        """The draws of all files; suits make no difference but for a deck."""
        draws: dict[str, list[HandSpec]] = {}
        for card in cards:
            for split, spec in card.draws.items():
                plain = spec if spec.draw == "deck" else replace(spec, suits="mixed")
                specs = draws.setdefault(split, [])
                if plain not in specs:
                    specs.append(plain)
        return [*draw_lines(draws), *(_drawn_lines(cards) if any(card.drawn for card in cards) else ())]


def _drawn_lines(cards: Sequence[HandCard]) -> list[str]:
    """Shares of hands in files with drawn rules and in those they are compared with."""
    return [
        "",
        "## Drawn rules",
        "",
        "Shares of the rows of each file; drawn rules are counted once.",
        "",
        "| file | drawn rules | with a J, Q or K | with a number above 10 | targets |",
        "|---|---:|---:|---:|---|",
        *(
            f"| {card.file} | {len(card.drawn):,} | {card.with_face / card.rows:.1%} "
            f"| {card.with_large / card.rows:.1%} | {_span(card.targets)} |"
            for card in cards
            if card.rows
        ),
    ]


def _span(numbers: set[int]) -> str:
    return f"{min(numbers)} to {max(numbers)}" if len(numbers) > 1 else str(min(numbers))


def _shown(facts: Mapping[str, Any]) -> str:
    """Presentation of a row's cards: modality, or size and style of the picture."""
    look = facts.get("look")
    if not look:
        return str(facts.get("modality", "text"))
    rest = [f"{name} {value}" for name, value in look.items() if name not in ("width", "height")]
    return f"image {look.get('width')}x{look.get('height')} ({', '.join(rest)})"


def _suits(letters: set[str]) -> str:
    """The narrowest colour that has all these suits."""
    letters_given = letters - {""}
    fitting = [name for name, suits in SUITS_OF.items() if letters_given <= set(suits)]
    return min(fitting, key=lambda name: len(SUITS_OF[name])) if letters_given else "none"

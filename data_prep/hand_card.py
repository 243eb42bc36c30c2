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
from sftrl_ext.envs.general_points.hands import HandSpec
from sftrl_ext.envs.general_points.rules import RULES

Multiset = tuple[tuple[int, ...], int]
"""Sorted numbers, and the target."""


class HandCard(TaskCard):
    """The hands of one file.

    Attributes:
        suits: Suit letters of the cards.
        hands: Different rows of ranks under a rule.
        draws: Split to how its hands were drawn, where the file says it.
        multisets: Different number multisets.
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

    def read_schema(self, schema: pa.Schema, path: Path) -> None:
        """Read the draws of the splits from the metadata."""
        self.draws = read_draws(schema, path)

    def add(self, facts: Mapping[str, Any]) -> None:
        """See `TaskCard`."""
        rule = facts["rule"]
        cards = parse_cards(facts["cards"])
        ranks = tuple(card.rank for card in cards)
        self.suits.update(card.suit for card in cards)
        self.shown[_shown(facts)] += 1
        self.rules[rule] += 1
        self.hands.add((rule, ranks))
        numbers = tuple(sorted(RULES[rule].number(rank) for rank in ranks))
        self.multisets.add((numbers, facts["target"]))

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
        return draw_lines(draws)


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

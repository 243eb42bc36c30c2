"""Playing cards: thirteen ranks, four suits, and the text forms a card is written in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from sftrl_ext.errors import SftrlError, unknown_name

RANKS: tuple[str, ...] = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K")
"""The ranks of an ordinary deck, in order."""

LARGE_RANKS: tuple[str, ...] = ("14", "15", "16", "17", "18", "19")
"""Number cards that only the decks of some rules hold."""

FACES: frozenset[str] = frozenset({"J", "Q", "K"})
"""The ranks whose number depends on the rule."""

SUITS: dict[str, str] = {"S": "♠", "H": "♥", "D": "♦", "C": "♣"}
"""Suit letter to suit symbol."""

Suits = Literal["mixed", "black", "red"]
"""Which suits a hand may hold."""

SUITS_OF: dict[str, tuple[str, ...]] = {
    "mixed": ("S", "H", "C", "D"),
    "black": ("S", "C"),
    "red": ("H", "D"),
}
"""Suit colour to the suit letters of that colour."""

_LETTERS = {symbol: letter for letter, symbol in SUITS.items()}
_ALL_RANKS = frozenset(RANKS + LARGE_RANKS)


@dataclass(frozen=True)
class Card:
    """One card.

    Attributes:
        rank: One of `RANKS` or `LARGE_RANKS`.
        suit: A suit letter of `SUITS`, or "" when nobody said which.
    """

    rank: str
    suit: str = ""

    def __str__(self) -> str:
        """Rank and suit letter, as rows store it: ``KS``, ``10H``, or ``K`` without a suit."""
        return self.rank + self.suit

    @property
    def symbol(self) -> str:
        """Rank and suit symbol, for people: ``K♠``."""
        return self.rank + SUITS.get(self.suit, "")


def parse_card(text: object) -> Card:
    """Read one card: a rank, alone or followed by a suit letter or symbol (``K``, ``10h``, ``K♠``, ``7``).

    Raises:
        SftrlError: if the text is no card.
    """
    word = str(text).strip().upper()
    suit = _LETTERS.get(word[-1:], word[-1:] if word[-1:] in SUITS else "")
    rank = word[: len(word) - 1] if suit else word
    if rank not in _ALL_RANKS:
        raise SftrlError(
            f"{text!r} is not a card: expected a rank ({', '.join(RANKS + LARGE_RANKS)}), "
            "alone or followed by a suit (S H D C or ♠ ♥ ♦ ♣)."
        )
    return Card(rank, suit)


def parse_cards(cards: Iterable[object]) -> tuple[Card, ...]:
    """Read a hand of cards; see `parse_card`.

    Raises:
        SftrlError: if ``cards`` is one text instead of a list, is empty, or an item is no card.
    """
    if isinstance(cards, (str, bytes)) or not isinstance(cards, Iterable):
        raise SftrlError(f"cards must be a list such as ['K', '5', '2', '4'], found {cards!r}.")
    hand = tuple(card if isinstance(card, Card) else parse_card(card) for card in cards)
    if not hand:
        raise SftrlError("cards is empty: expected a list such as ['K', '5', '2', '4'].")
    return hand


def suits_of(name: str) -> tuple[str, ...]:
    """Suit letters of a colour name.

    Raises:
        SftrlError: if the name is not "mixed", "black" or "red".
    """
    try:
        return SUITS_OF[name]
    except (KeyError, TypeError):
        raise unknown_name("suits", name, SUITS_OF) from None

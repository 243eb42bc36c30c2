"""Seeded responses to GeneralPoints hands: right, wrong, and damaged in every way."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.oracle.general_points import RANKS

_COUNTS = {"A": 1, "J": 10, "Q": 10, "K": 10}
_SOLVED = (
    (("3", "3", "8", "8"), "8/(3-8/3)"),
    (("A", "5", "5", "5"), "5*(5-1/5)"),
    (("4", "4", "J", "Q"), "(10*10-4)/4"),
    (("6", "6", "6", "6"), "6+6+6+6"),
    (("2", "3", "4", "A"), "1*2*3*4"),
    (("K", "2", "2", "5"), "(5-2)*10-2*3"),
    (("8", "3", "A", "9"), "(9-8)*3*8"),
)
_PIECES = (
    *"0123456789+-*/()= .,'\"{}[]\\\n\t\u00d7\u2212\uff11\u0664x",
    "**",
    "//",
    "24",
    "=24",
    "\\n",
    "\\u002b",
)
_WRAPPERS = (
    "{}",
    "```json\n{}\n```",
    "Let me think. {}",
    "{}\nThat is 24.",
    'At first {{"formula": "1+1"}}, then {}',
    "[{}]",
    '{{"answer": {}}}',
    "  {}  ",
)


@dataclass(frozen=True)
class Response:
    """A hand and what was answered.

    Attributes:
        cards: Ranks.
        numbers: Their numbers where face cards count 10.
        text: The response.
        image: True if the cards were shown as an image.
    """

    cards: Sequence[str]
    numbers: Sequence[int]
    text: str
    image: bool


def responses(count: int, seed: int = 0) -> Iterator[Response]:
    """So many responses; the same for the same seed."""
    source = random.Random(seed)
    for _ in range(count):
        cards: Sequence[str]
        if source.random() < 0.5:
            cards, formula = source.choice(_SOLVED)
        else:
            cards = source.choices(RANKS, k=4)
            formula = _formula(source, [_count(card) for card in source.sample(list(cards), 4)])
        answer = {
            "cards": source.sample(list(cards), 4) if source.random() < 0.8 else source.choices(RANKS, k=4),
            "number": [_count(card) for card in cards],
            "formula": _damaged(source, formula, 0.4) + source.choice(("", "=24", "=24", "=25")),
        }
        text = json.dumps(answer, indent=source.choice((None, 1)))
        text = _damaged(source, source.choice(_WRAPPERS).format(text) if source.random() < 0.4 else text, 0.3)
        yield Response(cards, [_count(card) for card in cards], text, source.random() < 0.5)


def _count(card: str) -> int:
    return _COUNTS.get(card) or int(card)


def _formula(source: random.Random, numbers: list[int]) -> str:
    """A random expression of all numbers."""
    if len(numbers) == 1:
        return str(numbers[0])
    cut = source.randrange(1, len(numbers))
    text = f"{_formula(source, numbers[:cut])}{source.choice('+-*/')}{_formula(source, numbers[cut:])}"
    return f"({text})" if source.random() < 0.5 else text


def _damaged(source: random.Random, text: str, share: float) -> str:
    """The text, or with a probability of ``share`` one with one to four small changes."""
    if source.random() >= share:
        return text
    for _ in range(source.randrange(1, 5)):
        start = source.randrange(len(text) + 1)
        end = min(len(text), start + source.choice((0, 0, 1, 1, 3)))
        text = text[:start] + source.choice(("", *[source.choice(_PIECES)] * 3)) + text[end:]
    return text

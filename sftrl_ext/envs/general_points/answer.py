"""Find the answer {cards, number, formula} in whatever a model wrote; see `sftrl_ext.envs.answer` for how.

The answer is an object with these three keys, and its main field is the formula.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sftrl_ext.envs.answer import AFTER_KEY, BLANKS_AND_QUOTES, ITEM_LENGTH, MAX_ITEMS, MAX_LENGTH, AnswerForm
from sftrl_ext.envs.general_points.cards import LARGE_RANKS, RANKS

__all__ = ["MAX_LENGTH", "QUOTED", "Answer", "extract_answer", "normalize_rank"]

QUOTED = 200
"""Most characters of a formula that are repeated in details."""

_KEY = re.compile(rf"\b([CcNnFf](?:ards?|umbers?|ormula|ARDS?|UMBERS?|ORMULA)){AFTER_KEY}")
_FIELDS = {"cards": "cards", "card": "cards", "number": "number", "numbers": "number", "formula": "formula"}
_WHOLE = re.compile(r"[+-]?[0-9]{1,9}(?:\.0{0,9})?")
_STRAY = BLANKS_AND_QUOTES + "[](){}"

_SUIT_SIGNS = dict.fromkeys(map(ord, "♠♥♦♣♤♡♢♧\ufe0e\ufe0f"), " ")
_SUIT_NAMES = ("SPADE", "HEART", "DIAMOND", "CLUB")
_SUIT_WORDS = frozenset(("OF", *"SHDC", *_SUIT_NAMES, *(f"{name}S" for name in _SUIT_NAMES)))
_RANKS = {rank: rank for rank in RANKS + LARGE_RANKS}
_RANK_NAMES = _RANKS | {"ACE": "A", "1": "A", "T": "10", "TEN": "10", "JACK": "J", "QUEEN": "Q", "KING": "K"}


@dataclass(frozen=True)
class Answer:
    """Claims of a response; a field is None if it is missing or cannot be read.

    Attributes:
        cards: Ranks as `normalize_rank` writes them; an item that is no card stays as it was written.
        number: The numbers of the cards.
        formula: The formula's text as it was written, not checked.
    """

    cards: list[str] | None = None
    number: list[int] | None = None
    formula: str | None = None

    def claims(self, cards: Sequence[str], numbers: Sequence[int]) -> dict[str, object]:
        """Claims about a hand and their correctness: the details of a verdict.

        Args:
            cards: The cards dealt.
            numbers: What they count.
        """
        return {
            "cards": self.cards,
            "number": self.number,
            "formula": self.formula and self.formula[:QUOTED],
            "recognized": self.cards is not None and sorted(self.cards) == sorted(map(normalize_rank, cards)),
            "number_right": self.number is not None and sorted(self.number) == sorted(numbers),
        }


def extract_answer(text: str) -> Answer:
    """Find the answer in a response; never raises, in time linear in the part that is read."""
    return Answer(**_FORM.extract(text))


def normalize_rank(card: object) -> str:
    """The rank of a card however it is written: ``K``, ``"king"``, ``K♠``, ``10h``, ``SK``, ``K of spades``.

    An ace may be written ``1`` and a ten ``T``. 11, 12 and 13 are what a rule makes of a face card, not what
    stands on it, and so are no cards.

    Returns:
        One of the deck's ranks, or the text as it was written (shortened) if it is no card; "" for what is
        neither text nor number.
    """
    written = str(card)[:ITEM_LENGTH].strip(_STRAY) if isinstance(card, (str, int, float)) else ""
    rank = _RANKS.get(written)
    if rank:
        return rank
    parts = [word for word in written.upper().translate(_SUIT_SIGNS).split() if word not in _SUIT_WORDS]
    word = parts[0] if len(parts) == 1 else ""
    # Alone, with the suit's letter behind it (10H), and with the letter before it (SK).
    for rank in (word, word[:-1] if word[-1:] in "SHDC" else "", word[1:] if word[:1] in "SHDC" else ""):
        if rank in _RANK_NAMES:
            return _RANK_NAMES[rank]
    return written


def _formula(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return None


def _items(value: object) -> list[object] | None:
    """The items of a list, or of a text that lists them."""
    if isinstance(value, str):
        parts = (part.strip(_STRAY) for part in value.strip(_STRAY).split(",", MAX_ITEMS))
        return [part for part in parts if part]
    if isinstance(value, Sequence):
        return list(value[:MAX_ITEMS])
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return [value]
    return None


def _cards(value: object) -> list[str] | None:
    items = _items(value)
    return None if items is None else [normalize_rank(item) for item in items]


def _number(value: object) -> list[int] | None:
    numbers: list[int] = []
    for item in _items(value) or ():
        if isinstance(item, int) and not isinstance(item, bool):
            numbers.append(item)
            continue
        written = str(item)[:ITEM_LENGTH].strip() if isinstance(item, (str, float)) else ""
        if not _WHOLE.fullmatch(written):
            return None
        numbers.append(int(written.partition(".")[0]))
    return numbers or None


_FORM = AnswerForm(
    _KEY, _FIELDS, main="formula", convert={"cards": _cards, "number": _number, "formula": _formula}
)

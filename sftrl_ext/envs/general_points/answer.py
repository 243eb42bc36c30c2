"""Find the answer {cards, number, formula} in whatever a model wrote.

The answer is an object with these three keys. It may be JSON, a Python literal, or loosely quoted
(``{cards: [K, 5], formula: (1+2)*8}``), in a code fence, with text around it, or cut off at the end.

Which one counts, if a response holds several: the last complete object that has a formula (a model that
corrects itself states its final answer last); if none is complete, the last one that was cut off. A key
counts when it is quoted or stands inside braces, so that prose such as "my formula: ..." is no answer.

Only JSON's own decoder and regular expressions without nested repetition touch the text; nothing is executed.
Of a text longer than `MAX_LENGTH` the end is read, then, if that holds no formula, the beginning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sftrl_ext.envs.general_points.cards import LARGE_RANKS, RANKS

MAX_LENGTH = 50_000
"""How many characters are read at each end of a response."""

QUOTED = 200
"""How much of a formula is repeated in details."""

_MAX_CANDIDATES = 16
_MAX_ITEMS = 32
_ITEM_LENGTH = 40

_KEY = re.compile(
    r"""\b([CcNnFf](?:ards?|umbers?|ormula|ARDS?|UMBERS?|ORMULA))["'`“”‘’]?[ \t\r\n]*[:=][ \t\r\n]*"""
)
_FIELDS = {"card": "cards", "cards": "cards", "number": "number", "numbers": "number", "formula": "formula"}
_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’"}
_STRINGS = {start: re.compile(rf"((?:[^{end}\\\n]|\\.)*){end}") for start, end in _QUOTES.items()}
_BARE = re.compile(r"[^,}\n]*")
_LIST = re.compile(r"[^\])}]*")
_UNBRACKETED = re.compile(r"[^}\n]*")
_QUOTED_KEY = frozenset("\"'`“”‘’")
_ABSENT = frozenset({"", "null", "none"})
_ESCAPE = re.compile(r"\\(.)")
_WHOLE = re.compile(r"[+-]?[0-9]{1,9}(?:\.0{0,9})?")
_BLANKS_AND_QUOTES = " \t\r\n\"'`“”‘’"
_STRAY = _BLANKS_AND_QUOTES + "[](){}"

Key = tuple[re.Match[str], "str | None"]
"""A key and its colon in the text, and the field that it names."""

_SUIT_SIGNS = dict.fromkeys(map(ord, "♠♥♦♣♤♡♢♧\ufe0e\ufe0f"), " ")
_SUIT_NAMES = ("SPADE", "HEART", "DIAMOND", "CLUB")
_SUIT_WORDS = frozenset(("OF", *"SHDC", *_SUIT_NAMES, *(f"{name}S" for name in _SUIT_NAMES)))
_RANKS = {rank: rank for rank in RANKS + LARGE_RANKS}
_RANK_NAMES = _RANKS | {"ACE": "A", "1": "A", "T": "10", "TEN": "10", "JACK": "J", "QUEEN": "Q", "KING": "K"}


@dataclass(frozen=True)
class Answer:
    """What a response claims; each field is None if it is not there or cannot be read.

    Attributes:
        cards: Ranks as `normalize_rank` writes them; an item that is no card stays as it was written.
        number: The numbers of the cards.
        formula: The formula's text as it was written, not checked.
    """

    cards: list[str] | None = None
    number: list[int] | None = None
    formula: str | None = None

    def claims(self, cards: Sequence[str], numbers: Sequence[int]) -> dict[str, object]:
        """What the answer says about a hand, and whether that is right: the details of a verdict.

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
    if len(text) > MAX_LENGTH:
        found = _search(text[-MAX_LENGTH:])
        return found if found.formula is not None else _search(text[:MAX_LENGTH])
    answer, end = _object_at(text, len(text) - len(text.lstrip()))
    if answer.formula is not None and not text[end:].strip():
        return answer
    return _search(text)


def normalize_rank(card: object) -> str:
    """The rank of a card however it is written: ``K``, ``"king"``, ``K♠``, ``10h``, ``SK``, ``K of spades``.

    An ace may be written ``1`` and a ten ``T``. 11, 12 and 13 are what a rule makes of a face card, not what
    stands on it, and so are no cards.

    Returns:
        One of the deck's ranks, or the text as it was written (shortened) if it is no card; "" for what is
        neither text nor number.
    """
    written = str(card)[:_ITEM_LENGTH].strip(_STRAY) if isinstance(card, (str, int, float)) else ""
    known = _RANKS.get(written)
    if known:
        return known
    words = [word for word in written.upper().translate(_SUIT_SIGNS).split() if word not in _SUIT_WORDS]
    word = words[0] if len(words) == 1 else ""
    for rank in (word, word[:-1] if word[-1:] in "SHDC" else "", word[1:] if word[:1] in "SHDC" else ""):
        if rank in _RANK_NAMES:
            return _RANK_NAMES[rank]
    return written


def _bounded_int(digits: str) -> int:
    if len(digits) > 600:
        raise ValueError("a number of this length is no part of an answer")
    return int(digits)


_DECODER = json.JSONDecoder(parse_int=_bounded_int, strict=False)


def _object_at(text: str, start: int) -> tuple[Answer, int]:
    """The answer in the JSON object that begins at ``start``, and where the object ends."""
    if not text.startswith("{", start):
        return Answer(), start
    try:
        found, end = _DECODER.raw_decode(text, start)
    except (ValueError, RecursionError):
        return Answer(), start
    fields = {key.strip().lower(): value for key, value in found.items()}
    cards = fields.get("cards", fields.get("card"))
    number = fields.get("number", fields.get("numbers"))
    return Answer(_cards(cards), _number(number), _formula(fields.get("formula"))), end


def _formula(value: object) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    return None


def _items(value: object) -> list[object] | None:
    """The items of a list, or of a text that lists them."""
    if isinstance(value, str):
        parts = (part.strip(_STRAY) for part in value.strip(_STRAY).split(",", _MAX_ITEMS))
        return [part for part in parts if part]
    if isinstance(value, Sequence):
        return list(value[:_MAX_ITEMS])
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
        written = str(item)[:_ITEM_LENGTH].strip() if isinstance(item, (str, float)) else ""
        if not _WHOLE.fullmatch(written):
            return None
        numbers.append(int(written.partition(".")[0]))
    return numbers or None


def _search(text: str) -> Answer:
    """The last complete answer in a text that is not one JSON object from end to end."""
    keys = [(key, _FIELDS.get(key[1].lower())) for key in _KEY.finditer(text)]
    cut_off: Answer | None = None
    tried = -1
    candidates = [key for key, field in keys if field == "formula"][-_MAX_CANDIDATES:]
    for key in reversed(candidates):
        opened = text.rfind("{", 0, key.start())
        inside = opened > text.rfind("}", 0, key.start())
        if inside and opened != tried:
            tried = opened
            answer, _ = _object_at(text, opened)
            if answer.formula is not None:
                return answer
        if not inside and text[key.start() - 1 : key.start()] not in _QUOTED_KEY:
            continue
        value, end, complete = _string_at(text, key.end())
        if value.lower() in _ABSENT:
            continue
        if complete or cut_off is None:
            closed = text.find("}", end)
            answer = _loose(text, keys, max(opened, 0), closed if closed >= 0 else len(text), value)
            if complete:
                return answer
            cut_off = answer
    return cut_off or _loose(text, keys, 0, len(text), None)


def _loose(text: str, keys: Sequence[Key], start: int, end: int, formula: str | None) -> Answer:
    """An answer whose lists are the last ones written between two places."""
    cards = number = None
    stop = len(text)
    for key, field in reversed(keys):
        if start <= key.start() < end:
            if field == "cards" and cards is None:
                cards = _cards(_list_at(text, key.end(), stop))
            elif field == "number" and number is None:
                number = _number(_list_at(text, key.end(), stop))
        stop = key.start()
    return Answer(cards, number, formula)


def _string_at(text: str, start: int) -> tuple[str, int, bool]:
    """A value that is one text: the text, where it ends, and whether its end is there."""
    pattern = _STRINGS.get(text[start : start + 1])
    if pattern is not None:
        match = pattern.match(text, start + 1)
        if match is not None:
            return _ESCAPE.sub(r"\1", match[1]), match.end(), True
        start += 1
    bare = _BARE.match(text, start)
    end = bare.end() if bare is not None else start
    return text[start:end].strip(_BLANKS_AND_QUOTES), end, pattern is None and end < len(text)


def _list_at(text: str, start: int, stop: int) -> str:
    """The inside of a list, bracketed or not; long lists are cut."""
    stop = min(stop, start + _MAX_ITEMS * _ITEM_LENGTH)
    pattern = _LIST if text[start : start + 1] in tuple("[({") else _UNBRACKETED
    match = pattern.match(text, start + (pattern is _LIST), stop)
    return match[0] if match is not None else ""

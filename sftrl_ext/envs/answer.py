"""Find an answer, an object with a few keys, in whatever a model wrote; what all tasks share.

The answer may be JSON, a Python literal, or loosely quoted (``{cards: [K, 5], formula: (1+2)*8}``), in a code
fence, with text around it, or cut off at the end.

Which one counts, if a response holds several: the last complete object that has the main field (a model that
corrects itself states its final answer last); if none is complete, the last one that was cut off. A key
counts when it is quoted or stands inside braces, so that prose such as "my formula: ..." is no answer.

Only JSON's own decoder and regular expressions without nested repetition touch the text; nothing is executed.
Of a text longer than `MAX_LENGTH` the end is read, then, if that lacks the main field, the beginning.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_LENGTH = 50_000
"""Characters that are read at each end of a response."""

MAX_ITEMS = 32
"""Most items of a list that are read."""

ITEM_LENGTH = 40
"""Most characters of an item that are read."""

BLANKS_AND_QUOTES = " \t\r\n\"'`“”‘’"
"""Characters allowed around a value."""

AFTER_KEY = r"""["'`“”‘’]?[ \t\r\n]*[:=][ \t\r\n]*"""
"""Pattern of what stands between a key and its value."""

# Main fields that are tried, from the end: a bound on the work for a text of nothing but keys.
_MAX_CANDIDATES = 16
_JSON_DIGITS = 600
_PYTHON_DIGITS = 4300  # more digits than this are not converted by Python

_QUOTES = {'"': '"', "'": "'", "`": "`", "“": "”", "‘": "’"}
# Each quote with its closing one. A string ends at the first closing quote without a backslash; a text only
# at one that ends the item too, so that it may hold quotes.
_STRINGS = {start: re.compile(rf"((?:[^{end}\\\n]|\\.)*){end}") for start, end in _QUOTES.items()}
_TEXTS = {
    start: re.compile(rf"((?:[^\\\n]|\\.)*?){end}(?=[ \t]*(?:[,}}\]\r\n]|$))")
    for start, end in _QUOTES.items()
}
_BARE = re.compile(r"[^,}\n]*")
_LIST = re.compile(r"[^\])}]*")
_TO_BRACE = re.compile(r"[^}\n]*")
_QUOTED_KEY = frozenset("\"'`“”‘’")
_ABSENT = frozenset({"", "null", "none"})
_ESCAPE = re.compile(r"\\(.)")

Key = tuple[re.Match[str], "str | None"]
"""A key and its colon in the text, and the field that it names."""


def string_at(text: str, start: int) -> tuple[str, int, bool]:
    """A value that is one text: the text, where it ends, and whether its end is there."""
    return _value_at(text, start, _STRINGS)


def text_at(text: str, start: int) -> tuple[str, int, bool]:
    """As `string_at`, where quotes may stand inside a quoted text: one that closes it ends the item too."""
    return _value_at(text, start, _TEXTS)


def _value_at(text: str, start: int, quoted: Mapping[str, re.Pattern[str]]) -> tuple[str, int, bool]:
    pattern = quoted.get(text[start : start + 1])
    if pattern is not None:
        match = pattern.match(text, start + 1)
        if match is not None:
            return _ESCAPE.sub(r"\1", match[1]), match.end(), True
        start += 1
    bare = _BARE.match(text, start)
    end = bare.end() if bare is not None else start
    return text[start:end].strip(BLANKS_AND_QUOTES), end, pattern is None and end < len(text)


def list_between(text: str, start: int, stop: int) -> str:
    """The inside of a list, bracketed or not; long lists are cut."""
    stop = min(stop, start + MAX_ITEMS * ITEM_LENGTH)
    pattern = _LIST if text[start : start + 1] in tuple("[({") else _TO_BRACE
    match = pattern.match(text, start + (pattern is _LIST), stop)
    return match[0] if match is not None else ""


def text_between(text: str, start: int, stop: int) -> str:
    """A text, quoted or not, that ends before the next key does."""
    pattern = _TEXTS.get(text[start : start + 1])
    match = pattern.match(text, start + 1, stop) if pattern is not None else None
    if match is not None:
        return _ESCAPE.sub(r"\1", match[1])
    bare = _TO_BRACE.match(text, start, stop)
    return bare[0].strip(BLANKS_AND_QUOTES + ",") if bare is not None else ""


@dataclass(frozen=True)
class AnswerForm:
    """Form of a task's answers.

    Attributes:
        keys: Pattern of a key and all that stands before its value; its first group is the key.
        fields: Every spelling of a key, in lower case, to the field it names; the preferred spelling first.
        main: The field without which there is no answer.
        convert: Field to the function that makes of a value (JSON's, or a text) what the answer holds, None
            if it cannot be read. It must not raise.
        read_main: How the main field is read where the answer is not JSON.
        read_other: How other fields are read there; its last argument is where the next key begins.
    """

    keys: re.Pattern[str]
    fields: Mapping[str, str]
    main: str
    convert: Mapping[str, Callable[[object], Any]]
    read_main: Callable[[str, int], tuple[str, int, bool]] = string_at
    read_other: Callable[[str, int, int], str] = list_between

    def extract(self, text: str) -> dict[str, Any]:
        """Every field's value in a response; never raises, in time linear in the part that is read."""
        if len(text) > MAX_LENGTH:
            fields = self._search(text[-MAX_LENGTH:])
            return fields if fields[self.main] is not None else self._search(text[:MAX_LENGTH])
        fields, end = self._object_at(text, len(text) - len(text.lstrip()))
        if fields[self.main] is not None and not text[end:].strip():
            return fields
        return self._search(text)

    def _nothing(self) -> dict[str, Any]:
        return dict.fromkeys(self.convert)

    def _object_at(self, text: str, start: int) -> tuple[dict[str, Any], int]:
        """The answer in the JSON object that begins at ``start``, and where the object ends."""
        if not text.startswith("{", start):
            return self._nothing(), start
        try:
            value, end = _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            return self._nothing(), start
        given = {key.strip().lower(): item for key, item in value.items()}
        raw: dict[str, object] = {}
        for spelling, field in self.fields.items():
            if spelling in given:
                raw.setdefault(field, given[spelling])
        return {field: convert(raw.get(field)) for field, convert in self.convert.items()}, end

    def _search(self, text: str) -> dict[str, Any]:
        """The last complete answer in a text that is not one JSON object from end to end."""
        keys = [(key, self.fields.get(key[1].lower())) for key in self.keys.finditer(text)]
        cut_off: dict[str, Any] | None = None
        tried = -1
        candidates = [key for key, field in keys if field == self.main][-_MAX_CANDIDATES:]
        for key in reversed(candidates):
            opened = text.rfind("{", 0, key.start())
            inside = opened > text.rfind("}", 0, key.start())
            # Keys of one object share its brace: it is decoded once.
            if inside and opened != tried:
                tried = opened
                answer, _ = self._object_at(text, opened)
                if answer[self.main] is not None:
                    return answer
            if not inside and text[key.start() - 1 : key.start()] not in _QUOTED_KEY:
                continue
            value, end, complete = self.read_main(text, key.end())
            if value.lower() in _ABSENT:
                continue
            if complete or cut_off is None:
                closed = text.find("}", end)
                answer = self._loose(text, keys, max(opened, 0), closed if closed >= 0 else len(text), value)
                if complete:
                    return answer
                cut_off = answer
        return cut_off or self._loose(text, keys, 0, len(text), None)

    def _loose(
        self, text: str, keys: Sequence[Key], start: int, end: int, main: str | None
    ) -> dict[str, Any]:
        """An answer whose other fields are the last ones written between two places."""
        # From the last key back: ``stop`` is where the key after this one begins, so where its value ends at
        # the latest.
        fields = self._nothing() | {self.main: main}
        stop = len(text)
        for key, name in reversed(keys):
            field = name or self.main
            wanted = field != self.main and start <= key.start() < end
            if wanted and fields[field] is None:
                fields[field] = self.convert[field](self.read_other(text, key.end(), stop))
            stop = key.start()
        return fields


def _bounded_int(most: int) -> Callable[[str], int]:
    def convert(digits: str) -> int:
        if len(digits) > most:
            raise ValueError("too many digits")
        return int(digits)

    return convert


_DECODER = json.JSONDecoder(parse_int=_bounded_int(_JSON_DIGITS), strict=False)
python_int = _bounded_int(_PYTHON_DIGITS)
"""A whole number of its digits; ValueError where Python would give one up."""


def whole_json(text: str) -> dict[str, Any]:
    """The object that a text is from end to end, or an empty one: how the authors' code reads at first."""
    try:
        value = json.loads(text, parse_int=python_int)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def first_quoted(text: str, key: str) -> str | None:
    """The first ``"key": "..."`` that ends on its line; how the authors' code reads what is not JSON.

    Each part of the text is looked at once.
    """
    opening = f'"{key}": "'
    start_of = text.find(opening)
    while start_of >= 0:
        start = start_of + len(opening)
        end = text.find('"', start)
        if end < 0:
            return None
        if text.find("\n", start, end) < 0:
            return text[start:end]
        start_of = text.find(opening, start_of + 1)
    return None

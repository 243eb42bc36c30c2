"""JSON lines with typed access; what is wrong is reported with file, line and key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from copy import copy
from pathlib import Path
from typing import Any

from sftrl_ext.errors import SftrlError


def read_jsonl(path: Path, notes: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) of a JSON-lines file; empty lines are passed over.

    A last line without its newline is what a killed or a running writer leaves: it is skipped, and said.

    Args:
        path: The file.
        notes: Gets a sentence if a torn last line was skipped.

    Raises:
        SftrlError: naming file and line, if a line is not a JSON object.
    """
    with path.open(encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                item = json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                if not line.endswith("\n"):
                    notes.append(
                        f"The last line of `{path.parent.name}/{path.name}` is cut short and not used."
                    )
                    return
                found = line.strip()[:60]
                raise SftrlError(f"{path}, line {number}: not JSON ({error}); found {found!r}.") from None
            if not isinstance(item, dict):
                raise SftrlError(
                    f"{path}, line {number}: expected a JSON object, found {type(item).__name__}."
                )
            yield number, item


class Fields:
    """Typed access to one JSON object; what is wrong is reported with file, line and key."""

    def __init__(self, path: Path, line: int, item: Mapping[str, Any]) -> None:
        self.where = f"{path}, line {line}"
        self.item = item
        self.within = ""

    def bad(self, key: str, expected: str) -> SftrlError:
        """The error for a value of the wrong kind."""
        found = repr(self.item[key])[:60] if key in self.item else "no such key"
        return SftrlError(f"{self.where}: key {self.within + key!r} should be {expected}, found {found}.")

    def text(self, key: str, default: str | None = None) -> str:
        """A text."""
        value = self.item.get(key, default)
        if not isinstance(value, str):
            raise self.bad(key, "text")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number that is not negative."""
        value = self.item.get(key, default)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1 or value < 0:
            raise self.bad(key, "a whole number that is not negative")
        return int(value)

    def share(self, key: str, whole: int) -> int | None:
        """A whole number from 0 to ``whole``; None if absent."""
        if self.item.get(key) is None:
            return None
        value = self.integer(key)
        if value > whole:
            raise self.bad(key, f"a whole number from 0 to {whole}")
        return value

    def number(self, key: str) -> float | None:
        """A number, or None."""
        value = self.item.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.bad(key, "a number")
        return float(value)

    def counts(self, key: str) -> dict[str, int]:
        """An object of counts; empty if absent."""
        value = self.item.get(key) or {}
        if not isinstance(value, dict) or not all(isinstance(v, int | float) for v in value.values()):
            raise self.bad(key, "an object of counts")
        return {str(name): int(count) for name, count in value.items()}

    def pairs(self, key: str) -> tuple[tuple[int, int], ...] | None:
        """A list of pairs of whole numbers that are not negative; None if absent."""
        value = self.item.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not all(
            isinstance(pair, list) and len(pair) == 2 and all(type(n) is int and n >= 0 for n in pair)
            for pair in value
        ):
            raise self.bad(key, "a list of pairs of whole numbers")
        return tuple((first, second) for first, second in value)

    def inner(self, key: str) -> Fields | None:
        """An object within this one, with the same access; None if absent."""
        value = self.item.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.bad(key, "an object")
        made = copy(self)
        made.item, made.within = value, f"{self.within}{key}."
        return made

    def objects(self, key: str) -> tuple[Mapping[str, Any], ...]:
        """A list of objects; empty if absent."""
        value = self.item.get(key, [])
        if not isinstance(value, list) or not all(isinstance(v, dict) for v in value):
            raise self.bad(key, "a list of objects")
        return tuple(value)

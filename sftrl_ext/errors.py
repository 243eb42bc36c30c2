"""Errors a user can act on, and the one registry every named thing lives in."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class SftrlError(ValueError):
    """Bad input from the user: the command line prints its message without a traceback."""


def unknown_name(kind: str, name: object, known: Iterable[str]) -> SftrlError:
    """Make the error for a name that is not registered, with the nearest known one.

    Args:
        kind: What the name should be, in words ("card rule", "split").
        name: What was found.
        known: Every name that would have been accepted.
    """
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return SftrlError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names) or '(none)'}.")


class Registry(Generic[T]):
    """Names to things of one kind; a wrong name is answered with the nearest right one."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorate a thing to file it under ``name``; a name can be taken only once."""

        def keep(item: T) -> T:
            self.add(name, item)
            return item

        return keep

    def add(self, name: str, item: T) -> None:
        """File ``item`` under ``name``.

        Raises:
            SftrlError: if another item has that name already.
        """
        if self._items.setdefault(name, item) is not item:
            raise SftrlError(f"{self.kind} {name!r} is registered already; choose another name.")

    def __getitem__(self, name: str) -> T:
        try:
            return self._items[name]
        except (KeyError, TypeError):
            raise unknown_name(self.kind, name, self._items) from None

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

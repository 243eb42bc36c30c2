"""User errors, and the registry of named items (rules, splits, rewards, ..)."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import ClassVar, Generic, TypeVar

T = TypeVar("T")


class SftrlError(ValueError):
    """Bad input from the user: the command line prints its message without a traceback."""


def error_text(error: SftrlError | OSError) -> str:
    """Message of an error for the command line: of an operating system's error the file, then its cause."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}." if error.filename else f"{error.strerror}."
    return str(error) or type(error).__name__


def unknown_name(kind: str, name: object, registered: Iterable[str]) -> SftrlError:
    """Error for a name that is not registered, with the nearest registered one.

    Args:
        kind: Kind of item, as the message names it ("card rule", "split").
        name: The unknown name.
        registered: All accepted names.
    """
    names = sorted(registered)
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return SftrlError(f"unknown {kind} {name!r}.{hint} Known: {', '.join(names) or '(none)'}.")


def check_known(key: str, kind: str, name: str, registered: Iterable[str]) -> None:
    """Refuse a recipe's value that is none of the registered names.

    Raises:
        SftrlError: naming the key, with the nearest registered name.
    """
    names = list(registered)
    if name not in names:
        raise SftrlError(f"{key}: {unknown_name(kind, name, names)}")


def first_line(error: BaseException) -> str:
    """First line of an error's message, or the type of an error without one."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def named(key: str) -> Iterator[None]:
    """Name the key of the recipe in an error."""
    try:
        yield
    except SftrlError as error:
        raise SftrlError(f"{key}: {error}") from None


@dataclass(frozen=True)
class Registration:
    """An item of a registry.

    Attributes:
        kind: Kind of item, as `Registry` names it.
        name: Its name.
        item: The item.
        module: Module whose import registered it; "" outside of an import.
    """

    kind: str
    name: str
    item: object
    module: str


class Registry(Generic[T]):
    """Mapping of names to items of one kind; an unknown name raises with the nearest known one.

    Attributes:
        added: Every item of all registries, in order.
        on_missing: Called before a name counts as unknown; `sftrl_ext.plugins` imports plug-ins there.
    """

    added: ClassVar[list[Registration]] = []
    on_missing: ClassVar[Callable[[], object]] = lambda: None

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that registers an item under ``name``, which must be unused."""

        def decorator(item: T) -> T:
            self.add(name, item)
            return item

        return decorator

    def add(self, name: str, item: T) -> None:
        """Register ``item`` under ``name``.

        Raises:
            SftrlError: if another item has that name.
        """
        if self._items.setdefault(name, item) is not item:
            raise SftrlError(f"{self.kind} {name!r} is registered already; choose another name.")
        Registry.added.append(Registration(self.kind, name, item, _importing_module()))

    def __getitem__(self, name: str) -> T:
        try:
            if name not in self._items:
                Registry.on_missing()
            return self._items[name]
        except (KeyError, TypeError):
            raise unknown_name(self.kind, name, self._items) from None

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


def _importing_module() -> str:
    """Name of the module whose body is being executed; "" outside of an import."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    return "" if frame is None else str(frame.f_globals.get("__name__", ""))

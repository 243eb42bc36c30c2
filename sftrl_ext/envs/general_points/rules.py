"""Card rules: the number each card counts. The rule is what training and evaluation may differ in.

A new rule is one line, here or in any other package::

    register_rule(Rule("all_3", 3, 3, 3))

Every prompt template can state it at once, because the statement is made from the values. Any other values
have a rule too, of the name ``faces_<J>_<Q>_<K>`` (``faces_3_7_9``), which rows have whose rule is drawn; see
`sftrl_ext.envs.general_points.families`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from sftrl_ext.envs.general_points.cards import FACES, LARGE_RANKS, RANKS, Card
from sftrl_ext.errors import Registry, SftrlError

LETTERS = ("J", "Q", "K")
"""The ranks of `FACES` in order."""

DRAWN = "faces_"
"""Beginning of the names of drawn rules."""

MOST = 999
"""Largest number of a drawn rule."""

_NAME = re.compile(rf"{DRAWN}([1-9][0-9]{{0,2}})_([1-9][0-9]{{0,2}})_([1-9][0-9]{{0,2}})")
_BINDING = re.compile(r"([JQK])=([1-9][0-9]{0,2})")


@dataclass(frozen=True)
class Rule:
    """Values of cards: the ace is 1, number cards are what they show, faces as given here.

    Attributes:
        name: The rule's name in recipes and rows.
        jack: Number of a J.
        queen: Number of a Q.
        king: Number of a K.
        extra: Ranks this rule's deck holds beyond the ordinary thirteen; a drawn hand has at least one.
    """

    name: str
    jack: int
    queen: int
    king: int
    extra: tuple[str, ...] = ()
    _values: dict[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        faces = {"J": self.jack, "Q": self.queen, "K": self.king}
        values = {rank: faces.get(rank, i) for i, rank in enumerate(RANKS, start=1)}
        values.update((rank, int(rank)) for rank in self.extra)
        for rank, value in values.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise SftrlError(
                    f"card rule {self.name!r}: {rank} counts {value!r}, expected a whole number >= 1."
                )
        object.__setattr__(self, "_values", values)

    @property
    def ranks(self) -> tuple[str, ...]:
        """Every rank of this rule's deck, in order."""
        return RANKS + self.extra

    def number(self, rank: str) -> int:
        """The number one rank counts.

        Raises:
            SftrlError: if the rule's deck has no such rank.
        """
        try:
            return self._values[rank]
        except KeyError:
            raise SftrlError(
                f"rule {self.name!r} has no card {rank!r}; its ranks: {', '.join(self.ranks)}."
            ) from None

    def numbers(self, cards: Iterable[Card]) -> tuple[int, ...]:
        """The numbers of a hand, in the order of its cards."""
        return tuple([self.number(card.rank) for card in cards])

    @property
    def statement(self) -> str:
        """The rule in one plain sentence."""
        by_value: dict[int, list[str]] = {}
        for rank, value in (("A", 1), ("J", self.jack), ("Q", self.queen), ("K", self.king)):
            by_value.setdefault(value, []).append(rank)
        parts = []
        for value, ranks in by_value.items():
            names = ranks[0] if len(ranks) == 1 else f"{', '.join(ranks[:-1])} and {ranks[-1]}"
            verb = "counts" if len(ranks) == 1 else "each count"
            parts.append(f"{names} {verb} as {value}")
        more = f" (the deck also has cards numbered {' '.join(self.extra)})" if self.extra else ""
        return f"{', '.join(parts)}, and every other card counts as the number on it{more}."


class _Rules(Registry[Rule]):
    """Rules by name; a drawn rule is made of its name."""

    def __getitem__(self, name: str) -> Rule:
        if isinstance(name, str) and name not in self._items and name.startswith(DRAWN):
            return _parse_drawn(name)
        return super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or (isinstance(name, str) and _NAME.fullmatch(name) is not None)


RULES: Registry[Rule] = _Rules("card rule")
"""Rule name to rule; iteration gives the registered ones."""


@lru_cache(maxsize=1 << 14)
def drawn_rule(jack: int, queen: int, king: int) -> Rule:
    """The rule of some values, under the name that `RULES` makes it of again."""
    return Rule(f"{DRAWN}{jack}_{queen}_{king}", jack, queen, king)


def _parse_drawn(name: str) -> Rule:
    match = _NAME.fullmatch(name)
    if match is None:
        raise SftrlError(
            f"card rule {name!r}: expected {DRAWN}<J>_<Q>_<K> with whole numbers from 1 to {MOST} without "
            f"leading zeros, such as {DRAWN}3_7_9."
        )
    return drawn_rule(*map(int, match.groups()))


def register_rule(rule: Rule) -> Rule:
    """File a rule under its own name.

    Raises:
        SftrlError: if another rule has that name, or it is a name of drawn rules.
    """
    if rule.name.startswith(DRAWN):
        raise SftrlError(
            f"card rule {rule.name!r}: names of drawn rules begin with {DRAWN!r}; choose another."
        )
    if rule.name not in RULES or RULES[rule.name] != rule:
        RULES.add(rule.name, rule)
    return rule


class Binding(NamedTuple):
    """The number that one rank counts."""

    rank: str
    number: int

    def __str__(self) -> str:
        """As held-out bindings are written: ``J=10``."""
        return f"{self.rank}={self.number}"


Bindings = frozenset[Binding]
"""Bindings that no one rule has together; a single one is in no rule at all."""


def bindings_of(rule: Rule) -> tuple[Binding, ...]:
    """The bindings of J, Q and K."""
    return tuple(map(Binding, LETTERS, (rule.jack, rule.queen, rule.king)))


def held_out_bindings(entries: Iterable[str]) -> tuple[Bindings, ...]:
    """Read what is held out of a family, or of the rows of a stage.

    Args:
        entries: Each is the name of a rule (every one of its bindings of J, Q and K), a binding (``K=13``),
            or several with blanks (``J=5 Q=5 K=5``: these together, not each of them).

    Raises:
        SftrlError: if an entry is none of these.
    """
    held: dict[Bindings, None] = {}
    for entry in entries:
        if entry in RULES:
            held.update(dict.fromkeys(frozenset({binding}) for binding in bindings_of(RULES[entry])))
            continue
        matches = [_BINDING.fullmatch(word) for word in str(entry).split()]
        bindings = frozenset(Binding(match[1], int(match[2])) for match in matches if match)
        if not bindings or len({rank for rank, _ in bindings}) != len(matches):
            raise SftrlError(
                f"held-out binding {entry!r}: expected the name of a card rule, a binding such as 'J=10', or "
                f"bindings of different ranks such as 'J=5 Q=5 K=5'. Rules: {', '.join(RULES)}."
            )
        held[bindings] = None
    return tuple(held)


register_rule(Rule("face_10", 10, 10, 10))
register_rule(Rule("face_11_12_13", 11, 12, 13))
register_rule(Rule("all_5", 5, 5, 5))
register_rule(Rule("all_7", 7, 7, 7))
register_rule(Rule("all_12", 12, 12, 12))
register_rule(Rule("large", 10, 10, 10, extra=LARGE_RANKS))


def holds_face(cards: Iterable[Card]) -> bool:
    """True if a hand has at least one J, Q or K."""
    return any(card.rank in FACES for card in cards)

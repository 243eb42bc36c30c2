"""Card rules: the number each card counts. The rule is what training and evaluation may differ in.

A new rule is one line, here or in any other package::

    register_rule(Rule("all_3", 3, 3, 3))

Every prompt template can state it at once, because the statement is made from the values.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from sftrl_ext.envs.general_points.cards import FACES, LARGE_RANKS, RANKS, Card
from sftrl_ext.errors import Registry, SftrlError


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


RULES: Registry[Rule] = Registry("card rule")
"""Rule name to rule."""


def register_rule(rule: Rule) -> Rule:
    """File a rule under its own name.

    Raises:
        SftrlError: if another rule has that name.
    """
    if rule.name not in RULES or RULES[rule.name] != rule:
        RULES.add(rule.name, rule)
    return rule


register_rule(Rule("face_10", 10, 10, 10))
register_rule(Rule("face_11_12_13", 11, 12, 13))
register_rule(Rule("all_5", 5, 5, 5))
register_rule(Rule("all_7", 7, 7, 7))
register_rule(Rule("all_12", 12, 12, 12))
register_rule(Rule("large", 10, 10, 10, extra=LARGE_RANKS))


def holds_face(cards: Iterable[Card]) -> bool:
    """True if a hand has at least one J, Q or K."""
    return any(card.rank in FACES for card in cards)

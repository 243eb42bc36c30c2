"""Families of card rules: a row has a rule of its own, drawn by the row's seed.

A new family is one line, here or in any other package, and its name is a split::

    register_family(RuleFamily("low_faces", values=((1, 9), (1, 9), (1, 9)), held_out=("all_5",)))
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sftrl_ext.envs.general_points.cards import RANKS
from sftrl_ext.envs.general_points.rules import DRAWN, LETTERS, MOST, RULES, Binding, Rule, held_out_bindings
from sftrl_ext.errors import Registry, SftrlError, unknown_name

LARGEST_CARD = 10
"""Largest number that a card without a letter shows in the ordinary deck."""

_PATIENCE = 1000


@dataclass(frozen=True)
class RuleFamily:
    """Rules to draw from: a rule for each row, a value for each of J, Q and K.

    Attributes:
        name: Name of the family, which is a split too.
        values: Smallest and largest number of J, of Q and of K.
        held_out: Bindings that no drawn rule has; see `held_out_bindings`.
        large_share: Share of the values that are above 10; None: as the ranges have it.
        face_share: Share of J, Q and K among the cards of a hand, dealt before hands without a solution are
            dealt again; None: as in a deck.
    """

    name: str
    values: tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
    held_out: tuple[str, ...] = ()
    large_share: float | None = None
    face_share: float | None = None

    def __post_init__(self) -> None:
        for rank, (low, high) in zip(LETTERS, self.values, strict=True):
            if not 1 <= low <= high <= MOST:
                raise SftrlError(
                    f"rule family {self.name!r}: {rank} counts {low} to {high}, expected a range within 1 to "
                    f"{MOST}."
                )
        for rank, numbers in zip(LETTERS, self.numbers(), strict=True):
            large = sum(number > LARGEST_CARD for number in numbers)
            if not numbers or (self.large_share is not None and not 0 < large < len(numbers)):
                raise SftrlError(
                    f"rule family {self.name!r}: {rank} has the numbers {numbers} left, expected at least "
                    f"one, and with large_share some up to {LARGEST_CARD} and some above."
                )
        for key in ("large_share", "face_share"):
            share = getattr(self, key)
            if share is not None and not 0 < share < 1:
                raise SftrlError(
                    f"rule family {self.name!r}: {key} is {share!r}, expected a share between 0 and 1."
                )

    @property
    def ranks(self) -> tuple[str, ...]:
        """Every rank of the deck, in order; see `Rule.ranks`."""
        return RANKS

    @property
    def extra(self) -> tuple[str, ...]:
        """No ranks beyond the ordinary ones; see `Rule.extra`."""
        return ()

    def numbers(self) -> list[list[int]]:
        """Numbers of J, of Q and of K without the bindings that are held out by themselves."""
        single = {binding for held in held_out_bindings(self.held_out) if len(held) == 1 for binding in held}
        return [
            [number for number in range(low, high + 1) if Binding(rank, number) not in single]
            for rank, (low, high) in zip(LETTERS, self.values, strict=True)
        ]

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """Draw the numbers of J, Q and K of some rules.

        Returns:
            int64 of shape (count, 3).

        Raises:
            SftrlError: if nothing is left of the family.
        """
        columns = [np.array(numbers) for numbers in self.numbers()]
        together = [held for held in held_out_bindings(self.held_out) if len(held) > 1]
        drawn = np.empty((0, 3), dtype=np.int64)
        for _ in range(_PATIENCE):
            if len(drawn) >= count:
                return drawn[:count]
            rules = np.stack([self._column(rng, numbers, count) for numbers in columns], axis=1)
            keep = np.ones(count, dtype=bool)
            for held in together:
                keep &= ~np.all([rules[:, LETTERS.index(rank)] == number for rank, number in held], axis=0)
            drawn = np.concatenate([drawn, rules[keep]])
        raise SftrlError(f"rule family {self.name!r}: no rule is left beside what is held out.")

    def _column(self, rng: np.random.Generator, numbers: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        if self.large_share is None:
            return rng.choice(numbers, count)
        small, large = numbers[numbers <= LARGEST_CARD], numbers[numbers > LARGEST_CARD]
        above = rng.random(count) < self.large_share
        return np.where(above, rng.choice(large, count), rng.choice(small, count))


FAMILIES: Registry[RuleFamily] = Registry("rule family")
"""Family name to family."""


def register_family(family: RuleFamily) -> RuleFamily:
    """File a family under its own name.

    Raises:
        SftrlError: if a rule or another family has that name.
    """
    if family.name in RULES:
        raise SftrlError(f"rule family {family.name!r}: a card rule has this name; choose another.")
    if family.name not in FAMILIES or FAMILIES[family.name] != family:
        FAMILIES.add(family.name, family)
    return family


def find_rules(name: str) -> Rule | RuleFamily:
    """The rule or the family of a name.

    Raises:
        SftrlError: if there is neither, with the nearest name.
    """
    if name in FAMILIES:
        return FAMILIES[name]
    if name in RULES or str(name).startswith(DRAWN):
        return RULES[name]
    raise unknown_name("card rule", name, [*RULES, *FAMILIES])


register_family(
    RuleFamily(
        "other_faces",
        values=((1, 13), (1, 13), (1, 13)),
        held_out=("face_10", "face_11_12_13", "J=5 Q=5 K=5"),
        large_share=0.4,
        face_share=0.5,
    )
)

"""Exact shares of a draw of hands: solvable ones, those with one face card, those the other rule solves.

The shares come from enumerating all multisets of ranks, each with the number of equally likely deals of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import combinations_with_replacement
from math import comb, factorial, prod

from sftrl_ext.envs.general_points.cards import FACES, suits_of
from sftrl_ext.envs.general_points.hands import HandSpec, is_held_out
from sftrl_ext.envs.general_points.rules import RULES
from sftrl_ext.envs.general_points.solver import is_solvable

Ranks = tuple[str, ...]


@dataclass(frozen=True)
class DrawShares:
    """Exact shares of a draw.

    Attributes:
        kept: Deals that are kept, of all deals: they have a solution, and numbers of the split's part.
        one_face: Hands with exactly one J, Q or K, of those kept.
        other_rule: Hands that have a solution under the other rule too, of those kept.
    """

    kept: Fraction
    one_face: Fraction
    other_rule: Fraction


@lru_cache(maxsize=64)
def draw_shares(spec: HandSpec, other_rule: str = "face_10") -> DrawShares:
    """Exact shares of a draw, by enumeration.

    Args:
        spec: The hands that are drawn; of one rule.
        other_rule: The rule of `DrawShares.other_rule`.

    Returns:
        The shares; `DrawShares.one_face` and `DrawShares.other_rule` are 0 where no hand is kept.
    """
    rule, other = RULES[spec.rule], RULES[other_rule]
    total = kept = one_face = other_solved = 0
    for ranks, deals in _deals(spec):
        numbers = tuple(sorted(map(rule.number, ranks)))
        others = sorted(map(other.number, ranks)) if set(ranks) <= set(other.ranks) else None
        for target in spec.all_targets:
            total += deals
            held_out = is_held_out(numbers, target, spec.holdout)
            if spec.part != "all" and held_out != (spec.part == "held_out"):
                continue
            if not is_solvable(numbers, target):
                continue
            kept += deals
            one_face += deals * (sum(rank in FACES for rank in ranks) == 1)
            if others is not None and is_solvable(others, target):
                other_solved += deals
    return DrawShares(
        Fraction(kept, total), Fraction(one_face, max(1, kept)), Fraction(other_solved, max(1, kept))
    )


def _deals(spec: HandSpec) -> Iterator[tuple[Ranks, int]]:
    """Multisets of ranks that a draw may give, each with its number of equally likely deals."""
    rule = RULES[spec.rule]
    for ranks in combinations_with_replacement(rule.ranks, spec.num_cards):
        if spec.need_face and not FACES & set(ranks):
            continue
        if rule.extra and not set(rule.extra) & set(ranks):
            continue
        # Without replacement: each way to choose suits for the cards of a rank. Among sequences of
        # independent cards: the orders of the multiset. With a forced face: the orders of the other cards for
        # each face it may have been; its position is uniform and the same factor for all.
        if spec.draw == "deck":
            colours = len(suits_of(spec.suits))
            deals = prod(comb(colours, count) for count in Counter(ranks).values())
        elif spec.draw == "authors" and spec.need_face:
            deals = sum(_orders(_without(ranks, face)) for face in FACES & set(ranks))
        else:
            deals = _orders(ranks)
        if deals:
            yield ranks, deals


def _orders(ranks: Ranks) -> int:
    """Orders of a multiset."""
    return factorial(len(ranks)) // prod(factorial(count) for count in Counter(ranks).values())


def _without(ranks: Ranks, rank: str) -> Ranks:
    """The multiset with one card less."""
    index = ranks.index(rank)
    return ranks[:index] + ranks[index + 1 :]

"""Which numbers a formula of Countdown uses, and the solutions under each rule.

================  ======================================================================================
use               a formula uses
================  ======================================================================================
``all``           every number exactly once: the grader published with the Countdown-Tasks-3to4 rows
``any``           each number at most once, any of them left out: the rule of the television game
================  ======================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations

from sftrl_ext.envs.general_points import solver

USES = ("all", "any")
"""Rules for the numbers of a formula."""

Numbers = tuple[int, ...]


def hands_of(numbers: Sequence[int], use: str) -> Iterator[Numbers]:
    """The multisets of numbers that a formula may use, the largest first, each sorted."""
    hand = tuple(sorted(numbers))
    for size in range(len(hand), 0 if use == "any" else len(hand) - 1, -1):
        yield from sorted(set(combinations(hand, size)))


def solve(numbers: Sequence[int], target: int, use: str = "all") -> list[str]:
    """List the distinct solutions, sorted as texts; see `sftrl_ext.envs.general_points.solver.solve`."""
    return sorted({formula for hand in hands_of(numbers, use) for formula in solver.solve(hand, target)})


def is_solvable(numbers: Sequence[int], target: int, use: str = "all") -> bool:
    """True if a formula reaches the target."""
    return any(solver.is_solvable(hand, target) for hand in hands_of(numbers, use))

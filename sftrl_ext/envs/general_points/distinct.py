"""Solutions that differ as functions of the cards, not only as texts.

``3*8`` and ``8*3`` are one solution, and so are ``a-(b-c)`` and ``a-b+c``: two formulas are the same if they
have the same value whatever the cards count. So each card gets a large stand-in for its number, and formulas
are told apart by the exact value they then have. Cards that count the same are interchangeable: of all ways
to give them their stand-ins, the smallest value names the formula.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from itertools import permutations, product

from sftrl_ext.envs.general_points.formula import evaluate_postfix, parse
from sftrl_ext.envs.general_points.solver import solve


def solution_key(formula: str) -> str:
    """Name of a formula that all ways to write the same solution share; an illegal one stands for itself."""
    parsed = parse(formula)
    if not parsed.legal:  # the profile `authors` accepts more than this package's solver writes
        return formula.strip()
    postfix = list(parsed.postfix)
    positions: dict[int, list[int]] = defaultdict(list)
    for position, item in enumerate(postfix):
        if isinstance(item, int):
            positions[item].append(position)
    values = []
    for orders in product(*(permutations(range(len(of))) for of in positions.values())):
        for (number, of), order in zip(positions.items(), orders, strict=True):
            for position, card in zip(of, order, strict=True):
                postfix[position] = zlib.crc32(f"{number}/{card}".encode())
        ratio = evaluate_postfix(postfix)
        values.append(str(ratio and Fraction(*ratio)))
    return min(values)


def count_solutions(numbers: Sequence[int], target: int) -> int:
    """Number of distinct solutions of a hand."""
    return _count(tuple(sorted(numbers)), target)


@lru_cache(maxsize=4096)
def _count(numbers: tuple[int, ...], target: int) -> int:
    return len({solution_key(formula) for formula in solve(numbers, target)})

"""Plausible wrong formulas, made by changing a solution: what an attempt that failed may have looked like."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

_TOKEN = re.compile(r"[0-9]+|[-+*/()]")
_OPERATORS = "+-*/"

Chance = Callable[[int], int]
"""Gives a random whole number below its argument."""


def other_operator(pick: Chance, tokens: list[str], spare: Sequence[int]) -> None:
    """Put another operator in the place of one: usually a wrong value."""
    positions = [i for i, token in enumerate(tokens) if token in _OPERATORS]
    position = positions[pick(len(positions))]
    tokens[position] = [op for op in _OPERATORS if op != tokens[position]][pick(3)]


def swapped_numbers(pick: Chance, tokens: list[str], spare: Sequence[int]) -> None:
    """Let two numbers change places: usually a wrong value."""
    places = _numbers(tokens)
    a = places.pop(pick(len(places)))
    b = places[pick(len(places))]
    tokens[a], tokens[b] = tokens[b], tokens[a]


def other_number(pick: Chance, tokens: list[str], spare: Sequence[int]) -> None:
    """Put a number that was not dealt, such as a face card read by another rule, in the place of one."""
    places = _numbers(tokens)
    tokens[places[pick(len(places))]] = str(spare[pick(len(spare))])


def number_twice(pick: Chance, tokens: list[str], spare: Sequence[int]) -> None:
    """Use one number again in the place of another."""
    places = _numbers(tokens)
    a = places.pop(pick(len(places)))
    tokens[a] = tokens[places[pick(len(places))]]


def lost_token(pick: Chance, tokens: list[str], spare: Sequence[int]) -> None:
    """Leave out a parenthesis or an operator: usually illegal."""
    places = [i for i, token in enumerate(tokens) if not token.isdigit()]
    del tokens[places[pick(len(places))]]


CHANGES = (
    *(other_operator,) * 4,
    *(swapped_numbers,) * 3,
    *(other_number,) * 2,
    number_twice,
    lost_token,
)
"""Ways to spoil a formula, the likely ones more often; each changes the token list in place."""


def spoiled(
    rng: np.random.Generator, solutions: Sequence[str], numbers: Sequence[int], tries: int
) -> Iterator[str]:
    """Change solutions into what may be wrong formulas; the verifier says whether and how each is wrong.

    Args:
        rng: Where the randomness comes from.
        solutions: Right formulas without ``=``.
        numbers: The numbers dealt.
        tries: How many formulas to give; some may be equal to each other or right after all.
    """
    # Drawn at once, which is faster than one by one; a formula takes at most four of them.
    chances = iter(rng.random(6 * tries).tolist())

    def pick(below: int) -> int:
        return int(next(chances) * below)

    spare = [number for number in range(1, 14) if number not in numbers] or [max(numbers) + 1]
    for _ in range(tries):
        tokens = _TOKEN.findall(solutions[pick(len(solutions))])
        CHANGES[pick(len(CHANGES))](pick, tokens, spare)
        yield "".join(tokens)


def _numbers(tokens: Sequence[str]) -> list[int]:
    return [i for i, token in enumerate(tokens) if token.isdigit()]

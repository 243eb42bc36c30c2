"""All formulas that reach the target, exactly, for one to six numbers.

A solution is a text over the given numbers, ``+ - * /`` and parentheses, without blanks, that uses every
number once and equals the target with exact rationals. Two texts are two solutions: ``3*8`` and ``8*3``.

*Redundant parentheses* are those whose removal leaves the formula the same function of its numbers, whatever
the numbers are: ``(a+b)-c``, ``a+(b-c)``, ``a*(b/c)`` and ``a+(b*c)`` lose them, while ``a-(b+c)``,
``a/(b*c)`` and ``(a+b)*c`` keep them. So each text has one parse tree, read with the usual precedence and
from left to right, in which the right operand of ``+`` is never a sum and the right operand of ``*`` never a
product; the search walks these trees only and so meets every text once.

Arithmetic is done modulo a prime, which is exact here. By induction over the operators, a formula over the
numbers n_i has a value num/den with ``|num| + |den| <= prod(|n_i| + 1)``. While this product times
``|target| + 1`` is below the prime, ``num/den = target`` modulo the prime only if it is so in the rationals,
and a divisor is zero modulo the prime only if it is zero. The prime is chosen so; for cards it is 2**31 - 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import combinations, islice
from operator import index

from sftrl_ext.errors import SftrlError

Numbers = tuple[int, ...]
Text = tuple[int, str]
"""Precedence of a formula text (`_SUM`, `_PRODUCT` or `_NUMBER`), and the text."""

MAX_NUMBERS = 6
# For each exponent e, 2**e - 1 is prime.
_MERSENNE_EXPONENTS = (31, 61, 127, 521, 1279, 2203, 4423, 9689, 19937)
_SUM, _PRODUCT, _NUMBER = 0, 1, 2
_LEVEL = {"+": _SUM, "-": _SUM, "*": _PRODUCT, "/": _PRODUCT}
_ANY = -1


def solve(numbers: Sequence[int], target: int = 24, limit: int | None = None) -> list[str]:
    """List the distinct solutions without redundant parentheses, sorted as texts.

    The list of a hand of up to four numbers is kept, so asking again costs a look-up. Five numbers have some
    thousands of solutions and six some tens of thousands: see also `iter_solutions` and ``limit``.

    Args:
        numbers: One to six non-negative integers; their order does not matter.
        target: The value to reach.
        limit: Stop the search after this many solutions; None for all of them.

    Raises:
        SftrlError: if the numbers or the target cannot be searched.
    """
    hand = _checked(numbers, target)
    if limit is not None:
        return sorted(islice(_Search(hand, target).formulas(), max(limit, 0)))
    if len(hand) <= 4:
        return list(_solutions_of(hand, target))
    return sorted(_Search(hand, target).formulas())


def iter_solutions(numbers: Sequence[int], target: int = 24) -> Iterator[str]:
    """Give the same solutions as `solve` one by one, unsorted, in memory that does not grow with their count.

    Raises:
        SftrlError: if the numbers or the target cannot be searched.
    """
    return _Search(_checked(numbers, target), target).formulas()


def is_solvable(numbers: Sequence[int], target: int = 24) -> bool:
    """True if any formula over the numbers equals the target.

    Raises:
        SftrlError: if the numbers or the target cannot be searched.
    """
    return _solvable(_checked(numbers, target), target)


def clear_tables() -> None:
    """Forget everything kept from earlier calls (for measurements from cold)."""
    for table in (_solutions_of, _solvable, _values, _inverses, _splits):
        table.cache_clear()


def _checked(numbers: Sequence[int], target: int) -> Numbers:
    try:
        hand = tuple(sorted(map(index, numbers)))
        index(target)
    except TypeError:
        raise SftrlError(
            f"the solver takes integers; found numbers {numbers!r} and target {target!r}."
        ) from None
    if not 1 <= len(hand) <= MAX_NUMBERS:
        raise SftrlError(f"the solver takes 1 to {MAX_NUMBERS} numbers; found {len(hand)}: {numbers!r}.")
    if hand[0] < 0:
        raise SftrlError(f"a formula has no way to write a negative number; found {hand[0]} in {numbers!r}.")
    return hand


@lru_cache(maxsize=8192)
def _solutions_of(hand: Numbers, target: int) -> tuple[str, ...]:
    return tuple(sorted(_Search(hand, target).formulas()))


@lru_cache(maxsize=65536)
def _solvable(hand: Numbers, target: int) -> bool:
    search = _Search(hand, target)
    return search.reachable(hand, search.goal)


def _prime(hand: Numbers, target: int) -> int:
    # If num - target * den is a multiple of the prime, it is 0, since |num - target * den| <= bound < prime.
    bound = abs(target) + 1
    for number in hand:
        bound *= number + 1
    for exponent in _MERSENNE_EXPONENTS:
        if bound < 1 << (exponent - 1):
            return (1 << exponent) - 1
    raise SftrlError(f"the numbers or the target are too large for the solver: {bound.bit_length()} bits.")


@lru_cache(maxsize=8192)
def _splits(hand: Numbers) -> tuple[tuple[Numbers, Numbers], ...]:
    """Every way to part a hand in two non-empty hands, once each, both orders, the most even first."""
    seen: dict[tuple[Numbers, Numbers], None] = {}
    places = range(len(hand))
    for size in sorted(range(1, len(hand)), key=lambda part: abs(2 * part - len(hand))):
        for chosen in combinations(places, size):
            left = tuple(hand[i] for i in chosen)
            right = tuple(hand[i] for i in places if i not in chosen)
            seen[left, right] = None
    return tuple(seen)


@lru_cache(maxsize=8192)
def _values(hand: Numbers, prime: int) -> frozenset[int]:
    """The residues of all values of a hand of at most three numbers."""
    return _all_values(hand, prime)


def _all_values(hand: Numbers, prime: int) -> frozenset[int]:
    if len(hand) == 1:
        return frozenset((hand[0] % prime,))
    values: set[int] = set()
    add = values.add
    for left, right in _splits(hand):
        # Both orders of - and / are applied below, so one order of each pair of hands is enough.
        if (len(left), left) > (len(right), right):
            continue
        others = _inverses(right, prime)
        for a, inverse_a in _inverses(left, prime):
            for b, inverse_b in others:
                add((a + b) % prime)
                add((a - b) % prime)
                add((b - a) % prime)
                add(a * b % prime)
                if a:
                    add(b * inverse_a % prime)
                if b:
                    add(a * inverse_b % prime)
    return frozenset(values)


@lru_cache(maxsize=8192)
def _inverses(hand: Numbers, prime: int) -> tuple[tuple[int, int], ...]:
    """The values of a hand of at most three numbers with their inverses (0 for 0)."""
    return tuple((v, pow(v, -1, prime) if v else 0) for v in _values(hand, prime))


class _Search:
    """One hand and one target: which values can be reached, and by which texts."""

    def __init__(self, hand: Numbers, target: int) -> None:
        self.hand = hand
        self.prime = _prime(hand, target)
        self.goal = target % self.prime
        # Up to this size a hand's values are tabled; above, a value is traced backwards to such hands.
        self._tabled = max(3, len(hand) - 2)
        self._tables: dict[Numbers, frozenset[int]] = {}
        self._reached: dict[tuple[Numbers, int], bool] = {}
        self._short: dict[tuple[Numbers, int], list[Text]] = {}

    def formulas(self) -> Iterator[str]:
        """Every solution text, once."""
        return (text for _, text in self._texts(self.hand, self.goal))

    def reachable(self, hand: Numbers, value: int) -> bool:
        """True if some formula over the hand has this value."""
        if len(hand) <= self._tabled:
            return value in self._table(hand)
        reachable = self._reached.get((hand, value))
        if reachable is None:
            reachable = self._reached[hand, value] = self._reachable(hand, value)
        return reachable

    def _table(self, hand: Numbers) -> frozenset[int]:
        if len(hand) <= 3:
            return _values(hand, self.prime)
        table = self._tables.get(hand)
        if table is None:
            table = self._tables[hand] = _all_values(hand, self.prime)
        return table

    def _reachable(self, hand: Numbers, value: int) -> bool:
        prime = self.prime
        inverse_value = pow(value, -1, prime) if value else 0
        for small, big in _splits(hand):
            if len(small) > len(big):
                continue
            needs: set[int] = set()
            for s, inverse in _inverses(small, prime):  # s op b = value, or b op s = value, solved for b
                if s:
                    needs.add((value - s) % prime)
                    needs.add((s - value) % prime)
                    needs.add((value + s) % prime)
                    needs.add(value * inverse % prime)
                    needs.add(value * s % prime)
                    if value:
                        needs.add(s * inverse_value % prime)
                elif value:
                    needs.add(value)
                    needs.add(-value % prime)
                else:  # 0 times anything
                    return True
            if len(big) <= self._tabled:
                if not needs.isdisjoint(self._table(big)):
                    return True
            elif any(self.reachable(big, need) for need in needs):
                return True
        return False

    def _texts(self, hand: Numbers, value: int) -> Iterator[Text]:
        if len(hand) > 3:
            return self._compose(hand, value)
        formulas = self._short.get((hand, value))
        if formulas is None:
            formulas = self._short[hand, value] = list(self._compose(hand, value))
        return iter(formulas)

    def _compose(self, hand: Numbers, value: int) -> Iterator[Text]:
        if len(hand) == 1:
            if value == hand[0] % self.prime:
                yield _NUMBER, str(hand[0])
            return
        for left, right in _splits(hand):
            # The smaller hand's values are enumerated; what the other one must then be is looked up.
            left_known = len(left) <= len(right)
            other = right if left_known else left
            table = self._table(other) if len(other) <= self._tabled else None
            for op, a, b in self._operands(left, right, value):
                need = b if left_known else a
                if need == _ANY or (need in table if table is not None else self.reachable(other, need)):
                    yield from self._join(op, left, a, right, b)

    def _operands(self, left: Numbers, right: Numbers, value: int) -> Iterator[tuple[str, int, int]]:
        """Every (op, a, b) with a op b = value: the smaller hand has its operand, the other is to be checked.

        `_ANY` stands for any value beside a factor 0, and for any value but 0 as the divisor of 0.
        """
        prime = self.prime
        if len(left) <= len(right):
            inverse = pow(value, -1, prime) if value else 0
            for a, inverse_a in _inverses(left, prime):
                yield "+", a, (value - a) % prime
                yield "-", a, (a - value) % prime
                if a:
                    yield "*", a, value * inverse_a % prime
                    if value:
                        yield "/", a, a * inverse % prime
                elif not value:
                    yield "*", 0, _ANY
                    yield "/", 0, _ANY
        else:
            for b, inverse_b in _inverses(right, prime):
                yield "+", (value - b) % prime, b
                yield "-", (value + b) % prime, b
                if b:
                    yield "*", value * inverse_b % prime, b
                    yield "/", value * b % prime, b
                elif not value:
                    yield "*", _ANY, 0

    def _join(self, op: str, left: Numbers, a: int, right: Numbers, b: int) -> Iterator[Text]:
        level = _LEVEL[op]
        starts = (_before(op, *text) for text in self._operand_texts(left, a))
        rights = self._operand_texts(right, b, nonzero=op == "/")
        ends = (end for text in rights if (end := _after(op, *text)))
        if len(left) <= len(right):  # keep the texts of the smaller side only
            kept = list(starts)
            for end in ends:
                for start in kept:
                    yield level, start + end
        else:
            kept = list(ends)
            for start in starts:
                for end in kept:
                    yield level, start + end

    def _operand_texts(self, hand: Numbers, value: int, nonzero: bool = False) -> Iterator[Text]:
        if value != _ANY:
            return self._texts(hand, value)
        return ((level, text) for level, text, v in self._everything(hand) if v or not nonzero)

    def _everything(self, hand: Numbers) -> Iterator[tuple[int, str, int]]:
        """Every formula over a hand with its value, for the operand beside a factor that is zero."""
        prime = self.prime
        if len(hand) == 1:
            yield _NUMBER, str(hand[0]), hand[0] % prime
            return
        for left, right in _splits(hand):
            for right_level, right_text, b in self._everything(right):
                for op in "+-*/":
                    end = _after(op, right_level, right_text)
                    if not end or (op == "/" and not b):
                        continue
                    for left_level, left_text, a in self._everything(left):
                        text = _before(op, left_level, left_text) + end
                        yield _LEVEL[op], text, _apply(op, a, b, prime)


def _before(op: str, level: int, text: str) -> str:
    """A left operand and its operator: parentheses if it binds less tightly."""
    return (text if level >= _LEVEL[op] else f"({text})") + op


def _after(op: str, level: int, text: str) -> str:
    """A right operand: parentheses unless it binds more tightly; empty if they would be redundant."""
    if level > _LEVEL[op]:
        return text
    if level == _LEVEL[op] and op in "+*":
        return ""
    return f"({text})"


def _apply(op: str, a: int, b: int, prime: int) -> int:
    if op == "+":
        return (a + b) % prime
    if op == "-":
        return (a - b) % prime
    return a * (b if op == "*" else pow(b, -1, prime)) % prime

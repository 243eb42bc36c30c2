"""The working of a formula: one calculation for each operator, in the order in which the formula needs them.

``8/(3-8/3)`` needs ``8/3=8/3``, then ``3-(8/3)=1/3``, then ``8/(1/3)=24``. The calculations are read off the
parsed formula, values are exact rationals, and each text is itself true as arithmetic is usually read: an
operand that is no whole number from 0 on stands in parentheses.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from sftrl_ext.envs.general_points.formula import parse
from sftrl_ext.errors import SftrlError


@dataclass(frozen=True)
class Calculation:
    """Two numbers, an operator, and what comes out; its text is ``10-4=6``.

    Attributes:
        left: First operand.
        operator: ``+``, ``-``, ``*`` or ``/``.
        right: Second operand.
        value: The exact result.
    """

    left: Fraction
    operator: str
    right: Fraction
    value: Fraction

    def __str__(self) -> str:
        return f"{_operand(self.left)}{self.operator}{_operand(self.right)}={self.value}"


def calculations(formula: str) -> tuple[Calculation, ...]:
    """Every calculation of a formula, each after those whose results it takes; none for a single number.

    Args:
        formula: A legal formula, with or without ``=24`` at the end.

    Raises:
        SftrlError: if the formula is illegal or divides by zero.
    """
    parsed = parse(formula)
    if not parsed.legal:
        raise SftrlError(f"formula {formula[:200]!r} has no working: {parsed.problem}.")
    calculations: list[Calculation] = []
    stack: list[Fraction] = []
    for item in parsed.postfix:
        if isinstance(item, int):
            stack.append(Fraction(item))
            continue
        right, left = stack.pop(), stack.pop()
        stack.append(_apply(formula, left, item, right))
        calculations.append(Calculation(left, item, right, stack[-1]))
    return tuple(calculations)


def _apply(formula: str, left: Fraction, operator: str, right: Fraction) -> Fraction:
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if not right:
        raise SftrlError(f"formula {formula[:200]!r} has no working: it divides by zero.")
    return left / right


def _operand(number: Fraction) -> str:
    return str(number) if number >= 0 and number.denominator == 1 else f"({number})"

"""The formulas a model may write: what is legal, which numbers occur, and the exact value.

A formula is made of ASCII digits, ``+ - * /``, parentheses and blanks (space, tab, newline). What follows a
first ``=`` is not part of it and is not read: ``(1+2)*8=24`` and ``(1+2)*8=25`` both say ``(1+2)*8``.

- A number follows the start, an operator or ``(``: there is no sign, no ``**``, no ``//`` and no product
  without a ``*``. Leading zeros do not change a number. Look-alikes (``×``, ``÷``, ``−``, full-width digits)
  are illegal.
- Operators have the usual precedence and are read from left to right.

Parsing is one pass without recursion over at most `MAX_LENGTH` characters; a longer text is illegal as it
stands. No text is executed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

MAX_LENGTH = 4000
"""The longest formula that is read, in characters."""

BLANKS = " \t\r\n"
"""Blanks a formula may hold; those of other alphabets are illegal, as all look-alikes are."""

_LEGAL = re.compile(rf"[0-9+\-*/(){BLANKS}]*")
_DIGIT = re.compile(r"\d")
_TOKEN = re.compile(r"[0-9]+|[+\-*/()]")
# A parenthesis binds least, so that no operator takes it from the stack.
_LEVEL = {"(": 0, "+": 1, "-": 1, "*": 2, "/": 2}


@dataclass(frozen=True)
class Formula:
    """A parsed text.

    Attributes:
        numbers: The numbers in order of appearance; empty if the text is illegal.
        postfix: The formula in postfix order, numbers as int, operators as one-letter str.
        problem: What makes the text illegal, as a clause without a full stop; empty if it is legal.
    """

    numbers: tuple[int, ...] = ()
    postfix: tuple[int | str, ...] = ()
    problem: str = ""

    @property
    def legal(self) -> bool:
        """True if the text is a formula at all."""
        return not self.problem

    def ratio(self) -> tuple[int, int] | None:
        """The value as numerator and denominator, not reduced; None if it divides by zero.

        Raises:
            ValueError: if the formula is illegal.
        """
        return evaluate_postfix(self.postfix)

    def value(self) -> Fraction | None:
        """The exact value; None if it divides by zero.

        Raises:
            ValueError: if the formula is illegal.
        """
        ratio = self.ratio()
        return None if ratio is None else Fraction(*ratio)


def is_attempt(text: str) -> bool:
    """True if a text attempts a formula: it holds a digit, or only characters of formulas."""
    start = text[:MAX_LENGTH].partition("=")[0].strip()
    return start != "" and (_DIGIT.search(start) is not None or _LEGAL.fullmatch(start) is not None)


def parse(text: str) -> Formula:
    """Parse any text; never raises.

    Args:
        text: What stands in the ``formula`` field of an answer, with or without ``=24`` at the end.
    """
    text = text[: MAX_LENGTH + 1]
    cut = text.find("=")
    if cut >= 0:
        text = text[:cut]
    elif len(text) > MAX_LENGTH:
        return Formula(problem=f"it is longer than {MAX_LENGTH} characters")
    legal = _LEGAL.match(text)
    if legal is None or legal.end() != len(text):
        character = text[legal.end() if legal else 0]
        return Formula(problem=f"it holds the character {character!r}, which no formula may")
    return _parse_tokens(_TOKEN.findall(text))


def _parse_tokens(tokens: list[str]) -> Formula:
    """Dijkstra's shunting yard: operators wait on a stack until a weaker one arrives."""
    numbers: list[int] = []
    postfix: list[int | str] = []
    waiting: list[str] = []
    operand_next = True
    for token in tokens:
        if token == "(":
            if not operand_next:
                return Formula(problem="a '(' follows a number or a ')' without an operator between them")
            waiting.append(token)
        elif token == ")":
            if operand_next:
                return Formula(problem="a ')' stands where a number should")
            while waiting and waiting[-1] != "(":
                postfix.append(waiting.pop())
            if not waiting:
                return Formula(problem="a ')' has no '(' to close")
            waiting.pop()
        elif token in _LEVEL:
            if operand_next:
                return Formula(problem=f"the operator {token!r} has no number before it")
            level = _LEVEL[token]
            while waiting and _LEVEL[waiting[-1]] >= level:
                postfix.append(waiting.pop())
            waiting.append(token)
            operand_next = True
        else:
            if not operand_next:
                return Formula(problem="a number follows a number or a ')' without an operator between them")
            try:
                number = int(token)
            except ValueError:  # PYTHONINTMAXSTRDIGITS may be set lower than MAX_LENGTH
                return Formula(problem=f"it holds a number of {len(token)} digits")
            numbers.append(number)
            postfix.append(number)
            operand_next = False
    if operand_next:
        return Formula(problem="it ends where a number should follow" if tokens else "it is empty")
    while waiting:
        operator = waiting.pop()
        if operator == "(":
            return Formula(problem="a '(' is not closed")
        postfix.append(operator)
    return Formula(tuple(numbers), tuple(postfix))


def evaluate_postfix(postfix: Sequence[int | str]) -> tuple[int, int] | None:
    """Evaluate a formula in postfix order with integers only.

    Returns:
        Numerator and denominator, not reduced and of any sign; None if it divides by zero.

    Raises:
        ValueError: if the sequence is not a whole formula.
    """
    stack: list[tuple[int, int]] = []
    for item in postfix:
        if isinstance(item, int):
            stack.append((item, 1))
            continue
        if len(stack) < 2:
            raise ValueError(f"not a formula in postfix order: {postfix!r}")
        # Left operand a / b, right operand c / d. Only division by c = 0 could give a denominator of 0.
        c, d = stack.pop()
        a, b = stack.pop()
        if item == "+":
            stack.append((a * d + c * b, b * d))
        elif item == "-":
            stack.append((a * d - c * b, b * d))
        elif item == "*":
            stack.append((a * c, b * d))
        elif c == 0:
            return None
        else:
            stack.append((a * d, b * c))
    if len(stack) != 1:
        raise ValueError(f"not a formula in postfix order: {postfix!r}")
    return stack[0]

"""The grader of the paper's own code, rebuilt from its behaviour, for parity with what was published.

It differs from the profile ``exact`` in what it reads, in that penalties add up, and in that the formula is
evaluated in floating point. In order:

1. *Reading.* The response as a whole is taken as JSON and the key looked up there; failing that, the first
   ``"formula": "..."`` (on one line) and ``"cards": [...]`` in the text, with exactly this spacing. A formula
   that is missing is the text ``None``. The formula is cut at its first ``=``. The cards are right only if
   the text of their list, without brackets, single quotes and blanks, splits at commas into the four ranks,
   in any order; a real JSON list, double quotes, or integers separated by comma and blank read as no cards.
2. *Cards* (image only): not the ones dealt, -1.5 and nothing else.
3. *Characters* other than digits, ``+ - * / ( )``: -3 and nothing else. A blank is such a character; a
   digit of any script is not.
4. *Neighbours*, -3 for each token that breaks a rule: a number follows the start, an operator or ``(``; an
   operator follows a number or ``)``; ``(`` follows the start, an operator or ``(``, else it does not open
   anything; ``)`` follows a number or ``)`` and closes an open one. An unclosed ``(`` costs nothing here.
5. *Numbers*: -2 if one is not given, else -2 if one is used too often; and -2 more if one is used too seldom.
6. If nothing was deducted: the target, in floating point, +5. If evaluation raises and the text begins a
   solution, +1. Otherwise -1 if some sequence of leading tokens begins no solution, else 0 (so it goes for
   formulas such as ``8/(3-8/3)``, whose float value misses the target).

The *solutions* of step 6 are, for every order of the numbers and every choice of operators, the text without
parentheses, with one pair around two or more neighbours (not all), and with a pair around numbers 1-2 and
another around 3-4, whose exact value is the target. They are tabled per hand of up to `MAX_NUMBERS` numbers.

Outcomes are named as under ``exact``: a deduction in 3 or 4 is an illegal formula (unparsable if it is prose
without a digit), in 5 wrong numbers; in 6 a text that cannot be evaluated is an illegal formula, unless it
divides by zero. Where the original stops with an exception (a formula that is JSON but no string) the
response is unparsable, -3. Formulas beyond `MAX_LENGTH` characters are graded by their beginning.
"""

from __future__ import annotations

import operator
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from math import prod
from typing import Any
from unicodedata import decimal

import numpy as np

from sftrl_ext.envs.answer import first_quoted, python_int, whole_json
from sftrl_ext.envs.base import Finding, Verdict
from sftrl_ext.envs.general_points.answer import Answer
from sftrl_ext.envs.general_points.formula import is_attempt, parse
from sftrl_ext.errors import SftrlError

CORRECT, PARTIAL, NO_SOLUTION, WRONG_CARDS, WRONG_NUMBERS, ILLEGAL = 5.0, 1.0, -1.0, -1.5, -2.0, -3.0

MAX_NUMBERS = 6
"""The largest hand whose solutions are tabled; the original plays four cards."""

MAX_LENGTH = 100_000
"""Most characters of a formula that are graded."""

FINDINGS: dict[str, frozenset[str]] = {
    "illegal_characters": frozenset(),
    "number_misplaced": frozenset(),
    "operator_misplaced": frozenset(),
    "opening_misplaced": frozenset(),
    "closing_misplaced": frozenset(),
    "closing_unmatched": frozenset(),
    "numbers_not_given": frozenset({"used"}),
    "numbers_too_often": frozenset({"used"}),
    "numbers_left_out": frozenset({"unused"}),
    "equals_target": frozenset(),
    "begins_solution": frozenset(),
    "matches_no_solution": frozenset(),
    "leaves_solutions": frozenset({"start"}),
}
"""Remark of the grader on a formula to its fields, in the order of grading. ``used`` and ``unused`` are
numbers separated by comma and blank, ``start`` the longest run of leading tokens that begins a solution."""

_TOKEN = re.compile(r"\d+|[+\-*/()]")
_ALPHABET = re.compile(r"[\d+\-*/()]*")
_OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
_NESTING = 200  # more open parentheses than this do not compile in Python

Array = np.ndarray[Any, Any]
Ratio = tuple[Array, Array]
"""Numerators and denominators, not reduced."""


@dataclass(frozen=True)
class Score:
    """Reward, outcome and feedback of one formula, and what the grader remarked: names of `FINDINGS`."""

    reward: float
    outcome: str
    feedback: str
    findings: tuple[Finding, ...] = ()


def grade_as_authors(
    text: str, *, cards: Sequence[str], numbers: Sequence[int], target: int = 24, modality: str = "text"
) -> Verdict:
    """Grade a response under the profile ``authors``; never raises for any text.

    Args:
        text: What the model wrote.
        cards: The cards dealt, as ranks (a suit may follow).
        numbers: What they count.
        target: The value to reach.
        modality: "image" if wrong cards end the grading, else "text".

    Returns:
        The verdict, with the details that `answer.Answer.claims` gives and the remarks on the formula.

    Raises:
        SftrlError: if there are more than `MAX_NUMBERS` numbers.
    """
    if len(numbers) > MAX_NUMBERS:
        raise SftrlError(f"the profile 'authors' grades up to {MAX_NUMBERS} numbers; found {len(numbers)}.")
    claimed, number, formula = _read(text)
    cut = formula.partition("=")[0] if isinstance(formula, str) else None
    details = Answer(claimed, number, cut).claims(cards, numbers)
    if modality == "image" and not details["recognized"]:
        score = Score(WRONG_CARDS, "cards_not_recognized", "The answer does not name the cards shown.")
    elif formula is None:
        feedback = "The response holds no formula in the form asked for."
        score = Score(ILLEGAL, "unparsable", feedback, (Finding("illegal_characters"),))
    elif cut is None:
        feedback = "The formula in the answer is not a text."
        score = Score(ILLEGAL, "unparsable", feedback, (Finding("illegal_characters"),))
    else:
        score = score_formula(cut, numbers, target)
    return Verdict(score.outcome, score.reward, score.feedback, details, score.findings)


def score_formula(formula: str, numbers: Sequence[int], target: int = 24) -> Score:
    """Grade the text of a formula, already cut at its first ``=``: steps 3 to 6 of the module's list."""
    formula = formula[:MAX_LENGTH]
    if not _ALPHABET.fullmatch(formula):
        outcome = "illegal_formula" if is_attempt(formula) else "unparsable"
        feedback = "The formula may hold only digits, + - * / and parentheses."
        return Score(ILLEGAL, outcome, feedback, (Finding("illegal_characters"),))
    tokens = _TOKEN.findall(formula)
    misplaced = _misplaced(tokens)
    errors = _number_errors(tokens, numbers)
    if misplaced or errors:
        outcome = "illegal_formula" if misplaced else "wrong_numbers"
        clauses = [f"{len(misplaced)} of its symbols stand where they may not"] if misplaced else []
        clauses += [_NUMBER_CLAUSES[error.name] for error in errors]
        reward = ILLEGAL * len(misplaced) + WRONG_NUMBERS * len(errors)
        feedback = f"The formula is not accepted: {'; '.join(clauses)}."
        return Score(reward, outcome, feedback, (*misplaced, *errors))
    value, raised = python_value(tokens)
    if not raised and value == target:
        return Score(CORRECT, "correct", f"The formula equals {target}.", (Finding("equals_target"),))
    solutions = authors_solutions(numbers, target)
    if raised and _begins(formula, solutions):
        feedback = "The formula is the beginning of a solution, but it is not complete."
        return Score(PARTIAL, raised, feedback, (Finding("begins_solution"),))
    outcome = raised or "wrong_value"
    start = ""
    for token in tokens:
        before, start = start, start + token
        if not _begins(start, solutions):
            left = Finding("leaves_solutions", {"start": before})
            finding = left if before else Finding("matches_no_solution")
            return Score(NO_SOLUTION, outcome, f"No solution begins with {start}.", (finding,))
    return Score(0.0, outcome, f"The formula equals {value} in floating point, not {target}.")


def python_value(tokens: Sequence[str]) -> tuple[float, str]:
    """The value that Python itself gives a formula, and what is wrong if evaluating it raises.

    Integers stay exact under + - *, and / gives a float. The tokens must obey the neighbour rules.

    Returns:
        The value, and "" or the outcome of a formula that raises: "illegal_formula" (a parenthesis is not
        closed, an operator is last, a number starts with a superfluous 0, a digit is not ASCII, the nesting
        is too deep), or "wrong_value" (it divides by zero or overflows).
    """
    depth = deepest = 0
    for token in tokens:
        depth += (token == "(") - (token == ")")
        deepest = max(deepest, depth)
        if token[0] == "0" and token.strip("0"):
            return 0, "illegal_formula"
    parsed = parse("".join(tokens))
    if deepest > _NESTING or not parsed.legal:
        return 0, "illegal_formula"
    stack: list[float] = []
    try:
        for item in parsed.postfix:
            if isinstance(item, int):
                stack.append(item)
                continue
            right, left = stack.pop(), stack.pop()
            stack.append(_OPERATORS[item](left, right))
    except ArithmeticError:
        return 0, "wrong_value"
    return stack[0], ""


def authors_solutions(numbers: Sequence[int], target: int = 24) -> tuple[str, ...]:
    """The solution texts of step 6, sorted; kept from call to call.

    Raises:
        SftrlError: if there are more than `MAX_NUMBERS` numbers.
    """
    if len(numbers) > MAX_NUMBERS:
        raise SftrlError(f"the solutions of up to {MAX_NUMBERS} numbers are tabled; found {len(numbers)}.")
    return _solutions(tuple(sorted(numbers)), target)


@lru_cache(maxsize=4096)
def _solutions(hand: tuple[int, ...], target: int) -> tuple[str, ...]:
    """All orders (rows of the arrays) and all choices of operators (columns) at once, one shape at a time."""
    size = len(hand)
    shapes: list[tuple[tuple[int, int], ...]] = [()]
    shapes += [((i, j),) for i in range(size) for j in range(i + 1, size) if j - i + 1 < size]
    shapes += [((0, 1), (2, 3))] if size >= 4 else []
    orders = sorted(set(permutations(hand)))
    choices = list(product("+-*/", repeat=size - 1))
    # Unreduced numerators and denominators that could overflow 64 bits are kept as Python's integers.
    bound = (abs(target) + 1) * prod(number + 1 for number in hand) ** 2
    kind = np.int64 if bound < 2**62 else np.object_
    values = [
        (np.array(column, dtype=kind)[:, None], np.ones((1, 1), kind)) for column in zip(*orders, strict=True)
    ]
    ops = [np.array(column)[None, :] for column in zip(*choices, strict=True)]
    solutions: list[str] = []
    for shape in shapes:
        row, between = list(values), list(ops)
        # From the right, so that the indices of the pair on the left stay valid.
        for i, j in reversed(shape):
            row[i : j + 1] = [_row_value(row[i : j + 1], between[i:j])]
            del between[i:j]
        top, bottom = _row_value(row, between)
        hits = np.nonzero(
            np.broadcast_to((bottom != 0) & (top == target * bottom), (len(orders), len(choices)))
        )
        solutions += [_shape_text(orders[i], choices[k], shape) for i, k in zip(*hits, strict=True)]
    return tuple(sorted(solutions))


def _row_value(values: Sequence[Ratio], ops: Sequence[Array]) -> Ratio:
    """The exact value of a row without parentheses, elementwise; a zero denominator says it divides by zero.

    A sum is kept beside the product that is being read; that product joins it at each + or -.
    """
    top, bottom = values[0]
    zero = np.zeros_like(top)
    # The value read so far is total / below + sign * top / bottom. In the loop the sum is updated before the
    # product, because it takes in the product that ends there.
    total, below, sign, valid = zero, zero + 1, zero + 1, bottom != 0
    for op, (a, b) in zip(ops, values[1:], strict=True):
        adds, divides = (op == "+") | (op == "-"), op == "/"
        valid = valid & (b != 0) & ~(divides & (a == 0))
        total = np.where(adds, total * bottom + sign * top * below, total)
        below = np.where(adds, below * bottom, below)
        sign = np.where(adds, np.where(op == "+", 1, -1), sign)
        top = np.where(adds, a, np.where(divides, top * b, top * a))
        bottom = np.where(adds, b, np.where(divides, bottom * a, bottom * b))
    return total * bottom + sign * top * below, np.where(valid, below * bottom, 0)


def _shape_text(order: Sequence[int], ops: Sequence[str], shape: Sequence[tuple[int, int]]) -> str:
    terms = [str(number) for number in order]
    for i, j in shape:
        terms[i] = "(" + terms[i]
        terms[j] += ")"
    return "".join(word + op for word, op in zip(terms, [*ops, ""], strict=True))


def _begins(start: str, solutions: Sequence[str]) -> bool:
    """True if a text is the beginning of one of the sorted solutions."""
    index = bisect_left(solutions, start)
    return index < len(solutions) and solutions[index].startswith(start)


def _misplaced(tokens: Sequence[str]) -> list[Finding]:
    """The tokens that break a rule of step 4, in order."""
    misplaced: list[Finding] = []
    opened = 0
    after_operand = False  # the token before is a number or ")"
    for token in tokens:
        if token == ")":
            if after_operand and opened:
                opened -= 1
            else:
                misplaced.append(Finding("closing_unmatched" if after_operand else "closing_misplaced"))
            after_operand = True
        elif token in "+-*/":
            if not after_operand:
                misplaced.append(Finding("operator_misplaced"))
            after_operand = False
        else:  # a number or "("
            if after_operand:
                misplaced.append(Finding("opening_misplaced" if token == "(" else "number_misplaced"))
            if token == "(":
                opened += not after_operand
            after_operand = token != "("
    return misplaced


_NUMBER_CLAUSES = {
    "numbers_not_given": "it uses a number that is not given",
    "numbers_too_often": "it uses a number too often",
    "numbers_left_out": "it leaves a number out",
}


def _number_errors(tokens: Sequence[str], numbers: Sequence[int]) -> list[Finding]:
    """One finding for each deduction of step 5, its numbers in the order of the formula or of the hand."""
    used = Counter(_number(token) for token in tokens if token[0].isdecimal())
    given = Counter(numbers)
    foreign = [number for number in used if number not in given]
    repeated = [number for number in used if used[number] > given[number]]
    unused = [number for number in given if given[number] > used[number]]
    errors = []
    if foreign:
        errors.append(Finding("numbers_not_given", {"used": _listed(foreign)}))
    elif repeated:
        errors.append(Finding("numbers_too_often", {"used": _listed(repeated)}))
    if unused:
        errors.append(Finding("numbers_left_out", {"unused": _listed(unused)}))
    return errors


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _number(token: str) -> int:
    """A number in the digits of any script; -1 for one that is too long to be given."""
    digits = token if token.isascii() else "".join(str(decimal(digit)) for digit in token)
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= 40 else -1


def _read(text: str) -> tuple[list[str] | None, list[int] | None, object]:
    """Cards and numbers as step 1 reads them, and the value of ``formula`` (None if there is none)."""
    fields = whole_json(text)
    cards = _split(fields["cards"] if "cards" in fields else _cards_text(text))
    number = _split(fields["number"] if "number" in fields else _list_text(text, "number"))
    formula = fields["formula"] if "formula" in fields else first_quoted(text, "formula")
    if formula is None and "formula" in fields:
        formula = ()  # a null: there, and no text
    integers = number is not None and all(item.isdecimal() and len(item) <= 9 for item in number)
    return cards, [int(item) for item in number or ()] if integers else None, formula


def _list_text(text: str, key: str) -> str | None:
    """The inside of the first list of this key that is not empty."""
    opening = f'"{key}": ['
    position = text.find(opening)
    while position >= 0:
        start = position + len(opening)
        end = text.find("]", start)
        if end != start:
            return None if end < 0 else text[start:end]
        position = text.find(opening, position + 1)
    return None


def _cards_text(text: str) -> str | None:
    """The inside of the list of cards; None if its items are integers separated by comma and blank."""
    inside = _list_text(text, "cards")
    if inside is None:
        return None
    try:
        for item in inside.split(", "):
            _ = python_int(item)
    except ValueError:
        return inside
    return None


def _split(value: object) -> list[str] | None:
    """The four items of a list that is written as a text; None for anything else."""
    if not isinstance(value, str):
        return None
    for sign in "[]' ":
        value = value.replace(sign, "")
    items = value.split(",", 4)
    return items if len(items) == 4 else None

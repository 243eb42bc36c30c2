"""Independent judge of GeneralPoints answers, from the task as arXiv 2501.17161 states it.

It shares no code with the product: JSON is read by the standard library, and a formula by Python's own
parser, whose tree may hold whole numbers, the four operators and nothing else, evaluated in fractions. A
response is judged only where the paper's text is unambiguous: it is one JSON object with a ``formula``.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

CORRECT, WRONG_VALUE, WRONG_NUMBERS, ILLEGAL, NOT_RECOGNIZED = 5.0, -1.0, -2.0, -3.0, -1.5
"""Rewards of the paper's appendix A.3."""

RANKS = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K")

_RUN = re.compile(r"[0-9+\-*/() \t\r\n]+")
_ZEROS = re.compile(r"\b0+(?=[0-9])")


def judge_formula(formula: str, numbers: Sequence[int], target: int) -> float:
    """Reward of a formula; what follows its first ``=`` is not part of it."""
    text = formula.split("=", 1)[0]
    if not _RUN.fullmatch(text):
        return ILLEGAL
    # Python's parser refuses leading zeros, and takes a line break for the end of an expression.
    text = _ZEROS.sub("", re.sub(r"\s", " ", text)).strip()
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError:
        return ILLEGAL
    used: list[int] = []
    if not _is_legal(tree, used):
        return ILLEGAL
    if sorted(used) != sorted(numbers):
        return WRONG_NUMBERS
    try:
        return CORRECT if _value(tree) == target else WRONG_VALUE
    except ZeroDivisionError:
        return WRONG_VALUE


def judge_response(
    text: str, cards: Sequence[str], numbers: Sequence[int], target: int, image: bool
) -> float | None:
    """Reward of a response; None where the paper does not say how it is read."""
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(answer, dict) or [key.strip().lower() for key in answer].count("formula") != 1:
        return None
    formula = answer.get("formula")
    if not isinstance(formula, str) or not re.search("[0-9]", formula.split("=", 1)[0]):
        return None
    if image:
        shown = answer.get("cards")
        if not isinstance(shown, list) or not all(card in RANKS for card in map(str, shown)):
            return None
        if sorted(map(str, shown)) != sorted(cards):
            return NOT_RECOGNIZED
    return judge_formula(formula, numbers, target)


def holds_solution(text: str, numbers: Sequence[int], target: int) -> bool:
    """True if a solution stands anywhere in a text, so that a reader could take it for the answer."""
    return any(judge_formula(run, numbers, target) == CORRECT for run in _runs(text))


def _runs(text: str) -> Iterator[str]:
    """Stretches of a text, or of one line, that hold nothing but characters of formulas.

    Also of the text with its escapes undone.
    """
    for source in (text, re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), text)):
        for plain in (source, re.sub(r"\\[ntr]", " ", source), re.sub(r"\\(.)", r"\1", source)):
            for part in (plain, *plain.splitlines()):
                yield from _RUN.findall(part)


def _is_legal(tree: ast.expr, used: list[int]) -> bool:
    """Collect the numbers of an expression; False if it holds anything but numbers and ``+ - * /``."""
    if isinstance(tree, ast.Constant) and type(tree.value) is int:
        used.append(tree.value)
        return True
    return (
        isinstance(tree, ast.BinOp)
        and isinstance(tree.op, (ast.Add, ast.Sub, ast.Mult, ast.Div))
        and _is_legal(tree.left, used)
        and _is_legal(tree.right, used)
    )


def _value(tree: ast.expr) -> Fraction:
    if isinstance(tree, ast.Constant):
        return Fraction(tree.value)  # type: ignore[arg-type]
    assert isinstance(tree, ast.BinOp)
    left, right = _value(tree.left), _value(tree.right)
    if isinstance(tree.op, ast.Add):
        return left + right
    if isinstance(tree.op, ast.Sub):
        return left - right
    return left * right if isinstance(tree.op, ast.Mult) else left / right

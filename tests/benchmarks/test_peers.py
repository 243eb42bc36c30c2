"""The comparison with other packages: its table, and the answers it judges verifiers by."""

import ast
from fractions import Fraction

import pytest

from benchmarks import peers
from benchmarks.peer_verifiers import PUZZLES, our_verifier
from sftrl_ext.files import read_json

OPERATORS = {
    ast.Add: Fraction.__add__,
    ast.Sub: Fraction.__sub__,
    ast.Mult: Fraction.__mul__,
    ast.Div: Fraction.__truediv__,
}


def test_the_table_is_that_of_the_stored_results():
    readme = peers.README.read_text(encoding="utf-8")
    assert peers.with_table(readme, read_json(peers.STORED)) == readme


def value(node, numbers):
    match node:
        case ast.BinOp():
            return OPERATORS[type(node.op)](value(node.left, numbers), value(node.right, numbers))
        case ast.Constant(int(number)):
            numbers.append(number)
            return Fraction(number)
    raise KeyError(node)


def solves(text, puzzle):
    """Python's own grammar as a second opinion: an expression of the four operators over the numbers."""
    numbers = []
    try:
        reached = value(ast.parse(text.strip(), mode="eval").body, numbers)
    except (KeyError, SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    # Python reads a hexadecimal number and a comment too.
    plain = not set(text) & set("x#")
    return plain and reached == puzzle.target and sorted(numbers) == sorted(puzzle.numbers)


@pytest.mark.parametrize("puzzle", PUZZLES, ids=lambda puzzle: f"{puzzle.dataset} {puzzle.numbers}")
def test_answers_are_right_and_wrong_as_stated(puzzle):
    accepts = our_verifier()
    for text in puzzle.right.values():
        assert solves(text, puzzle) and accepts(text, puzzle.numbers, puzzle.target), text
    for name, text in puzzle.wrong.items():
        assert not solves(text, puzzle) and not accepts(text, puzzle.numbers, puzzle.target), name

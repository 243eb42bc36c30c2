"""The working of a formula: every step is true, and the last one is the formula's value."""

from __future__ import annotations

import ast
import operator
from collections import Counter
from fractions import Fraction
from itertools import combinations_with_replacement

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftrl_ext.envs.general_points.cards import RANKS
from sftrl_ext.envs.general_points.formula import parse
from sftrl_ext.envs.general_points.rules import RULES
from sftrl_ext.envs.general_points.solver import solve
from sftrl_ext.envs.general_points.working import calculations
from sftrl_ext.errors import SftrlError

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def as_python_reads(text):
    """The exact value of one side of a step, by Python's grammar: signs, precedence and all."""

    def walk(node):
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return Fraction(node.value)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return -walk(node.operand)
        assert isinstance(node, ast.BinOp)
        return OPERATORS[type(node.op)](walk(node.left), walk(node.right))

    return walk(ast.parse(text, mode="eval").body)


def check(formula, numbers, value):
    """Each step is true as it is written, takes numbers that are there, and leaves its result there."""
    there = Counter(map(Fraction, numbers))
    steps = calculations(formula)
    for step in steps:
        left, _, right = str(step).partition("=")
        assert as_python_reads(left) == as_python_reads(right) == step.value, str(step)
        for operand in (step.left, step.right):
            assert there[operand] > 0, f"{step} of {formula}"
            there[operand] -= 1
        there[step.value] += 1
    assert +there == Counter([value])
    assert Counter(step.operator for step in steps) == Counter(c for c in formula if c in "+-*/")


@pytest.mark.parametrize(
    ("formula", "texts"),
    [
        ("(10-4)*(6-2)=24", ["10-4=6", "6-2=4", "6*4=24"]),
        ("10+5*2+4", ["5*2=10", "10+10=20", "20+4=24"]),
        ("8/(3-8/3)", ["8/3=8/3", "3-(8/3)=1/3", "8/(1/3)=24"]),
        ("4-5*(5-9)", ["5-9=-4", "5*(-4)=-20", "4-(-20)=24"]),
        ("(2-6)*(3-9)", ["2-6=-4", "3-9=-6", "(-4)*(-6)=24"]),
        ("(4/10-(8-10))*10", ["4/10=2/5", "8-10=-2", "(2/5)-(-2)=12/5", "(12/5)*10=24"]),
        ("24", []),
    ],
)
def test_steps_in_the_order_the_formula_needs_them(formula, texts):
    assert [str(step) for step in calculations(formula)] == texts


@pytest.mark.parametrize("rule", ["face_10", "face_11_12_13"])
def test_the_solutions_of_every_hand_have_true_steps(rule):
    hands = {
        tuple(sorted(map(RULES[rule].number, ranks))) for ranks in combinations_with_replacement(RANKS, 4)
    }
    checked = 0
    for numbers in sorted(hands):
        solutions = solve(numbers)
        for formula in {*solutions[:1], *solutions[-1:], *solutions[:: max(1, len(solutions) // 3)]}:
            check(formula, numbers, 24)
            checked += 1
    assert checked > {"face_10": 1500, "face_11_12_13": 3500}[rule]


def test_five_cards_and_other_targets():
    for numbers, target in (((1, 5, 7, 10, 10), 24), ((4, 8, 10, 10, 10), 24), ((2, 3, 5, 19), 36)):
        for formula in solve(numbers, target)[::7]:
            check(formula, numbers, target)


formulas = st.recursive(
    st.integers(0, 30).map(str),
    lambda part: st.tuples(part, st.sampled_from("+-*/"), part).map(lambda p: f"({p[0]}{p[1]}{p[2]})"),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(formulas)
def test_any_formula_with_a_value_has_true_steps(formula):
    parsed = parse(formula)
    value = parsed.value()
    if value is None:
        with pytest.raises(SftrlError, match="divides by zero"):
            calculations(formula)
    else:
        check(formula, parsed.numbers, value)


@pytest.mark.parametrize(
    ("formula", "words"), [("1+", "ends where a number should follow"), ("x", "'x'"), ("1/(2-2)", "by zero")]
)
def test_what_has_no_working(formula, words):
    with pytest.raises(SftrlError, match=words):
        calculations(formula)

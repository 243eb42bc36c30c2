"""The formula parser: total, bounded, exact."""

from __future__ import annotations

import ast
import operator
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sftrl_ext.envs.general_points.formula import MAX_LENGTH, Formula, evaluate_postfix, is_attempt, parse

pytestmark = pytest.mark.filterwarnings("ignore::SyntaxWarning")

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


def python_exact(text):
    """What Python's own grammar makes of a text, with rationals; raises where Python does."""

    def walk(node):
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return Fraction(node.value)
        if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
            return OPERATORS[type(node.op)](walk(node.left), walk(node.right))
        raise SyntaxError("not one of our formulas")

    return walk(ast.parse(text.strip(), mode="eval").body)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("8/(3-8/3)", 24),
        ("8/(3-8/3)=24", 24),
        ("8/(3-8/3) = 24 because", 24),
        ("(1+2)*8=25", 24),
        (" 1 +\t2\n* 3 ", 7),
        ("10-3-2", 5),
        ("2*6/3/2", 2),
        ("2-(3-4)", 3),
        ("((((7))))", 7),
        ("1/3", Fraction(1, 3)),
        ("08+1", 9),
        ("1/(2-2)", None),
        ("0/(3-3)+1", None),
    ],
)
def test_values(text, value):
    assert parse(text).legal
    assert parse(text).value() == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "=24",
        "()",
        "(",
        ")",
        "1)",
        "(1",
        "1+",
        "+1",
        "-1",
        "1--1",
        "2**3",
        "6//2",
        "2(3)",
        "(2)(3)",
        "(2)3",
    ]
    + ["1 2", "1+(", "1+)", "3×8", "3÷8", "3−8", "３*8", "٣*8", "3*8;", "1.5*2", "1e3", "0x10", "1_0"]
    + [
        "a",
        "None",
        "__import__('os')",
        "3*8\x00",
        "3\u00a0*8",
        "\ud800",
        "3^2",
        "[3]*8",
        "1,2",
        "²",
        "3 % 2",
    ],
)
def test_illegal(text):
    parsed = parse(text)
    assert not parsed.legal
    assert parsed.problem
    assert parsed.numbers == ()


@given(st.text())
def test_any_text_is_parsed_or_has_a_problem(text):
    parsed = parse(text)
    assert isinstance(parsed, Formula)
    assert parsed.legal == (parsed.numbers != ()) == (not parsed.problem)
    is_attempt(text)


@settings(max_examples=300)
@given(st.text(alphabet="0123456789+-*/() ", max_size=24))
@example("1+(2)")
def test_agrees_with_pythons_grammar(text):
    """On our alphabet Python also knows signs, powers, calls and floor division; else the two agree."""
    parsed = parse(text)
    try:
        expected = python_exact(text)
    except ZeroDivisionError:
        expected = None
    except SyntaxError:
        zeros = any(
            n[0] == "0" and n.strip("0") for n in "".join(c if c.isdigit() else " " for c in text).split()
        )
        assert not parsed.legal or zeros
        return
    assert parsed.legal
    assert parsed.value() == expected


@pytest.mark.parametrize(
    "text",
    [
        "(" * 100_000,
        "(" * 100_000 + "1" + ")" * 100_000,
        "9" * 10_000_000,
        "1+" * 1_000_000 + "1",
        " " * 10_000_000,
    ]
    + [
        "9" * MAX_LENGTH,
        "9*" * (MAX_LENGTH // 2 - 1) + "9",
        "1/9-" * (MAX_LENGTH // 4 - 1) + "1",
        "=" * 10_000_000,
    ]
    + ["(" * 1999 + "7" + ")" * 1999, "１" * 10_000_000, "7=" + "(" * 10_000_000],
    ids=lambda text: f"{text[:4]}-{len(text)}",
)
def test_long_texts_do_bounded_work(text):
    parsed = parse(text)
    assert len(parsed.postfix) <= MAX_LENGTH
    if parsed.legal:
        parsed.ratio()


def test_a_long_number_is_a_number():
    assert parse("7" * 3000).legal
    assert parse("1" + "0" * 3000 + "/1" + "0" * 900).value() == 10**2100


def test_nesting_up_to_the_cap_needs_no_recursion():
    assert parse("(" * 1999 + "7" + ")" * 1999).value() == 7


@pytest.mark.parametrize("postfix", [(), (1, 2), (1, "+"), ("+",), (1, 2, "+", "*")])
def test_not_a_formula_in_postfix(postfix):
    with pytest.raises(ValueError, match="postfix"):
        evaluate_postfix(postfix)


def test_an_illegal_formula_has_no_value():
    with pytest.raises(ValueError, match="postfix"):
        parse("(").value()


def test_prose_is_no_attempt():
    assert not is_attempt("I do not know")
    assert not is_attempt("")
    assert not is_attempt(" =24")
    assert is_attempt("(((")
    assert is_attempt("x+1")

"""Countdown against a brute-force oracle that shares no code with it."""

from __future__ import annotations

import ast
from fractions import Fraction
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftrl_ext.envs import make_episode
from sftrl_ext.envs.countdown.numbers import is_solvable, solve
from sftrl_ext.envs.countdown.prompts import load_template
from sftrl_ext.errors import SftrlError

SMALL = st.lists(st.integers(0, 12), min_size=1, max_size=3)
OPERATORS = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def reachable(values):
    """Every value that uses all of some numbers, by combining two of them in every way."""
    if len(values) == 1:
        return set(values)
    results = set()
    for i, a in enumerate(values):
        for j, b in enumerate(values):
            if i == j:
                continue
            rest = [value for k, value in enumerate(values) if k not in (i, j)]
            for combined in (a + b, a - b, a * b, *([a / b] if b else [])):
                results |= reachable([*rest, combined])
    return results


def oracle(numbers, use):
    """Every value that a formula may have."""
    fractions = [Fraction(number) for number in numbers]
    if use == "all":
        return reachable(fractions)
    subsets = {order[:size] for order in permutations(fractions) for size in range(1, len(fractions) + 1)}
    return set().union(*(reachable(list(subset)) for subset in subsets))


def judged(formula, numbers, target, use):
    """True if a formula is right, by Python's own parser."""
    used = []

    def value(node):
        if isinstance(node, ast.Constant):
            used.append(node.value)
            return Fraction(node.value)
        return OPERATORS[type(node.op)](value(node.left), value(node.right))

    try:
        result = value(ast.parse(formula, mode="eval").body)
    except ZeroDivisionError:
        return False
    left = list(numbers)
    try:
        for number in used:
            left.remove(number)
    except ValueError:
        return False
    return result == target and (use == "any" or not left)


@settings(max_examples=60, deadline=None)
@given(SMALL, st.integers(0, 40), st.sampled_from(["all", "any"]))
def test_the_solver_finds_what_brute_force_finds(numbers, target, use):
    formulas = solve(numbers, target, use)
    assert bool(formulas) == is_solvable(numbers, target, use) == (target in oracle(numbers, use))
    assert all(judged(formula, numbers, target, use) for formula in formulas)


def formulas(numbers):
    """Formulas over some of the numbers, right or wrong, and of numbers that were not given."""
    leaf = st.sampled_from([*numbers, 7]).map(str)
    tree = st.recursive(leaf, lambda e: st.tuples(e, st.sampled_from("+-*/"), e).map(_joined), max_leaves=4)
    return tree


def _joined(parts):
    left, operator, right = parts
    return f"({left}){operator}({right})"


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_the_grade_is_that_of_an_independent_judge(data):
    numbers = data.draw(st.lists(st.integers(1, 12), min_size=2, max_size=4))
    formula = data.draw(formulas(numbers))
    target = data.draw(st.integers(0, 30))
    use = data.draw(st.sampled_from(["all", "any"]))
    episode = make_episode({"task": "countdown", "numbers": numbers, "target": target, "use": use})
    step = episode.submit(f'{{"formula": "{formula}={target}"}}')
    assert step.terminated == judged(formula, numbers, target, use)


@pytest.mark.parametrize(
    ("use", "answer", "outcome"),
    [
        ("all", '{"formula": "44+19-35=28"}', "correct"),
        ("all", "<think>44-35?</think> <answer> 44 + 19 - 35 </answer>", "correct"),
        ("all", "<answer>9</answer><answer>(44+19-35", "illegal_formula"),
        ("all", '{"formula": "44-35"}', "wrong_numbers"),
        ("any", '{"formula": "44-35"}', "wrong_value"),
        ("any", '{"formula": "44+44"}', "wrong_numbers"),
        ("any", "no idea", "unparsable"),
    ],
)
def test_a_response_has_one_outcome(use, answer, outcome):
    episode = make_episode({"task": "countdown", "numbers": [44, 19, 35], "target": 28, "use": use})
    assert episode.submit(answer).attempt.verdict.outcome == outcome
    assert episode.metrics()[f"outcome/{outcome}"] == 1.0


def test_a_game_ends_with_its_attempts_and_is_rebuilt_from_its_facts():
    facts = {"task": "countdown", "numbers": [3, 4, 5], "target": 12, "max_attempts": 2}
    episode = make_episode(facts)
    first, last = episode.submit('{"formula": "3+4+5=11"}'), None
    assert first.terminated  # what stands after = is not read
    episode = make_episode(episode.facts)
    first, last = episode.submit("?"), episode.submit('{"formula": "3*4"}')
    assert (first.reward, last.reward, last.truncated) == (-3.0, -3.0, True)
    assert "exactly once" in last.attempt.verdict.feedback
    with pytest.raises(RuntimeError):
        episode.submit("?")


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"target": 3}, "facts: numbers are None"),
        ({"numbers": [1, 2.5], "target": 3}, "expected 1 to 6 whole numbers"),
        ({"numbers": [1, 2], "target": True}, "target is True"),
        ({"numbers": [1, 2], "target": 3, "use": "some"}, "Known: all, any"),
        ({"numbers": [1, 2], "target": 3, "cards": []}, "unknown fact 'cards'"),
        ({"numbers": [1, 2], "target": 3, "max_attempts": 0}, "max_attempts is 0"),
        ({"numbers": [1, 2], "target": 3, "template": "defualt"}, "Did you mean 'default'"),
    ],
)
def test_broken_facts_are_refused(facts, words):
    with pytest.raises(SftrlError, match=words):
        make_episode({"task": "countdown", **facts})


def test_a_template_of_a_users_says_how_numbers_are_used(tmp_path):
    path = tmp_path / "mine.yaml"
    texts = ("prompt: $numbers make $target. $use", "feedback: {otherwise: $verdict}", "uses: {any: Some.}")
    path.write_text("\n".join(texts))
    facts = {"task": "countdown", "numbers": [1, 2], "target": 3, "template": str(path)}
    [all_numbers] = make_episode(facts).messages()
    [some] = make_episode({**facts, "use": "any"}).messages()
    assert all_numbers["content"].endswith("exactly once.") and some["content"].endswith("Some.")
    assert load_template("default").answer("1+2", 3) == '{"formula": "1+2=3"}'

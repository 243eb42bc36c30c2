"""The solver against enumerations that share nothing with it."""

from __future__ import annotations

import ast
import random
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftrl_ext.envs.general_points.formula import parse
from sftrl_ext.envs.general_points.solver import is_solvable, iter_solutions, solve
from sftrl_ext.errors import SftrlError


def trees(row):
    """Every binary tree over a row of numbers."""
    if len(row) == 1:
        yield row[0]
        return
    for cut in range(1, len(row)):
        for left in trees(row[:cut]):
            for right in trees(row[cut:]):
                for op in "+-*/":
                    yield op, left, right


def value_of(tree):
    """Exact value of a tree, None when it divides by zero."""
    if isinstance(tree, int):
        return Fraction(tree)
    op, left, right = tree
    a, b = value_of(left), value_of(right)
    if a is None or b is None or (op == "/" and b == 0):
        return None
    return a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else a / b


@cache
def reachable(hand):
    """All values of a sorted hand: replace any two by a result, down to one."""
    if len(hand) == 1:
        return {hand[0]}
    found = set()
    for i in range(len(hand)):
        for j in range(len(hand)):
            if i != j:
                a, b = hand[i], hand[j]
                rest = [hand[k] for k in range(len(hand)) if k not in (i, j)]
                results = {a + b, a - b, a * b} | ({a / b} if b else set())
                for result in results:
                    found |= reachable(tuple(sorted([*rest, result])))
    return found


def fully_bracketed(tree, names):
    """Text with a pair of parentheses around every operation, numbers replaced by numbered names."""
    if isinstance(tree, int):
        names.append(tree)
        return [f"v{len(names) - 1}"]
    op, left, right = tree
    return ["(", *fully_bracketed(left, names), op, *fully_bracketed(right, names), ")"]


POINTS = [
    [Fraction(7919, 13), Fraction(-104729, 17), Fraction(1299709, 19), Fraction(-15485863, 23)],
    [Fraction(3, 1009), Fraction(5, 1013), Fraction(-11, 1019), Fraction(13, 1021)],
]


def fingerprint(tokens):
    """Values of a text at two points far from any identity: equal means the same function."""
    node = ast.parse("".join(tokens), mode="eval").body
    return [walk(node, point) for point in POINTS]


def walk(node, point):
    if isinstance(node, ast.Name):
        return point[int(node.id[1:])]
    a, b = walk(node.left, point), walk(node.right, point)
    if isinstance(node.op, ast.Add):
        return a + b
    if isinstance(node.op, ast.Sub):
        return a - b
    return a * b if isinstance(node.op, ast.Mult) else a / b


def without_redundant(tokens):
    """Drop pairs of parentheses while the text stays the same function of its numbers."""
    meaning = fingerprint(tokens)
    place = 0
    while place < len(tokens):
        if tokens[place] == "(":
            depth = 0
            for end in range(place, len(tokens)):
                depth += (tokens[end] == "(") - (tokens[end] == ")")
                if depth == 0:
                    break
            shorter = tokens[:place] + tokens[place + 1 : end] + tokens[end + 1 :]
            if fingerprint(shorter) == meaning:
                tokens, place = shorter, 0
                continue
        place += 1
    return tokens


@cache
def plain_shapes(size):
    """For each tree over v0..v3, its text without redundant parentheses."""
    shapes = {}
    for tree in trees(tuple(range(size))):
        shapes[tree] = "".join(without_redundant(fully_bracketed(tree, [])))
    return shapes


def brute_force(hand, target):
    found = set()
    for order in set(permutations(hand)):
        for tree, text in plain_shapes(len(hand)).items():
            if value_of(relabel(tree, order)) == target:
                for i, number in enumerate(order):
                    text = text.replace(f"v{i}", f"<{number}>")
                found.add(text.replace("<", "").replace(">", ""))
    return found


def relabel(tree, order):
    if isinstance(tree, int):
        return order[tree]
    return tree[0], relabel(tree[1], order), relabel(tree[2], order)


@pytest.mark.parametrize(
    ("hand", "target"),
    [((3, 3, 8, 8), 24), ((1, 2, 3, 4), 24), ((10, 5, 2, 4), 24), ((2, 2, 4, 6), 24), ((13, 11, 1, 7), 24)]
    + [((0, 4, 6, 1), 24), ((0, 0, 1, 2), 0), ((14, 19, 17, 2), 24), ((1, 1, 5, 6), -3), ((2, 3, 4), 24)],
)
def test_agrees_with_every_tree_stripped_of_redundant_parentheses(hand, target):
    """All orders, all trees, parentheses dropped by algebra: the same set of texts."""
    found = solve(hand, target)
    assert len(found) == len(set(found))
    assert set(found) == brute_force(hand, target)


def test_the_hard_hands():
    assert solve([3, 3, 8, 8]) == ["8/(3-8/3)"]
    assert solve([8, 3, 8, 3]) == ["8/(3-8/3)"]
    assert "(5-1/5)*5" in solve([1, 5, 5, 5])
    assert "5*(5-1/5)" in solve([1, 5, 5, 5])


def test_what_redundant_means():
    assert solve([1, 2], 3) == ["1+2", "2+1"]
    assert [text for text in solve([1, 2, 3], 6) if "(" in text] == ["2/(1/3)", "3/(1/2)"]
    products = solve([2, 3, 6], 4)
    assert "6*2/3" in products
    assert "6/(3/2)" in products
    assert not any("*(" in text for text in products)
    assert "1-(2-3)" in solve([1, 2, 3], 2)
    assert "1-2+3" in solve([1, 2, 3], 2)
    assert "12/(2*3)" in solve([2, 3, 12], 2)
    assert "12/2/3" in solve([2, 3, 12], 2)


def test_which_value_multisets_are_solvable():
    """566 of 715 under face_10, and each one agrees with an independent search."""
    hands = list(combinations_with_replacement(range(1, 11), 4))
    assert len(hands) == 715
    solvable = [hand for hand in hands if is_solvable(hand)]
    assert len(solvable) == 566
    assert solvable == [hand for hand in hands if solve(hand)]
    for hand in hands[::7]:
        assert is_solvable(hand) == (24 in reachable(tuple(map(Fraction, hand))))


def test_which_rank_multisets_are_solvable():
    hands = list(combinations_with_replacement(range(1, 14), 4))
    assert len(hands) == 1820
    assert sum(is_solvable([min(rank, 10) for rank in hand]) for hand in hands) == 1236
    assert sum(is_solvable(hand) for hand in hands) == 1362
    faces = [hand for hand in hands if hand[-1] > 10]
    assert len(faces) == 1105
    assert sum(is_solvable(hand) for hand in faces) == 796


@pytest.mark.slow
def test_all_solutions_of_all_card_hands():
    """Every hand of 1..10: texts distinct, sorted, and equal to the trees' texts."""
    for hand in combinations_with_replacement(range(1, 11), 4):
        if sum(hand) % 9 == 0:
            assert set(solve(hand)) == brute_force(hand, 24)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 19), min_size=1, max_size=4), st.integers(-5, 60))
def test_every_solution_is_one(hand, target):
    texts = solve(hand, target)
    assert texts == sorted(set(texts))
    assert bool(texts) == is_solvable(hand, target)
    for text in texts:
        parsed = parse(text)
        assert sorted(parsed.numbers) == sorted(hand)
        assert parsed.value() == target


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 13), min_size=3, max_size=3), st.integers(0, 40))
def test_three_numbers_completely(hand, target):
    assert set(solve(hand, target)) == brute_force(tuple(hand), target)


@pytest.mark.parametrize("size", [5, 6])
def test_more_numbers(size):
    rng = random.Random(size)
    for _ in range(4):
        hand = [rng.randint(1, 19) for _ in range(size)]
        values = [text for text, _ in zip(iter_solutions(hand), range(500), strict=False)]
        assert is_solvable(hand) == bool(values)
        assert len(values) == len(set(values))
        for text in values:
            assert sorted(parse(text).numbers) == sorted(hand)
            assert parse(text).value() == 24


def test_five_numbers_completely():
    """All 14 trees over 5 numbers for one small hand: the values agree, and no text is missed."""
    hand, target = (1, 1, 2, 7, 7), 24
    expected = {text for text in brute_force_values(hand, target)}
    found = solve(hand, target)
    assert {parse(text).postfix for text in found} <= expected
    assert is_solvable(hand, target) == bool(expected)
    assert target in reachable(tuple(map(Fraction, hand)))
    assert len(found) == len(set(found))
    canonical = {postfix for postfix in expected if is_canonical(postfix)}
    assert {parse(text).postfix for text in found} == canonical


def brute_force_values(hand, target):
    for order in set(permutations(hand)):
        for tree in trees(order):
            if value_of(tree) == target:
                yield tuple(postfix_of(tree))


def postfix_of(tree):
    if isinstance(tree, int):
        return [tree]
    return [*postfix_of(tree[1]), *postfix_of(tree[2]), tree[0]]


def is_canonical(postfix):
    """No sum right of +, no product right of *."""
    stack = []
    for item in postfix:
        if isinstance(item, int):
            stack.append("n")
            continue
        right = stack.pop()
        stack.pop()
        if (item == "+" and right in "+-") or (item == "*" and right in "*/"):
            return False
        stack.append(item)
    return True


def test_impossible_and_large():
    assert solve([1, 1, 1, 1]) == []
    assert not is_solvable([1, 1, 1, 1, 1, 1])
    assert len(solve([10**30, 10**30, 1], 0)) == 11
    assert solve([10**30, 10**30 + 1, 1], 2**31 - 1) == []
    assert f"{10**30}*2" in solve([10**30, 2], 2 * 10**30)
    assert solve([0, 0], 0) == ["0*0", "0+0", "0-0"]
    assert is_solvable([0, 7, 7, 7, 7, 7], 0)
    assert len(list(zip(iter_solutions([0, 1, 2, 3, 4, 5], 0), range(2000), strict=False))) == 2000


def test_limit_and_copies():
    assert len(solve([1, 2, 3, 4, 5, 6], limit=7)) == 7
    assert solve([1, 2, 3, 4], limit=0) == []
    first = solve([1, 2, 3, 4])
    first.clear()
    assert solve([4, 3, 2, 1])


@pytest.mark.parametrize(
    ("numbers", "says"),
    [([], "1 to 6"), ([1] * 7, "1 to 6"), ([1.5, 2], "integers"), ([-3, 8], "negative"), ("12", "integers")],
)
def test_wrong_input_is_explained(numbers, says):
    for function in (solve, is_solvable, iter_solutions):
        with pytest.raises(SftrlError, match=says):
            function(numbers)


def test_numpy_integers_are_integers():
    numpy = pytest.importorskip("numpy")
    assert solve(numpy.array([3, 3, 8, 8]), numpy.int64(24)) == ["8/(3-8/3)"]

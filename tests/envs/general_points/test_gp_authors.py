"""The profile ``authors`` against a plain restatement of its rules, on thousands of responses."""

from __future__ import annotations

import ast
import json
import random
import re
from fractions import Fraction
from functools import cache
from itertools import combinations_with_replacement, permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftrl_ext.envs.general_points.authors import authors_solutions, grade_as_authors, score_formula
from sftrl_ext.envs.general_points.formula import parse
from sftrl_ext.envs.general_points.solver import solve
from sftrl_ext.envs.general_points.verifier import grade_response
from sftrl_ext.errors import SftrlError

RANKS = ["A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K"]


class Raised(Exception):
    """The restated grader stops where the original would raise."""


def python_value(node, leaf):
    """Value of a formula under Python's own grammar; ``leaf`` gives the value of a number or a name."""
    if isinstance(node, (ast.Constant, ast.Name)):
        return leaf(node)
    a, b = python_value(node.left, leaf), python_value(node.right, leaf)
    if isinstance(node.op, ast.Add):
        return a + b
    if isinstance(node.op, ast.Sub):
        return a - b
    return a * b if isinstance(node.op, ast.Mult) else a / b


@cache
def patterns():
    """Seven ways to put parentheses, with all operators, as text to fill in and as parsed by Python."""
    shapes = [
        "{}{}{}{}{}{}{}",
        "({}{}{}){}{}{}{}",
        "({}{}{}{}{}){}{}",
        "{}{}({}{}{}){}{}",
        "{}{}({}{}{}{}{})",
    ]
    shapes += ["{}{}{}{}({}{}{})", "({}{}{}){}({}{}{})"]
    filled = [
        shape.format("a", x, "b", y, "c", z, "d") for shape in shapes for x, y, z in product("+-*/", repeat=3)
    ]
    return [(text, ast.parse(text, mode="eval").body) for text in filled]


@cache
def all_solutions(hand, target=24):
    """Every order of the numbers in every pattern, with rationals."""
    found = set()
    for order in set(permutations(hand)):
        names = dict(zip("abcd", order, strict=True))
        exact = {name: Fraction(number) for name, number in names.items()}
        for text, node in patterns():
            try:
                value = python_value(node, lambda leaf, exact=exact: exact[leaf.id])
            except ZeroDivisionError:
                continue
            if value == target:
                found.add("".join(str(names.get(letter, letter)) for letter in text))
    return found


def restated(text, numbers, cards, modality):
    """Reward by the rules, one after the other, without a thought for speed."""

    def look_up(key):
        try:
            whole = json.loads(text)
        except ValueError:
            whole = None
        if isinstance(whole, dict) and key in whole:
            return whole[key]
        pattern = r'"formula": "([^"\n]*)"' if key == "formula" else r'"cards": \[([^\]]+)\]'
        match = re.search(pattern, text)
        if match is None:
            return "None"
        inside = match.group(1)
        if key == "cards":
            try:
                return [int(item) for item in inside.split(", ")]
            except ValueError:
                return f"[{inside}]"
        return inside

    claimed = look_up("cards")
    claimed = re.sub(r"[\[\]' ]", "", claimed).split(",") if isinstance(claimed, str) else []
    if len(claimed) != 4:
        claimed = []
    if modality == "image" and sorted(claimed) != sorted(cards):
        return -1.5
    formula = look_up("formula")
    if not isinstance(formula, str):
        raise Raised
    formula = formula.split("=")[0]
    if re.search(r"[^\d+\-*/()]", formula):
        return -3
    reward = 0
    opened = []
    before = "start"
    tokens = re.findall(r"\d+|\D", formula)
    for token in tokens:
        kind = token if token in "()" else "operator" if token in "+-*/" else "number"
        allowed_after = {
            "number": ("start", "operator", "("),
            "operator": ("number", ")"),
            "(": ("start", "operator", "("),
            ")": ("number", ")"),
        }[kind]
        if before not in allowed_after:
            reward -= 3
        elif kind == "(":
            opened.append(token)
        elif kind == ")" and opened:
            opened.pop()
        elif kind == ")":
            reward -= 3
        before = kind
    used = [int(token) for token in tokens if token not in set("+-*/()")]
    if set(used) - set(numbers) or any(used.count(number) > numbers.count(number) for number in used):
        reward -= 2
    if any(used.count(number) < numbers.count(number) for number in numbers):
        reward -= 2
    if reward:
        return reward
    solutions = all_solutions(tuple(sorted(numbers)))
    try:
        if python_value(ast.parse(formula, mode="eval").body, lambda leaf: leaf.value) == 24:
            return 5
    except (SyntaxError, ZeroDivisionError):
        if any(solution.startswith(formula) for solution in solutions):
            return 1
    for length in range(1, len(tokens) + 1):
        if not any(solution.startswith("".join(tokens[:length])) for solution in solutions):
            return -1
    return 0


def make_hands():
    rng = random.Random(7)
    hands = [(["3", "3", "8", "8"], [3, 3, 8, 8]), (["A", "A", "A", "A"], [1, 1, 1, 1])]
    while len(hands) < 16:
        ranks = [rng.randint(1, 13) for _ in range(4)]
        counts = [min(rank, 10) for rank in ranks] if rng.random() < 0.5 else ranks
        if solve(counts):
            hands.append(([RANKS[rank - 1] for rank in ranks], counts))
    return hands


def mutate(rng, text):
    letters = list(text)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(letters) + 1)
        if letters and rng.random() < 0.3:
            letters.pop(place - 1)
        elif letters and rng.random() < 0.3:
            letters[place - 1] = rng.choice("0123456789+-*/() .a３٣²")
        else:
            letters.insert(place, rng.choice("0123456789+-*/()()=３"))
    return "".join(letters)


def random_row(rng, numbers):
    """The numbers in some order with operators, parentheses thrown in, seldom a leading zero."""
    row = ""
    for place, number in enumerate(rng.sample(numbers, len(numbers))):
        row += rng.choice("+-*/") if place else ""
        row += "(" * rng.choice([0, 0, 0, 1, 2]) + ("0" if rng.random() < 0.03 else "") + str(number)
        row += ")" * rng.choice([0, 0, 0, 1, 2])
    return row


def make_formula(rng, numbers):
    theirs = sorted(all_solutions(tuple(sorted(numbers)))) or ["1+1+1+1"]
    ours = solve(numbers) or ["1*1*1*1"]
    solution = rng.choice(theirs)
    kind = rng.randrange(8)
    if kind == 0:
        return solution
    if kind == 1:
        return rng.choice(ours)
    if kind == 2:
        return solution[: rng.randrange(len(solution) + 1)]
    if kind == 3:
        return solution.replace(")", "", rng.randint(1, 2))
    if kind == 4:
        return mutate(rng, solution)
    if kind == 5:
        depth = rng.choice([1, 2, 199, 200, 201, 300])
        return "(" * depth + solution + ")" * depth
    if kind == 6:
        return "".join(
            rng.choice(["+", "-", "*", "/", "(", ")", *map(str, numbers)]) for _ in range(rng.randint(0, 14))
        )
    return random_row(rng, numbers)


def make_response(rng, cards, numbers):
    formula = make_formula(rng, numbers) + rng.choice(["", "", "=24", "=25=24", " =24"])
    named = rng.sample(cards, 4) if rng.random() < 0.8 else [*cards[1:], rng.choice(RANKS)]
    quoted = ", ".join(f"'{card}'" for card in named)
    bare = rng.choice([",", ", ", " , "]).join(named)
    forms = [
        json.dumps({"cards": named, "number": numbers, "formula": formula}),
        json.dumps({"cards": str(named), "formula": formula}),
        json.dumps({"cards": bare, "formula": rng.choice([24, 2.5, None, True, [formula], {}, formula])}),
        json.dumps([{"cards": named, "formula": formula}]),
        f'{{"cards": [{quoted}], "number": {numbers}, "formula": "{formula}"}}',
        f'{{\n"cards": [{quoted}],\n"formula": "{formula}"\n}}',
        f'{{"cards": [{bare}], "formula": "{formula}"}}',
        f"Answer: {json.dumps({'cards': named, 'formula': formula})}.",
        f'"cards": [] "formula": "\n" "formula": "{formula}" "formula": "1" "cards": [[{quoted}]]',
        f'{{"cards":[{quoted}], "formula":"{formula}"}}',
        f"{{'cards': [{quoted}], 'formula': '{formula}'}}",
        f'{{"formula": "1+1", "formula": "{formula}", "cards": "{bare}"}}',
        formula,
    ]
    return rng.choice(forms[:1] * 3 + forms[4:7] * 3 + forms)


def test_agrees_with_the_restated_rules():
    """6000 responses, every kind of reward among them."""
    rng = random.Random(11)
    hands = make_hands()
    rewards = set()
    for _ in range(6000):
        cards, numbers = rng.choice(hands)
        response = make_response(rng, cards, numbers)
        modality = rng.choice(["text", "text", "image"])
        verdict = grade_response(
            response, cards=cards, numbers=numbers, target=24, profile="authors", modality=modality
        )
        try:
            expected = restated(response, numbers, cards, modality)
        except Raised:
            assert (verdict.outcome, verdict.reward) == ("unparsable", -3)
            continue
        assert verdict.reward == expected, (response, cards, numbers, modality)
        assert verdict.correct == (expected == 5)
        rewards.add(expected)
    assert {5, 1, 0, -1, -1.5, -2, -3, -4, -5, -6, -7, -9} <= rewards


def test_solution_texts_are_the_seven_patterns():
    for _, numbers in make_hands()[:6]:
        assert list(authors_solutions(numbers)) == sorted(all_solutions(tuple(sorted(numbers))))


@pytest.mark.slow
def test_113_of_72287_solutions_are_rejected():
    """The published count: all hands of 1..13 whose J, Q, K count 11, 12, 13, every solution text."""
    total, rejected, lost = 0, 0, []
    for hand in combinations_with_replacement(range(1, 14), 4):
        texts = authors_solutions(hand)
        scores = [score_formula(text, hand) for text in texts]
        bad = [score for score in scores if score.outcome != "correct"]
        assert all((score.reward, score.outcome) == (0, "wrong_value") for score in bad)
        total += len(texts)
        rejected += len(bad)
        if texts and len(bad) == len(texts):
            lost.append(hand)
    assert (total, rejected) == (72_287, 113)
    assert lost == [(3, 3, 8, 8)]


@pytest.mark.parametrize(
    ("formula", "reward", "outcome"),
    [
        ("8/(3-8/3)", 0, "wrong_value"),
        ("8/(3-8/3", 1, "illegal_formula"),
        ("(8/(3-8/3))", -1, "wrong_value"),
        ("8+8+3+3", -1, "wrong_value"),
        ("8/(3-3)*8", -1, "wrong_value"),
        ("08/(3-8/3)", -1, "illegal_formula"),
        ("８/(3-8/3)", -1, "illegal_formula"),
        ("8/(3-8/3)+", -1, "illegal_formula"),
        ("", -2, "wrong_numbers"),
        ("8*3", -2, "wrong_numbers"),
        ("8*3+8*3+8", -2, "wrong_numbers"),
        ("8*8*8*3", -4, "wrong_numbers"),
        ("8*3+4", -4, "wrong_numbers"),
        ("8*3+8-3-1", -2, "wrong_numbers"),
        ("8 / (3-8/3)", -3, "illegal_formula"),
        ("None", -3, "unparsable"),
        ("8(3-8/3)", -6, "illegal_formula"),
        ("8/(3-8/3))", -3, "illegal_formula"),
        ("-8/(3-8/3)", -3, "illegal_formula"),
        ("8**3", -5, "illegal_formula"),
        (")(", -8, "illegal_formula"),
        ("9" * 5000, -4, "wrong_numbers"),
        ("0" * 5000 + "8/(3-8/3)", -1, "illegal_formula"),
    ],
)
def test_scores(formula, reward, outcome):
    score = score_formula(formula, [3, 3, 8, 8])
    assert (score.reward, score.outcome) == (reward, outcome)
    assert score.feedback.endswith(".")


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("['K', '5', '2', '4']", True),
        ("[K, 5, 2, 4]", True),
        ("[4,2,5,K]", True),
        ("[[ 'K', '5' , ['2', '4']", True),
        ('["K", "5", "2", "4"]', False),
        ("['K', '5', '2']", False),
        ("['k', '5', '2', '4']", False),
        ("[\n'K', '5', '2', '4'\n]", False),
        ("[]", False),
    ],
)
def test_card_lists(written, right):
    text = f'{{"cards": {written}, "formula": "10+5*2+4"}} ]'
    verdict = grade_as_authors(text, cards=["K", "5", "2", "4"], numbers=[10, 5, 2, 4], modality="image")
    assert verdict.details["recognized"] == right
    assert verdict.outcome == ("correct" if right else "cards_not_recognized")


@pytest.mark.parametrize(
    ("written", "right"), [("[5, 6, 7, 8]", False), ("[5,6,7,8]", True), ("[5, 6, 7,8]", True)]
)
def test_integers_separated_by_comma_and_blank_are_no_cards(written, right):
    verdict = grade_as_authors(f'x "cards": {written}', cards=list("5678"), numbers=[5, 6, 7, 8])
    assert verdict.details["recognized"] == right


def test_details():
    text = "{\"cards\": ['K', '5', '2', '4'], \"number\": [4, 5, 2, 10], \"formula\": \"10+5*2+4=24\"}"
    verdict = grade_as_authors(text, cards=["K♠", "5", "2", "4"], numbers=[10, 5, 2, 4])
    assert verdict.correct
    assert verdict.details == {
        "cards": ["K", "5", "2", "4"],
        "number": [4, 5, 2, 10],
        "formula": "10+5*2+4",
        "recognized": True,
        "number_right": True,
    }


def test_other_hand_sizes():
    assert score_formula("4*(3+3)", [3, 3, 4]).outcome == "correct"
    assert score_formula("4*(3+3", [3, 3, 4]).reward == 1
    assert "(1+2)*(3+5)" not in authors_solutions([1, 2, 3, 4])
    assert score_formula("1*2*3*4+5-5", [1, 2, 3, 4, 5]).outcome == "wrong_numbers"
    five = authors_solutions([1, 1, 2, 7, 7])
    assert "(1+2)*(1+7)" not in five
    assert set(five) & set(solve([1, 1, 2, 7, 7]))
    assert all(parse(text).value() == 24 for text in five)
    large = 10**20
    assert f"{large}/{large}*24*1" in authors_solutions([large, large, 24, 1])
    with pytest.raises(SftrlError, match="up to 6"):
        grade_as_authors("", cards=["A"] * 7, numbers=[1] * 7)
    with pytest.raises(SftrlError, match="up to 6"):
        authors_solutions([1] * 7)


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text(text):
    for modality in ("text", "image"):
        verdict = grade_as_authors(text, cards=list("3388"), numbers=[3, 3, 8, 8], modality=modality)
        assert verdict.reward <= 5


@pytest.mark.parametrize(
    "text",
    [
        '"cards": [' * 100_000,
        '"formula": "\n' * 100_000,
        '"cards": []' * 100_000,
        "[" * 1_000_000,
        "9" * 10_000_000,
    ]
    + [
        '{"formula": "%s"}' % ("(" * 10_000_000),
        '{"formula": %s}' % ("9" * 1_000_000),
        '"formula": "' * 100_000,
    ]
    + ['{"formula": "%s"}' % ("3+" * 1_000_000)],
    ids=range(9),
)
def test_long_texts_do_linear_work(text):
    assert grade_as_authors(text, cards=list("3388"), numbers=[3, 3, 8, 8]).reward < 0

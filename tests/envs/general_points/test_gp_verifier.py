"""Grading under the profile ``exact``."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftrl_ext.envs.base import Verdict
from sftrl_ext.envs.general_points.solver import solve
from sftrl_ext.envs.general_points.verifier import REWARDS, grade, grade_response
from sftrl_ext.errors import SftrlError

CARDS, NUMBERS = ["K", "5", "2", "4"], [10, 5, 2, 4]


def respond(formula, cards=CARDS, numbers=NUMBERS):
    return json.dumps({"cards": cards, "number": numbers, "formula": formula})


@pytest.mark.parametrize(
    ("formula", "outcome"),
    [
        ("8/(3-8/3)", "correct"),
        ("8/(3-8/3)=24", "correct"),
        (" 8 / (3 - 8 / 3) = 24", "correct"),
        ("((8))/(3-(8/3))", "correct"),
        ('{"formula": "8/(3-8/3)=24"}', "correct"),
        ("{'formula': '8/(3-8/3)'}", "correct"),
        ("```\n8/(3-8/3)\n```", "correct"),
        ("`8/(3-8/3)=24`", "correct"),
        ("8+8+3+3", "wrong_value"),
        ("8/(3-3)+8", "wrong_value"),
        ("8*3", "wrong_numbers"),
        ("8*3+8-8", "wrong_numbers"),
        ("24", "wrong_numbers"),
        ("83+8*3", "wrong_numbers"),
        ("8/(3-8/3", "illegal_formula"),
        ("8/(3-8/3))", "illegal_formula"),
        ("-8/(8/3-3)", "illegal_formula"),
        ("8÷(3-8÷3)", "illegal_formula"),
        ("8//(3-8/3)", "illegal_formula"),
        ("24+eval('0')", "illegal_formula"),
        ("9" * 10_000_000, "illegal_formula"),
        ("(" * 1_000_000, "illegal_formula"),
        ("", "unparsable"),
        ("=24", "unparsable"),
        ("I give up", "unparsable"),
        ("{}", "unparsable"),
        ('{"formula": "no idea"}', "unparsable"),
        ("\ud800\x00", "unparsable"),
    ],
)
def test_outcomes(formula, outcome):
    verdict = grade(formula, [3, 3, 8, 8])
    assert verdict.outcome == outcome
    assert verdict.reward == REWARDS[outcome]
    assert verdict.correct == (outcome == "correct")
    assert verdict.feedback.endswith(".")
    assert len(str(verdict)) < 1000


def test_rewards_of_the_paper():
    assert REWARDS == {
        "correct": 5,
        "wrong_value": -1,
        "wrong_numbers": -2,
        "illegal_formula": -3,
        "unparsable": -3,
        "cards_not_recognized": -1.5,
    }


def test_feedback_tells_what_is_wrong():
    assert grade("8+8+3+3", [3, 3, 8, 8]).feedback == "The formula equals 22, not 24."
    assert grade("8/3/3*8", [3, 3, 8, 8]).feedback == "The formula equals 64/9, not 24."
    assert "3, 3, 8, 8" in grade("8*3", [3, 3, 8, 8]).feedback
    assert "'x'" in grade("8x3", [3, 3, 8, 8]).feedback
    assert "zero" in grade("8/(3-3)+8", [3, 3, 8, 8]).feedback


@pytest.mark.parametrize(
    ("formula", "cards", "text", "image"),
    [
        ("(10-5)*4+2*2", CARDS, "wrong_numbers", "wrong_numbers"),
        ("(10-5)*4+2", CARDS, "wrong_value", "wrong_value"),
        ("10+5*2+4", CARDS, "correct", "correct"),
        ("10+5*2+4", ["4", "2", "5", "K♠"], "correct", "correct"),
        ("10+5*2+4", ["4", "2", "5", "Q"], "correct", "cards_not_recognized"),
        ("10+5*2+4", ["4", "2", "5"], "correct", "cards_not_recognized"),
        ("10+5*2+4", None, "correct", "cards_not_recognized"),
        ("10+5+2+4", ["A"], "wrong_value", "cards_not_recognized"),
        ("10+5+", ["A"], "illegal_formula", "cards_not_recognized"),
        (None, ["A"], "unparsable", "unparsable"),
        ("dunno", ["A"], "unparsable", "unparsable"),
        (24, CARDS, "wrong_numbers", "wrong_numbers"),
    ],
)
def test_the_order_of_the_checks(formula, cards, text, image):
    for modality, outcome in (("text", text), ("image", image)):
        response = respond(formula, cards)
        verdict = grade_response(response, cards=CARDS, numbers=NUMBERS, target=24, modality=modality)
        assert (verdict.outcome, verdict.reward) == (outcome, REWARDS[outcome])
        assert set(verdict.details) == {"cards", "number", "formula", "recognized", "number_right"}


def test_details_say_what_was_claimed():
    verdict = grade_response(respond("1+1", ["k", "5♥"], [10, 5]), cards=CARDS, numbers=NUMBERS)
    assert verdict.details == {
        "cards": ["K", "5"],
        "number": [10, 5],
        "formula": "1+1",
        "recognized": False,
        "number_right": False,
    }
    verdict = grade_response(respond("1+1"), cards=["4♠", "2", "5", "KD"], numbers=[4, 2, 5, 10])
    assert verdict.details["recognized"] and verdict.details["number_right"]


def test_unknown_names():
    with pytest.raises(SftrlError, match="Did you mean 'authors'"):
        grade_response("", cards=CARDS, numbers=NUMBERS, profile="author")
    with pytest.raises(SftrlError, match="Did you mean 'image'"):
        grade_response("", cards=CARDS, numbers=NUMBERS, modality="images")


@settings(max_examples=200)
@given(st.text(), st.lists(st.integers(0, 20), max_size=6), st.integers())
def test_any_text_gets_a_verdict(text, numbers, target):
    verdict = grade(text, numbers, target)
    assert isinstance(verdict, Verdict)
    assert REWARDS[verdict.outcome] == verdict.reward
    for modality in ("text", "image"):
        graded = grade_response(text, cards=["A"], numbers=numbers, target=target, modality=modality)
        assert REWARDS[graded.outcome] == graded.reward


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 13), min_size=4, max_size=4), st.integers(1, 40), st.randoms())
def test_solutions_are_correct_and_spoiled_ones_are_not(numbers, target, rng):
    solutions = solve(numbers, target)
    for text in rng.sample(solutions, min(20, len(solutions))):
        assert grade(text, numbers, target).outcome == "correct"
        assert grade(f"{text}={target}", rng.sample(numbers, 4), target).outcome == "correct"
        assert grade(text, numbers, target + 1).outcome == "wrong_value"
        other = [*numbers[1:], numbers[0] + 1]
        assert grade(text, other, target).outcome == "wrong_numbers"
        assert grade(text + f"+{numbers[0]}", numbers, target).outcome == "wrong_numbers"
        assert grade(f"({text}", numbers, target).outcome == "illegal_formula"
        assert grade(text[:-1] + "+", numbers, target).outcome != "correct"


def test_one_changed_number_is_never_correct():
    rng = random.Random(0)
    checked = 0
    for _ in range(200):
        numbers = [rng.randint(1, 13) for _ in range(4)]
        for text in solve(numbers)[:10]:
            tokens = "".join(c if c.isdigit() else f" {c} " for c in text).split()
            places = [i for i, token in enumerate(tokens) if token.isdigit()]
            place = rng.choice(places)
            tokens[place] = str(int(tokens[place]) + rng.choice([1, 2, 10]))
            assert grade("".join(tokens), numbers).outcome == "wrong_numbers"
            checked += 1
    assert checked > 1000


def test_any_number_of_numbers():
    assert grade("2+3", [2, 3], 5).correct
    assert grade("+".join(["1"] * 24), [1] * 24).correct
    assert grade("14+19-9", [14, 19, 9]).correct
    assert grade("1-2", [1, 2], -1).correct


@pytest.mark.parametrize(
    "blank", ["\u00a0", "\u2003", "\u3000", "\u2028", "\u200b", "\ufeff", "\x85", "\x0b"]
)
def test_a_formula_holds_no_blanks_but_those_of_ascii(blank):
    formula = "(1+2)*(3+5)"
    for text in (f"{blank}{formula}", f"{formula}{blank}", f"`{blank}{formula}`", f"{formula}{blank}=24"):
        assert grade(text, [1, 2, 3, 5]).outcome == "illegal_formula"
    assert grade(f" \t\r\n{formula} \n", [1, 2, 3, 5]).correct

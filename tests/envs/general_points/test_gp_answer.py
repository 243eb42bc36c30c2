"""Finding the answer in a response."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftrl_ext.envs.general_points.answer import MAX_LENGTH, Answer, extract_answer, normalize_rank

FULL = Answer(["K", "5", "2", "4"], [10, 5, 2, 4], "(10-5)*4+2+2=24")
JSON = '{"cards": ["K", "5", "2", "4"], "number": [10, 5, 2, 4], "formula": "(10-5)*4+2+2=24"}'
PYTHON = "{'cards': ['K', '5', '2', '4'], 'number': [10, 5, 2, 4], 'formula': '(10-5)*4+2+2=24'}"


@pytest.mark.parametrize(
    "text",
    [
        JSON,
        PYTHON,
        "  \n" + JSON + "\n",
        JSON.replace(", ", ",\n  ").replace("{", "{\n  "),
        "```json\n" + JSON + "\n```",
        "Let me see. The formula: it has to be 24.\n" + JSON + "\nThis formula: is right, number = 24.",
        "{cards: [K, 5, 2, 4], number: [10, 5, 2, 4], formula: (10-5)*4+2+2=24}",
        "{\n cards: K, 5, 2, 4\n number: 10, 5, 2, 4\n formula: (10-5)*4+2+2=24\n}",
        "{'cards': ('K', '5', '2', '4'), 'number': (10, 5, 2, 4), 'formula': '(10-5)*4+2+2=24',}",
        "{“cards”: [“K”, “5”, “2”, “4”], “number”: [10, 5, 2, 4], “formula”: “(10-5)*4+2+2=24”}",
        '{"Cards": "K, 5, 2, 4", "Number": "[10, 5, 2, 4]", "Formula": "(10-5)*4+2+2=24"}',
        '{"answer": ' + JSON + ', "sure": true}',
        "[" + JSON + "]",
        '{"formula": "1+1", "cards": ["A"]} or rather ' + JSON,
        JSON + ' no: {"cards": ["A"], "formula": "1+',
        JSON + ' {"formula": null} {"formula": None} {"formula": }',
        '{"thought": "formula: none fits", "x": {}, ' + JSON[1:],
        PYTHON[:-1] + ", 'note': 'that is all'}",
        JSON.replace("K", "K of spades").replace('"5"', '"5♥"').replace('"2"', '"2d"').replace('"4"', "4"),
        JSON.replace("10,", '"10",').replace('2, 4], "f', '2.0, 4], "f'),
        JSON[1:],
        "x" * (2 * MAX_LENGTH) + JSON,
        JSON + "x" * (2 * MAX_LENGTH),
        JSON + " " * 10_000_000,
    ],
    ids=range(24),
)
def test_the_same_answer_in_many_forms(text):
    assert extract_answer(text) == FULL


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", Answer()),
        ("formula: 3*8", Answer()),
        ("The formula is 3*8 = 24", Answer()),
        ("null", Answer()),
        ("[]", Answer()),
        ('"formula"', Answer()),
        ('{"formula": ""}', Answer(formula="")),
        ('"formula": "3*8"', Answer(formula="3*8")),
        ('{"formula": 24}', Answer(formula="24")),
        ('{"formula": 2.5}', Answer(formula="2.5")),
        ('{"formula": true}', Answer(formula="true")),
        ('{"cards": ["K"], "number": [10', Answer(["K"], [10])),
        ('{"cards": ["K", "5"', Answer(["K", "5"])),
        ('{"formula": "3*8', Answer(formula="3*8")),
        ('{"formula": "3*8}', Answer(formula="3*8")),
        ('{"formula": "3\\/8"}x', Answer(formula="3/8")),
        ('{"cards": [], "number": [], "formula": "1"}', Answer([], None, "1")),
        ('{"cards": null, "number": ["x"], "formula": "1"}', Answer(None, None, "1")),
        ('{"cards": {"a": 1}, "number": {}, "formula": "1"}', Answer(None, None, "1")),
        (
            '{"cards": [["K"], null, 5], "number": [10, true], "formula": "1"}',
            Answer(["", "", "5"], None, "1"),
        ),
        ('{"formula": "1"} {"formula": "2"}', Answer(formula="2")),
    ],
)
def test_pieces(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("written", "rank"),
    [
        ("K", "K"),
        ("k", "K"),
        ("king", "K"),
        ("King of Spades", "K"),
        ("K♠", "K"),
        ("♠K", "K"),
        ("KS", "K"),
        ("SK", "K"),
    ]
    + [("10", "10"), ("T", "10"), ("10h", "10"), ("H10", "10"), (10, "10"), (" '10' ", "10"), ("ten", "10")]
    + [
        ("A", "A"),
        ("1", "A"),
        ("ace", "A"),
        ("J♦️", "J"),
        ("queen hearts", "Q"),
        ("19", "19"),
        ("7 of clubs", "7"),
    ]
    + [
        ("11", "11"),
        ("13", "13"),
        ("", ""),
        ("0", "0"),
        ("KK", "KK"),
        ("S", "S"),
        ("K Q", "K Q"),
        (None, ""),
        (["K"], ""),
    ],
)
def test_ranks(written, rank):
    assert normalize_rank(written) == rank


@given(st.text())
def test_any_text(text):
    assert isinstance(extract_answer(text), Answer)
    normalize_rank(text)


PIECES = [
    "{",
    "}",
    "[",
    "]",
    '"',
    "'",
    "formula",
    "cards",
    "number",
    ":",
    "=",
    ",",
    " ",
    "\n",
    "\\",
    "1",
    "+",
    "(",
    "K",
]


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_any_mixture_of_the_pieces(pieces):
    answer = extract_answer("".join(pieces))
    assert answer.formula is None or isinstance(answer.formula, str)


@given(
    st.recursive(st.none() | st.booleans() | st.floats() | st.integers() | st.text(), st.lists, max_leaves=5)
)
def test_any_json_value(value):
    answer = extract_answer(json.dumps({"cards": value, "number": value, "formula": value}))
    assert answer.cards is None or all(isinstance(card, str) for card in answer.cards)
    assert answer.number is None or all(type(number) is int for number in answer.number)


@pytest.mark.parametrize(
    "unit",
    [
        "{",
        "[",
        '"',
        "{'",
        '{"a":',
        '{"formula": "',
        '"formula": ',
        "{formula: ",
        "formula",
        '"cards": [',
        "\\",
        "}{",
    ]
    + [
        '{"formula": [',
        '{"cards": [[',
        '"formula": "\n',
        "{\n",
        "number=",
        '{"formula":' + "9" * 50 + ",",
        "formula \t",
    ],
)
def test_adversarial_repetition_ends(unit):
    """Only both ends of a long text are read: the answer cannot depend on more."""
    length = 1_000_000
    text = unit * (length // len(unit))
    assert extract_answer(text) in (extract_answer(text[-MAX_LENGTH:]), extract_answer(text[:MAX_LENGTH]))


@pytest.mark.parametrize("depth", [100, 900, 990, 5000])
def test_deep_nesting(depth):
    nested = "[" * depth + "]" * depth
    text = f'{{"cards": [{nested}], "number": {nested}, "formula": "3*8"}}'
    assert extract_answer(text).formula == "3*8"
    assert extract_answer(f'{{"formula": {nested}}}') is not None


def test_claims():
    claims = FULL.claims(["2", "4", "5", "K♠"], [2, 4, 5, 10])
    assert claims["recognized"] is True
    assert claims["number_right"] is True
    assert FULL.claims(["2", "4", "5", "Q"], [2, 4, 5, 11])["recognized"] is False
    assert Answer().claims(["2"], [2]) == {
        "cards": None,
        "number": None,
        "formula": None,
        "recognized": False,
        "number_right": False,
    }
    assert len(str(Answer(formula="1" * 10**6).claims(["2"], [2]))) < 1000

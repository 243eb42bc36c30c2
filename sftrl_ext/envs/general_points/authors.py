"""The grader of the paper's own code, rebuilt from a description of its behaviour, for parity with published runs.

It differs from the profile ``exact`` in what it reads, in that penalties add up, and in that the formula is
evaluated in floating point. In order:

1. *Reading.* The response as a whole is taken as JSON and the key looked up there; failing that, the first
   ``"formula": "..."`` (on one line) and ``"cards": [...]`` in the text, with exactly this spacing. A formula that
   is missing is the text ``None``. The formula is cut at its first ``=``. The cards are right only if the text of
   their list, without brackets, single quotes and blanks, splits at commas into the four ranks (in any order); a
   real JSON list, double quotes, or integers separated by comma and blank read as no cards.
2. *Cards* (image only): not the ones dealt, -1.5 and nothing else.
3. *Characters* other than digits, ``+ - * / ( )``: -3 and nothing else. A blank is such a character; a digit of any
   script is not.
4. *Neighbours*, -3 for each token that breaks a rule: a number follows the start, an operator or ``(``; an operator
   follows a number or ``)``; ``(`` follows the start, an operator or ``(``, else it does not open anything; ``)``
   follows a number or ``)`` and closes an open one. An unclosed ``(`` costs nothing here.
5. *Numbers*: -2 if one is not given, else -2 if one is used too often; and -2 more if one is used too seldom.
6. If nothing was deducted: the target, in floating point, +5. If evaluation raises and the text begins a solution,
   +1. Otherwise -1 if some sequence of leading tokens begins no solution, else 0 (so it goes for formulas such as
   ``8/(3-8/3)``, whose float value misses the target).

The *solutions* of step 6 are, for every order of the numbers and every choice of operators, the text without
parentheses, with one pair around two or more neighbours (not all), and with a pair around numbers 1-2 and another
around 3-4, whose exact value is the target. This set is tabled per hand, for up to `MAX_NUMBERS` numbers.

Outcomes are named as under ``exact``: a deduction in 3 or 4 is an illegal formula (unparsable if there is no digit in
it), in 5 wrong numbers; in 6 a text that cannot be evaluated is an illegal formula, unless it divides by zero.
Where the original stops with an exception (a formula that is JSON but no string) the response is unparsable, -3.
Formulas beyond `MAX_LENGTH` characters are graded by their beginning.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations, product
from unicodedata import decimal

from sftrl_ext.envs.base import Verdict
from sftrl_ext.envs.general_points.answer import Answer, normalize_rank
from sftrl_ext.envs.general_points.formula import parse
from sftrl_ext.errors import SftrlError

CORRECT, PARTIAL, NO_SOLUTION, WRONG_CARDS, WRONG_NUMBERS, ILLEGAL = 5.0, 1.0, -1.0, -1.5, -2.0, -3.0

MAX_NUMBERS = 5
"""The largest hand whose solutions are tabled; the original plays four cards."""

MAX_LENGTH = 100_000
"""How much of a formula is graded, in characters."""

_TOKEN = re.compile(r"\d+|[+\-*/()]")
_ALPHABET = re.compile(r"[\d+\-*/()]*")
_NESTING = 200  # more open parentheses than this do not compile in Python
_DIGITS = 4300  # more digits than this are not converted by Python

Ratio = tuple[int, int]


@dataclass(frozen=True)
class Score:
    """Reward, outcome and feedback of one formula."""

    reward: float
    outcome: str
    feedback: str


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

    Raises:
        SftrlError: if there are more than `MAX_NUMBERS` numbers.
    """
    if len(numbers) > MAX_NUMBERS:
        raise SftrlError(f"the profile 'authors' grades up to {MAX_NUMBERS} numbers; found {len(numbers)}.")
    fields = _json_fields(text)
    claimed = _split_list(fields["cards"] if "cards" in fields else _cards_in(text))
    formula = fields["formula"] if "formula" in fields else _formula_in(text)
    missing = formula is None and "formula" not in fields
    if missing:
        formula = "None"
    if isinstance(formula, str):
        formula = formula.partition("=")[0]
    details = Answer(claimed, None, formula if isinstance(formula, str) and not missing else None).claims(
        cards, numbers
    )
    told = _split_list(fields["number"] if "number" in fields else _match_list(text, '"number": ['))
    details["number"] = told
    details["number_right"] = told is not None and sorted(told) == sorted(map(str, numbers))
    if modality == "image" and not details["recognized"]:
        score = Score(WRONG_CARDS, "cards_not_recognized", "The cards named in the answer are not the cards shown.")
    elif not isinstance(formula, str):
        score = Score(ILLEGAL, "unparsable", "The formula in the answer is not a text.")
    elif missing:
        score = Score(ILLEGAL, "unparsable", "The response holds no formula in the form that was asked for.")
    else:
        score = score_formula(formula, numbers, target)
    return Verdict(score.outcome, score.reward, score.feedback, details)


def score_formula(formula: str, numbers: Sequence[int], target: int = 24) -> Score:
    """Grade the text of a formula, already cut at its first ``=``: steps 3 to 6 of the module's list."""
    formula = formula[:MAX_LENGTH]
    if not _ALPHABET.fullmatch(formula):
        outcome = "illegal_formula" if re.search(r"\d", formula) else "unparsable"
        return Score(ILLEGAL, outcome, "The formula holds characters other than digits, + - * / and parentheses.")
    tokens = _TOKEN.findall(formula)
    misplaced = count_misplaced(tokens)
    number_errors = _number_errors(tokens, numbers)
    if misplaced or number_errors:
        reward = ILLEGAL * misplaced + WRONG_NUMBERS * len(number_errors)
        said = [f"{misplaced} of its symbols stand where they may not"] if misplaced else []
        outcome = "wrong_numbers"
        if misplaced:
            outcome = "illegal_formula" if any(token[0].isdigit() for token in tokens) else "unparsable"
        return Score(reward, outcome, f"The formula is not accepted: {'; '.join(said + number_errors)}.")
    try:
        value = python_value(formula, tokens)
    except SyntaxError:
        outcome, feedback = "illegal_formula", "The formula cannot be evaluated"
    except ArithmeticError:
        outcome, feedback = "wrong_value", "The formula divides by zero"
    else:
        if value == target:
            return Score(CORRECT, "correct", f"The formula equals {target}.")
        outcome, feedback = "wrong_value", f"The formula equals {value}, not {target}"
    if outcome != "wrong_value" or "zero" in feedback:
        ...
    return Score(NO_SOLUTION, outcome, feedback)

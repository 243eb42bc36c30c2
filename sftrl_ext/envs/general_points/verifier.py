"""Grade an answer: the outcome, the reward and a sentence of feedback.

Under the profile ``exact`` a response has one outcome, the first of these that applies:

====================== ====== =========================================================================
outcome                reward when
====================== ====== =========================================================================
unparsable               -3   there is no formula: no answer object, no ``formula`` in it, or mere prose
cards_not_recognized   -1.5   (cards shown as an image) ``cards`` are not the cards shown, in any order
illegal_formula          -3   the formula is not legal arithmetic, see `formula`
wrong_numbers            -2   its numbers are not the given ones, each exactly once
wrong_value              -1   its value is not the target; dividing by zero gives no value
correct                  +5
====================== ====== =========================================================================

The profile ``authors`` is in `authors`. Neither raises for any text, and both take bounded time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

from sftrl_ext.envs.base import Verdict
from sftrl_ext.envs.general_points.answer import QUOTED, extract_answer
from sftrl_ext.envs.general_points.authors import grade_as_authors
from sftrl_ext.envs.general_points.formula import BLANKS, is_attempt, parse
from sftrl_ext.errors import unknown_name

REWARDS: dict[str, float] = {
    "correct": 5.0,
    "wrong_value": -1.0,
    "wrong_numbers": -2.0,
    "illegal_formula": -3.0,
    "unparsable": -3.0,
    "cards_not_recognized": -1.5,
}
"""Outcome to reward under the profile ``exact``: the table in appendix A.3 of arXiv 2501.17161."""


def grade(formula: str, numbers: Sequence[int], target: int = 24) -> Verdict:
    """Grade a formula under the profile ``exact``.

    A whole answer (an object with a ``formula``) or a formula in backticks is accepted in its place.

    Args:
        formula: Any text.
        numbers: The numbers that must be used, each once.
        target: The value to reach.

    Returns:
        The verdict; its details hold ``formula``.
    """
    outcome, feedback = judge(formula, numbers, target)
    if outcome not in ("illegal_formula", "unparsable"):
        return Verdict(outcome, REWARDS[outcome], feedback, {"formula": formula[:QUOTED]})
    inner = extract_answer(formula).formula
    if inner is None:
        inner = formula.strip(BLANKS + "`") if len(formula) < 1000 else formula
    if inner != formula:
        outcome, feedback = judge(inner, numbers, target)
    return Verdict(outcome, REWARDS[outcome], feedback, {"formula": inner[:QUOTED]})


def grade_response(
    text: str,
    *,
    cards: Sequence[str],
    numbers: Sequence[int],
    target: int = 24,
    profile: str = "exact",
    modality: str = "text",
) -> Verdict:
    """Grade a whole response.

    Args:
        text: What the model wrote; any text.
        cards: The cards dealt, as ranks (a suit may follow).
        numbers: What the cards count under the rule in force.
        target: The value to reach.
        profile: "exact" or "authors".
        modality: "image" if the model has to recognise the cards, else "text".

    Returns:
        The verdict. Its details: ``cards``, ``number``, ``formula`` (what the response claims, None if
        absent), ``recognized`` (the claimed cards are the ones dealt) and ``number_right`` (the claimed
        numbers are what they count).

    Raises:
        SftrlError: if the profile or the modality is unknown.
    """
    if modality not in ("text", "image"):
        raise unknown_name("modality", modality, ("text", "image"))
    if profile == "authors":
        return grade_as_authors(text, cards=cards, numbers=numbers, target=target, modality=modality)
    if profile != "exact":
        raise unknown_name("profile", profile, ("exact", "authors"))
    answer = extract_answer(text)
    details = answer.claims(cards, numbers)
    outcome, feedback = judge(answer.formula, numbers, target, name_numbers=modality == "text")
    if modality == "image" and outcome != "unparsable" and not details["recognized"]:
        outcome, feedback = "cards_not_recognized", "The cards named in the answer are not the cards shown."
    return Verdict(outcome, REWARDS[outcome], feedback, details)


def judge(
    formula: str | None,
    numbers: Sequence[int],
    target: int,
    name_numbers: bool = True,
    all_numbers: bool = True,
) -> tuple[str, str]:
    """Outcome and feedback for a formula alone.

    Args:
        formula: Its text, or None if there is none.
        numbers: The numbers that must be used, each once.
        target: The value to reach.
        name_numbers: Feedback may name ``numbers``; not where they have to be seen in a picture.
        all_numbers: False: numbers may be left out.
    """
    if formula is None:
        return "unparsable", "The response holds no answer object with a formula."
    parsed = parse(formula)
    if not parsed.legal:
        if not is_attempt(formula):
            return "unparsable", "The answer holds no formula."
        return "illegal_formula", f"The formula is not legal: {parsed.problem}."
    if all_numbers:
        wrong = sorted(parsed.numbers) != sorted(numbers)
    else:
        wrong = bool(Counter(parsed.numbers) - Counter(numbers))
    if wrong:
        wanted = ", ".join(map(str, numbers)) if name_numbers else "the cards' numbers"
        each = f"must use each of {wanted} exactly" if all_numbers else f"may use each of {wanted} at most"
        return "wrong_numbers", f"The formula {each} once and no other number."
    ratio = parsed.ratio()
    if ratio is None:
        return "wrong_value", "The formula divides by zero, so it has no value."
    top, bottom = ratio
    if top == target * bottom:
        return "correct", f"The formula equals {target}."
    return "wrong_value", f"The formula equals {Fraction(top, bottom)}, not {target}."

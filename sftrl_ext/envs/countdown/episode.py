"""One game of Countdown being played; its attempts are a sequential revision, see `RevisionEpisode`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sftrl_ext.envs.base import Verdict
from sftrl_ext.envs.countdown import TASK
from sftrl_ext.envs.countdown.numbers import USES
from sftrl_ext.envs.countdown.prompts import OUTCOMES, load_template, template_path
from sftrl_ext.envs.general_points.answer import QUOTED, extract_answer
from sftrl_ext.envs.general_points.solver import MAX_NUMBERS
from sftrl_ext.envs.general_points.verifier import REWARDS, judge
from sftrl_ext.envs.revision import RevisionEpisode
from sftrl_ext.errors import SftrlError, check_known

DEFAULTS: Mapping[str, Any] = {
    "use": "all",
    "max_attempts": 5,
    "exceeded_penalty": -1.0,
    "template": "default",
}
"""Facts that may be left out, with their values."""

_KEYS = ("task", "numbers", "target", *DEFAULTS)


class CountdownEpisode(RevisionEpisode):
    """One game.

    Args:
        facts: ``numbers`` (one to six whole numbers) and ``target``; see `DEFAULTS` for the others.

    Raises:
        SftrlError: if a fact is missing, unknown or malformed.
    """

    outcomes = OUTCOMES

    def __init__(self, facts: Mapping[str, Any]) -> None:
        for key in facts:
            check_known("facts", "fact", key, _KEYS)
        self.numbers, self.target = check_instance(facts.get("numbers"), facts.get("target"), "facts")
        play = {**DEFAULTS, **{key: value for key, value in facts.items() if key in DEFAULTS}}
        check_known("fact 'use'", "use of the numbers", play["use"], USES)
        play["template"] = template_path(str(play["template"]))
        self.play = play
        self.template = load_template(play["template"])
        opening = self.template.opening(self.numbers, self.target, play["use"], play["max_attempts"])
        super().__init__(opening, play["max_attempts"], play["exceeded_penalty"])

    @property
    def facts(self) -> dict[str, Any]:
        """Facts that rebuild this episode at its start."""
        return {"task": TASK, "numbers": list(self.numbers), "target": self.target, **self.play}

    def grade(self, response: str) -> Verdict:
        """Grade a response, with the template's feedback, without advancing."""
        formula = _formula(response)
        outcome, sentence = judge(formula, self.numbers, self.target, all_numbers=self.play["use"] == "all")
        verdict = Verdict(outcome, REWARDS[outcome], sentence, {"formula": formula and formula[:QUOTED]})
        feedback = self.template.feedback_text(verdict, self.numbers, self.target)
        return Verdict(outcome, verdict.reward, feedback, verdict.details)

    def reply(self, feedback: str, attempt: int) -> str:
        """See `RevisionEpisode`."""
        return self.template.reply(feedback, attempt, self.play["max_attempts"], self.target)


def check_instance(numbers: object, target: object, where: str) -> tuple[tuple[int, ...], int]:
    """The numbers and the target of a game.

    Args:
        numbers: A list of whole numbers.
        target: A whole number.
        where: Where they stand, for the error.

    Raises:
        SftrlError: naming what was found and expected.
    """
    values = numbers if isinstance(numbers, (list, tuple)) else []
    if not 1 <= len(values) <= MAX_NUMBERS or not all(type(n) is int and n >= 0 for n in values):
        raise SftrlError(f"{where}: numbers are {numbers!r}, expected 1 to {MAX_NUMBERS} whole numbers >= 0.")
    if type(target) is not int or target < 0:
        raise SftrlError(f"{where}: target is {target!r}, expected a whole number >= 0.")
    return tuple(values), target


def _formula(response: str) -> str | None:
    """The formula of a response: the field of a JSON object, in the last ``<answer>`` tag if there is one."""
    start = response.rfind("<answer>")
    if start < 0:
        return extract_answer(response).formula
    tagged = response[start + len("<answer>") :].partition("</answer>")[0]
    formula = extract_answer(tagged).formula
    return tagged.strip() if formula is None else formula

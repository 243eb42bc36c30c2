"""Prompt templates of Countdown: every word a model reads, in one YAML file.

Two come with the package, ``default`` and ``compact``; the path of your own file works wherever a name does.

============  =========  ============================================================================
key           needed     placeholders
============  =========  ============================================================================
prompt        yes        $numbers $target $use $max_attempts
feedback      yes        a mapping from outcome to text: $target $numbers $verdict
reply         no         $feedback $attempts_left $attempt $max_attempts $target
system        no         as prompt
uses          no         a mapping from ``all`` and ``any`` to the text of $use
number_join   no         none; what stands between two numbers
answer        no         $formula $target; how expert rows write an answer
============  =========  ============================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sftrl_ext.envs.base import Message, Verdict
from sftrl_ext.envs.countdown.numbers import USES
from sftrl_ext.envs.general_points.verifier import REWARDS
from sftrl_ext.envs.template_file import TemplateForm, TextTemplate

OUTCOMES = tuple(outcome for outcome in REWARDS if outcome != "cards_not_recognized")
"""Every outcome the verifier can give."""

_PROMPT = frozenset({"numbers", "target", "use", "max_attempts"})
_USES = {
    "all": "Every number must appear exactly once.",
    "any": "Each number may appear at most once; numbers may be left out.",
}
_FORM = TemplateForm(
    folder=Path(__file__).parent / "templates",
    outcomes=OUTCOMES,
    placeholders={
        "prompt": _PROMPT,
        "system": _PROMPT,
        "feedback": frozenset({"target", "numbers", "verdict"}),
        "reply": frozenset({"feedback", "attempts_left", "attempt", "max_attempts", "target"}),
        "uses": frozenset(),
        "number_join": frozenset(),
        "answer": frozenset({"formula", "target"}),
    },
    needed={
        "prompt": frozenset({"numbers", "target"}),
        "reply": frozenset({"feedback"}),
        "answer": frozenset({"formula"}),
    },
    defaults={"reply": "$feedback", "number_join": ", ", "answer": '{"formula": "$formula=$target"}'},
    mappings=("feedback", "uses"),
    named={"uses": dict.fromkeys(USES, frozenset())},
)


class CountdownTemplate(TextTemplate):
    """The words of the game; made by `load_template`."""

    def numbers(self, numbers: Sequence[int]) -> str:
        """Text that shows the numbers."""
        return self.texts["number_join"].template.join(map(str, numbers))

    def opening(self, numbers: Sequence[int], target: int, use: str, max_attempts: int) -> list[Message]:
        """The messages an episode starts with."""
        text = self.mappings["uses"].get(use)
        values = {
            "numbers": self.numbers(numbers),
            "target": target,
            "use": text.template if text else _USES[use],
            "max_attempts": max_attempts,
        }
        return self.first_messages(values, "text")

    def feedback_text(self, verdict: Verdict, numbers: Sequence[int], target: int) -> str:
        """Feedback on one attempt."""
        text = self.feedback.get(verdict.outcome) or self.feedback["otherwise"]
        return text.substitute(verdict=verdict.feedback, numbers=self.numbers(numbers), target=target)

    def reply(self, feedback: str, attempt: int, max_attempts: int, target: int) -> str:
        """The user message that asks for the next attempt."""
        return self.texts["reply"].substitute(
            feedback=feedback,
            attempt=attempt,
            attempts_left=max_attempts - attempt,
            max_attempts=max_attempts,
            target=target,
        )

    def answer(self, formula: str, target: int) -> str:
        """The text of an answer with this formula."""
        return self.texts["answer"].substitute(formula=formula, target=target)


def template_path(name_or_path: str) -> str:
    """A template's name, or the absolute path of a user's file: a row finds it from any working folder.

    Raises:
        SftrlError: if there is no such template.
    """
    path, _ = _FORM.find(name_or_path)
    return name_or_path if name_or_path in _FORM.files else str(path.resolve())


def load_template(name_or_path: str | Path) -> CountdownTemplate:
    """Load a template of the package by name, or a user's by the path of its YAML file.

    Raises:
        SftrlError: if there is no such template or file, or a key or placeholder in it is missing or unknown.
    """
    return _FORM.load(CountdownTemplate, name_or_path)

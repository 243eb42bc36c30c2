"""Prompt templates: every word a model reads on a route, in one YAML file.

Two come with the package, ``default`` and ``compact``; the path of your own file works wherever a name does,
so a checkpoint that was trained on other prompts can be played with those. A file holds these keys, each a
text with ``$placeholders`` (a literal dollar is ``$$``):

================  ======  ==============================================================================
key               needed  placeholders
================  ======  ==============================================================================
prompt            yes     $instructions $history $rule $max_attempts; the first two are needed
image_prompt      images  as prompt, and $image once, where the four views of the place go
feedback          yes     a mapping from outcome to text: $verdict; see below
reply             no      $feedback $attempts_left $attempt $max_attempts; the message after a failure
system            no      $rule $max_attempts; a system message before the prompt
rule              no      $statement $words; how the action space is worded
rules             no      a mapping from action space to text, for spaces worded differently
instruction       no      $number $sentence; one line of the instructions, of the following five
turn              no      $relative $absolute; both words, so the rule decides which to answer with
turn_first        no      the same; the first instruction of a route, by default as ``turn``
turn_last         no      the same; the turn to the last leg, also where that is the only one
go, arrive        no      none; the way to an intersection, or to the destination, without a landmark
go_landmark       no      $landmark; the same where there is one
arrive_landmark   no      $landmark
observed, acted   no      $n $observation, $n $action; two lines of the history
acting            no      $n; the line of the action that is to be chosen, kept to its last blank; by default
                          ``acted`` without an action and without blanks at its end
view              no      none; stands for what is observed at the place that the picture shows
intersection      no      none; what is observed at an intersection; the word "intersection" must be in it
answer            no      $observation $instruction $action; how expert rows write an answer
================  ======  ==============================================================================

``feedback`` needs every outcome, or ``otherwise`` for those it leaves out. Two further keys are special cases
of ``wrong_observation``: ``intersection_claimed`` (the answer says that there is an intersection, and there
is none) and ``intersection_missed`` (the reverse). ``$verdict`` is the verifier's own sentence. In expert
answers quotes and backslashes of the texts are escaped as JSON has them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from sftrl_ext.envs.base import Message, Verdict
from sftrl_ext.envs.template_file import TemplateForm, TextTemplate
from sftrl_ext.envs.virl.rail import ACTION_SPACES, INTERSECTION_NOTE, Point, Rail, Turn
from sftrl_ext.envs.virl.verifier import OUTCOMES
from sftrl_ext.errors import SftrlError

_PROMPT = frozenset({"instructions", "history", "rule", "max_attempts"})
_RULE = frozenset({"statement", "words"})
_LANDMARK = frozenset({"landmark"})
_PLACEHOLDERS: dict[str, frozenset[str]] = {
    "prompt": _PROMPT,
    "image_prompt": _PROMPT | {"image"},
    "system": frozenset({"rule", "max_attempts"}),
    "feedback": frozenset({"verdict"}),
    "reply": frozenset({"feedback", "attempts_left", "attempt", "max_attempts"}),
    "rule": _RULE,
    "rules": _RULE,
    "instruction": frozenset({"number", "sentence"}),
    "turn": frozenset({"relative", "absolute"}),
    "turn_first": frozenset({"relative", "absolute"}),
    "turn_last": frozenset({"relative", "absolute"}),
    "go": frozenset(),
    "go_landmark": _LANDMARK,
    "arrive": frozenset(),
    "arrive_landmark": _LANDMARK,
    "observed": frozenset({"n", "observation"}),
    "acted": frozenset({"n", "action"}),
    "acting": frozenset({"n"}),
    "view": frozenset(),
    "intersection": frozenset(),
    "answer": frozenset({"observation", "instruction", "action"}),
}
_NEEDED: dict[str, frozenset[str]] = {
    "prompt": frozenset({"instructions", "history"}),
    "image_prompt": frozenset({"instructions", "history", "image"}),
    "reply": frozenset({"feedback"}),
    "instruction": frozenset({"sentence"}),
    "turn": frozenset({"relative", "absolute"}),
    "turn_first": frozenset({"relative", "absolute"}),
    "turn_last": frozenset({"relative", "absolute"}),
    "observed": frozenset({"observation"}),
    "acted": frozenset({"action"}),
    "answer": frozenset({"action"}),
}
_DEFAULTS: dict[str, str] = {
    "reply": "$feedback",
    "rule": "The actions are forward(), turn_direction(x) and stop(); $statement",
    "instruction": "$number. $sentence",
    "turn": "Turn $relative to face $absolute.",
    "go": "Go on to the next intersection.",
    "go_landmark": "Go on to the next intersection, where $landmark.",
    "arrive": "Go on to your destination.",
    "arrive_landmark": "Go on to your destination, where $landmark.",
    "observed": "O_$n: $observation",
    "acted": "A_$n: $action",
    "view": "Four views of this place",
    "intersection": INTERSECTION_NOTE,
    "answer": (
        '{"current observation": "$observation", "current instruction": "$instruction", "action": "$action"}'
    ),
}
_STATEMENTS = {
    "absolute": "x is the direction to face after the turn: {}.",
    "relative": "x is the side to turn to: {}.",
}
_FORM = TemplateForm(
    folder=Path(__file__).parent / "templates",
    outcomes=OUTCOMES,
    placeholders=_PLACEHOLDERS,
    needed=_NEEDED,
    defaults=_DEFAULTS,
    mappings=("feedback", "rules"),
    variants=("intersection_claimed", "intersection_missed"),
    shown=("system", *(key for key in _PLACEHOLDERS if key not in ("prompt", "system", "feedback", "rules"))),
)


class PromptTemplate(TextTemplate):
    """The words of the task; made by `load_template`."""

    def check(self) -> None:
        """See `TextTemplate`: an intersection must be called one, as the grader looks for that word."""
        if "intersection" not in self.note:
            raise SftrlError(f"key 'intersection' lacks the word 'intersection': {self.note!r}.")

    @property
    def rules(self) -> Mapping[str, Template]:
        """Action space to text, for spaces worded differently from ``texts["rule"]``."""
        return self.mappings["rules"]

    @property
    def note(self) -> str:
        """Observation at an intersection."""
        return self.texts["intersection"].substitute()

    def rule(self, action_space: str) -> str:
        """Text that describes an action space."""
        actions = ", ".join(ACTION_SPACES[action_space])
        text = self.rules.get(action_space, self.texts["rule"])
        return text.substitute(words=actions, statement=_STATEMENTS[action_space].format(actions))

    def sentences(self, turns: Sequence[Turn]) -> list[str]:
        """The instructions of a route, two for each leg."""
        sentences = []
        for number, turn in enumerate(turns):
            special = {"turn_last": turn.last, "turn_first": number == 0}
            key = next((key for key, here in special.items() if here and key in self.texts), "turn")
            sentences.append(self.texts[key].substitute(relative=turn.relative, absolute=turn.absolute))
            key = ("arrive" if turn.last else "go") + ("_landmark" if turn.landmark else "")
            values = {"landmark": turn.landmark} if turn.landmark else {}
            sentences.append(self.texts[key].substitute(values))
        return sentences

    def history(self, points: Sequence[Point], modality: str = "text") -> str:
        """The lines O_i and A_i up to a point.

        Args:
            points: The points up to the current one; the action of the last is left open.
            modality: "image" if what is observed at the last is in a picture, apart from the note.
        """
        lines = []
        for number, point in enumerate(points, start=1):
            current = number == len(points)
            observation = point.observation
            if current and modality == "image":
                # An observation begins with the landmark, which the picture shows; what follows is the note.
                observation = self.texts["view"].substitute() + observation[len(point.landmark_text) :]
            lines.append(self.texts["observed"].substitute(n=number, observation=observation))
            if current and "acting" in self.texts:
                lines.append(self.texts["acting"].substitute(n=number))
                continue
            action = "" if current else point.action
            lines.append(self.texts["acted"].substitute(n=number, action=action).rstrip(" "))
        return "\n".join(lines)

    def opening(
        self, rail: Rail, position: int, action_space: str, max_attempts: int, modality: str = "text"
    ) -> list[Message]:
        """The prompt at a point of a rail, after a system message if there is one.

        Raises:
            SftrlError: if the modality is "image" and the template is not made for that.
        """
        numbered = [
            self.texts["instruction"].substitute(number=number, sentence=sentence)
            for number, sentence in enumerate(self.sentences(rail.turns), start=1)
        ]
        values = {
            "instructions": "\n".join(numbered),
            "history": self.history(rail.points[: position + 1], modality),
            "rule": self.rule(action_space),
            "max_attempts": max_attempts,
        }
        return self.first_messages(values, modality)

    def feedback_text(self, verdict: Verdict) -> str:
        """Feedback on one attempt."""
        keys = (*(finding.name for finding in verdict.findings or ()), verdict.outcome, "otherwise")
        text = next(self.feedback[key] for key in keys if key in self.feedback)
        return text.substitute(verdict=verdict.feedback)

    def reply(self, feedback: str, attempt: int, max_attempts: int) -> str:
        """The user message that asks for the next attempt at the same point.

        Args:
            feedback: What `feedback_text` gave.
            attempt: How many attempts were made at the point.
            max_attempts: How many there may be.
        """
        return self.texts["reply"].substitute(
            feedback=feedback,
            attempt=attempt,
            attempts_left=max_attempts - attempt,
            max_attempts=max_attempts,
        )

    def answer(self, observation: str, instruction: str, action: str) -> str:
        """The text of an answer, in the form the prompt asks for."""
        return self.texts["answer"].substitute(
            observation=_escaped(observation), instruction=_escaped(instruction), action=_escaped(action)
        )


def expert_answer(template: PromptTemplate, rail: Rail, position: int) -> str:
    """The text an expert answers with at a point; the one place where expert answers are written."""
    point = rail.points[position]
    return template.answer(point.observation, template.sentences(rail.turns)[point.instruction], point.action)


TEMPLATES = _FORM.files
"""Template name to YAML file."""


def load_template(name_or_path: str | Path) -> PromptTemplate:
    """Load a template of the package by name, or a user's by the path of its YAML file.

    Raises:
        SftrlError: if there is no such template or file, or a key or placeholder in it is missing or unknown.
    """
    return _FORM.load(PromptTemplate, name_or_path)


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]

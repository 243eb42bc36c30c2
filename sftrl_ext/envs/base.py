"""The contract of a text environment: an episode gives messages, takes responses, and grades them.

One `Episode` is played by everything: the Gymnasium environment, the rollout during reinforcement learning,
evaluation, and the builders of expert data. So the words a model reads are the same in all of them.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sftrl_ext.errors import SftrlError

if TYPE_CHECKING:
    from PIL.Image import Image

Message = dict[str, str]
"""One chat message: ``{"role": "system" | "user" | "assistant", "content": text}``."""

IMAGE_MARKER = "<image>"
"""Stands for one picture in the content of a user message. In an assistant message it is mere text."""


@dataclass(frozen=True)
class Finding:
    """One remark of a verifier, for which a prompt template may have a text.

    Attributes:
        name: A short stable name, of the task's own list.
        fields: Values that the text may show.
    """

    name: str
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """Outcome, grade and feedback of the verifier for one response.

    Attributes:
        outcome: A short stable name; ``"correct"`` is the only one that solves.
        reward: The response's own grade, without any penalty for the end of the episode.
        feedback: What the next user message tells the model about this response.
        details: Task-specific facts about the response, for metrics and figures.
        findings: The verifier's remarks one by one; None from a verifier that gives none.
    """

    outcome: str
    reward: float
    feedback: str
    details: Mapping[str, Any] = field(default_factory=dict)
    findings: tuple[Finding, ...] | None = None

    @property
    def correct(self) -> bool:
        """True if the response is right."""
        return self.outcome == "correct"


@dataclass(frozen=True)
class Attempt:
    """One response of the model and its verdict."""

    response: str
    verdict: Verdict


@dataclass(frozen=True)
class Step:
    """Result of one response: rewards, end of the episode, and the reply.

    Attributes:
        attempt: The response and its verdict.
        reward: The verdict's reward plus any end-of-episode penalty; what a learner receives for this turn.
        terminated: The task came to its own end (solved).
        truncated: The attempts are used up.
        reply: The user message that asks for the next attempt; None at the end of the episode.
        new_prompt: True if the next turn starts from a fresh prompt (`Episode.messages`) rather than from
            the dialogue so far followed by ``reply``. GeneralPoints never does; V-IRL does at each new point.
    """

    attempt: Attempt
    reward: float
    terminated: bool
    truncated: bool
    reply: str | None = None
    new_prompt: bool = False

    @property
    def done(self) -> bool:
        """True if the episode is over."""
        return self.terminated or self.truncated


class Episode(ABC):
    """One instance of a task being played, from its first prompt to its end. No randomness, no I/O.

    There are as many pictures in `images` as markers in the user messages of `messages`, in the same order.
    """

    attempts: list[Attempt]

    def images(self) -> Sequence[Image]:
        """The pictures that the markers in `messages` stand for; do not change them, copy them."""
        return ()

    @abstractmethod
    def messages(self) -> list[Message]:
        """The dialogue so far, ending with the user message that waits for an answer."""

    @abstractmethod
    def submit(self, response: str) -> Step:
        """Grade one response and advance. Never raises for any text; raises RuntimeError after the end."""

    @property
    @abstractmethod
    def solved(self) -> bool:
        """True if the episode reached its goal."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """True if the episode is over."""

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """Numbers about the episode, the same keys for every episode of a task, whatever happened in it."""


def facts_text(facts: Mapping[str, Any]) -> str:
    """Facts as the JSON text that rows carry; `parse_facts` reads it."""
    return json.dumps(facts, ensure_ascii=False)


def parse_facts(text: object, where: str) -> dict[str, Any]:
    """Read the JSON text of an episode's facts, as rows carry it.

    Args:
        text: The text.
        where: What the text is, for the error: "row 3: extra_info.facts".

    Raises:
        SftrlError: if it is not the JSON text of an object.
    """
    try:
        facts = json.loads(text)  # type: ignore[arg-type]
    except (TypeError, ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise SftrlError(
            f"{where} is {str(text)[:80]!r}; expected the JSON text of an episode's facts, "
            "as data_prep writes it."
        )
    return facts


def count_markers(messages: Iterable[Mapping[str, str]]) -> int:
    """Number of pictures a dialogue needs: the image markers in its messages, but for the assistant's."""
    return sum(
        message["content"].count(IMAGE_MARKER) for message in messages if message["role"] != "assistant"
    )


def is_number(value: object) -> bool:
    """True for a finite number that is no boolean."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False

"""The contract of a text environment: an episode gives messages, takes responses, and grades them.

One `Episode` is played by everything: the Gymnasium environment, the rollout during reinforcement learning,
evaluation, and the builders of expert data. So the words a model reads are the same in all of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sftrl_ext.errors import Registry

Message = dict[str, str]
"""One chat message: ``{"role": "system" | "user" | "assistant", "content": text}``."""


@dataclass(frozen=True)
class Verdict:
    """What the verifier says about one response.

    Attributes:
        outcome: A short stable name; ``"correct"`` is the only one that solves.
        reward: The response's own grade, without any penalty for the end of the episode.
        feedback: What the next user message tells the model about this response.
        details: Task-specific facts about the response, for metrics and figures.
    """

    outcome: str
    reward: float
    feedback: str
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def correct(self) -> bool:
        """Whether the response is right."""
        return self.outcome == "correct"


@dataclass(frozen=True)
class Attempt:
    """One response of the model and its verdict."""

    response: str
    verdict: Verdict


@dataclass(frozen=True)
class Step:
    """What follows from one response.

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
        """Whether the episode is over."""
        return self.terminated or self.truncated


class Episode(ABC):
    """One instance of a task being played, from its first prompt to its end. No randomness, no I/O."""

    attempts: list[Attempt]

    @abstractmethod
    def messages(self) -> list[Message]:
        """The dialogue so far, ending with the user message that waits for an answer."""

    @abstractmethod
    def submit(self, response: str) -> Step:
        """Grade one response and advance. Never raises for any text; raises RuntimeError after the end."""

    @property
    @abstractmethod
    def solved(self) -> bool:
        """Whether the episode reached its goal."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether the episode is over."""

    @abstractmethod
    def metrics(self) -> dict[str, float]:
        """Numbers about the episode, the same keys for every episode of a task, whatever happened in it."""


TASKS: Registry[Callable[[Mapping[str, Any]], Episode]] = Registry("task")
"""Task name to the function that rebuilds an episode from its facts."""


def make_episode(facts: Mapping[str, Any]) -> Episode:
    """Rebuild an episode from the facts a row carries.

    Args:
        facts: JSON-like; ``facts["task"]`` names the task, the rest is the task's own.

    Raises:
        SftrlError: if the task is unknown or a fact is missing or malformed.
    """
    return TASKS[facts.get("task", "")](facts)

"""Episodes that ask one question in words: the base of most tasks outside this package."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from sftrl_ext.envs.base import Attempt, Episode, Message, Step, Verdict


class QuestionEpisode(Episode):
    """One question and a number of attempts at it; the verifier's feedback asks for the next one.

    A subclass defines `question` and `grade`.

    Args:
        facts: Facts of the row. ``max_attempts`` is 1 where it is absent.
    """

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self.max_attempts = int(facts.get("max_attempts", 1))
        self.attempts: list[Attempt] = []
        self._dialogue: list[Message] = [{"role": "user", "content": self.question()}]

    @abstractmethod
    def question(self) -> str:
        """The prompt, made from `facts`."""

    @abstractmethod
    def grade(self, response: str) -> Verdict:
        """Grade one response; never raises for any text."""

    def messages(self) -> list[Message]:
        """See `Episode`."""
        return [dict(message) for message in self._dialogue]

    def submit(self, response: str) -> Step:
        """See `Episode`."""
        if self.done:
            raise RuntimeError("the episode is over.")
        verdict = self.grade(response)
        self.attempts.append(Attempt(response, verdict))
        self._dialogue.append({"role": "assistant", "content": response})
        reply = None if self.done else verdict.feedback
        if reply is not None:
            self._dialogue.append({"role": "user", "content": reply})
        truncated = self.done and not verdict.correct
        return Step(self.attempts[-1], verdict.reward, self.solved, truncated, reply)

    @property
    def solved(self) -> bool:
        """True if an attempt was right."""
        return any(attempt.verdict.correct for attempt in self.attempts)

    @property
    def done(self) -> bool:
        """True if an attempt was right, or none is left."""
        return self.solved or len(self.attempts) >= self.max_attempts

    def metrics(self) -> dict[str, float]:
        """See `Episode`."""
        return {"solved": float(self.solved), "attempts": float(len(self.attempts))}

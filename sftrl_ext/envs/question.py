"""Episodes that ask one question in words: the base of most tasks outside this package."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from sftrl_ext.envs.base import Message
from sftrl_ext.envs.revision import RevisionEpisode


class QuestionEpisode(RevisionEpisode):
    """One question and a number of attempts at it; the verifier's feedback asks for the next one.

    A subclass defines `question` and `grade`.

    Args:
        facts: Facts of the row. ``max_attempts`` is 1 where it is absent.
    """

    outcomes = ()

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.facts = facts
        self.max_attempts = int(facts.get("max_attempts", 1))
        opening: list[Message] = [{"role": "user", "content": self.question()}]
        super().__init__(opening, self.max_attempts, exceeded_penalty=0.0)

    @abstractmethod
    def question(self) -> str:
        """The prompt, made from `facts`."""

    def reply(self, feedback: str, attempt: int) -> str:
        """See `RevisionEpisode`."""
        return feedback

    def metrics(self) -> dict[str, float]:
        """See `Episode`."""
        return {"solved": float(self.solved), "attempts": float(len(self.attempts))}

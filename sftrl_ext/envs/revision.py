"""Sequential revision: a prompt, and every response and its feedback so far, until one is correct.

The episode ends when a response is correct (terminated) or when ``max_attempts`` responses were graded
(truncated); the last failed attempt also receives ``exceeded_penalty``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from sftrl_ext.envs.base import Attempt, Episode, Message, Step, Verdict, is_number
from sftrl_ext.errors import SftrlError


class RevisionEpisode(Episode):
    """One instance with several attempts at it; a subclass grades responses and writes the replies.

    Attributes:
        outcomes: Every outcome the verifier can give.

    Args:
        opening: Messages the episode starts with.
        max_attempts: Attempts that are graded.
        exceeded_penalty: Added to the reward of the last failed attempt.

    Raises:
        SftrlError: if a number is none.
    """

    outcomes: ClassVar[Sequence[str]]

    def __init__(self, opening: Sequence[Message], max_attempts: int, exceeded_penalty: float) -> None:
        check_attempts(max_attempts, exceeded_penalty)
        self.attempts: list[Attempt] = []
        self._messages = list(opening)
        self._most = max_attempts
        self._penalty = exceeded_penalty
        self._rewards = 0.0
        self._solved = False

    @abstractmethod
    def grade(self, response: str) -> Verdict:
        """Grade a response, with the template's feedback, without advancing."""

    @abstractmethod
    def reply(self, feedback: str, attempt: int) -> str:
        """The user message after so many failed attempts."""

    def messages(self) -> list[Message]:
        """The dialogue so far; it ends with the user message that waits for an answer, or the last answer."""
        return [dict(message) for message in self._messages]

    def submit(self, response: str) -> Step:
        """Grade one response and advance.

        Raises:
            RuntimeError: if the episode is over.
        """
        if self.done:
            raise RuntimeError("the episode is over: no further response can be submitted.")
        verdict = self.grade(response)
        attempt = Attempt(response, verdict)
        self.attempts.append(attempt)
        self._messages.append({"role": "assistant", "content": response})
        self._solved = verdict.correct
        count = len(self.attempts)
        truncated = count >= self._most and not verdict.correct
        reward = verdict.reward + (self._penalty if truncated else 0.0)
        self._rewards += reward
        reply = None
        if not self.done:
            reply = self.reply(verdict.feedback, count)
            self._messages.append({"role": "user", "content": reply})
        return Step(attempt, reward, terminated=verdict.correct, truncated=truncated, reply=reply)

    @property
    def solved(self) -> bool:
        """True if an attempt was correct."""
        return self._solved

    @property
    def done(self) -> bool:
        """True if the episode is over."""
        return self._solved or len(self.attempts) >= self._most

    def metrics(self) -> dict[str, float]:
        """Numbers about the episode.

        Returns:
            ``solved``, ``attempts``, ``first_try`` (solved by the first attempt), ``reward_total``, and for
            every outcome ``outcome/<name>``, its share of the attempts. All are 0 before the first attempt.
        """
        attempts = len(self.attempts)
        numbers = {
            "solved": float(self._solved),
            "attempts": float(attempts),
            "first_try": float(self._solved and attempts == 1),
            "reward_total": self._rewards,
        }
        for outcome in self.outcomes:
            count = sum(attempt.verdict.outcome == outcome for attempt in self.attempts)
            numbers[f"outcome/{outcome}"] = count / attempts if attempts else 0.0
        return numbers


def check_attempts(max_attempts: object, exceeded_penalty: object) -> None:
    """Refuse a number of attempts or a penalty that is none.

    Raises:
        SftrlError: naming the fact.
    """
    if isinstance(max_attempts, bool) or not isinstance(max_attempts, int) or max_attempts < 1:
        raise SftrlError(f"max_attempts is {max_attempts!r}, expected a whole number >= 1.")
    if not is_number(exceeded_penalty):
        raise SftrlError(f"exceeded_penalty is {exceeded_penalty!r}, expected a number.")

"""Environment of TRL's ``GRPOTrainer(environment_factory=EpisodeEnvironment)``.

TRL talks to an environment through tools: the model answers by calling ``answer``, whose result is the
verifier's feedback, and the reward of the whole dialogue is the sum of the rewards of its turns. So the chat
template must have tools, and there is one advantage per dialogue, not one per turn as in our own trainer.
Pictures are not shown.
"""

from __future__ import annotations

from typing import Any

from sftrl_ext.bridges.rows import find_rows
from sftrl_ext.envs import make_episode
from sftrl_ext.envs.base import Episode, Message, facts_text, parse_facts
from sftrl_ext.errors import SftrlError


def prompts(data: str = "", *, task: str = "", train: bool = True, **options: Any) -> list[dict[str, Any]]:
    """Records for ``datasets.Dataset.from_list``: prompts, and the facts that `EpisodeEnvironment` plays.

    Args:
        data: Parquet file from ``sftrl data rl``; by default rows are built.
        task: Registered task to build rows of.
        train: Build rows of the training stream.
        options: Further options of `find_rows`.

    Raises:
        SftrlError: for rows that cannot be built, or that show pictures.
    """
    rows = find_rows(data, task=task, train=train, **options).facts
    records = [{"prompt": make_episode(facts).messages(), "facts": facts_text(facts)} for facts in rows]
    if rows and make_episode(rows[0]).images():
        raise SftrlError("the rows show pictures, which a tool of TRL returns as text; expected text rows.")
    return records


class EpisodeEnvironment:
    """Plays one episode at a time; TRL creates as many as it samples dialogues at once.

    Every public method but `reset` and `get_reward` is a tool for the model, so there is one.
    """

    _instruction = "\n\nGive each answer as the argument of the tool `answer`. It returns feedback."
    """Appended to the prompt."""

    def __init__(self) -> None:
        self._episode: Episode | None = None
        self._return = 0.0

    def reset(self, *, facts: str, **columns: Any) -> str:
        """Begin the episode of a record of `prompts`, and return what is appended to its prompt."""
        self._episode = make_episode(parse_facts(facts, "column 'facts'"))
        self._return = 0.0
        return self._instruction

    def answer(self, response: str) -> str:
        """Submit an answer to the verifier.

        Args:
            response: The whole answer, in the format that the task describes.

        Returns:
            Feedback of the verifier.
        """
        if self._episode is None or self._episode.done:
            return "The episode is over."
        step = self._episode.submit(response)
        self._return += step.reward
        if step.new_prompt:
            return _user_text(self._episode.messages())
        return step.reply or step.attempt.verdict.feedback or step.attempt.verdict.outcome

    def get_reward(self) -> float:
        """Return of the episode; one without an answer is graded as an empty response."""
        if self._episode is not None and not self._episode.attempts:
            self.answer("")
        return self._return


def _user_text(messages: list[Message]) -> str:
    return "\n\n".join(message["content"] for message in messages if message["role"] == "user")

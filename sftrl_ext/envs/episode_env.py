"""Base of the Gymnasium environments of all tasks: one response text per step of an episode."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

import gymnasium
from gymnasium import spaces

from sftrl_ext.envs.base import Episode, Verdict
from sftrl_ext.envs.spaces import ImagesSpace, MessagesSpace, TextSpace
from sftrl_ext.errors import unknown_name

E = TypeVar("E", bound=Episode)


class EpisodeEnv(gymnasium.Env[dict[str, Any], str], Generic[E]):
    """Plays episodes; a task's environment says how one is made and what is known about it.

    Args:
        image_size: Width and height in pixels of the pictures that are shown; None if there are none.
    """

    metadata: dict[str, Any] = {"render_modes": []}

    def __init__(self, image_size: tuple[int, int] | None) -> None:
        shown: dict[str, spaces.Space[Any]] = {"messages": MessagesSpace()}
        if image_size is not None:
            shown["images"] = ImagesSpace(*image_size)
        self.observation_space = spaces.Dict(shown)
        self.action_space = TextSpace()
        self._episode: E | None = None
        self._shows_images = image_size is not None

    @property
    def episode(self) -> E:
        """The episode being played.

        Raises:
            gymnasium.error.ResetNeeded: before the first `reset`.
        """
        if self._episode is None:
            raise gymnasium.error.ResetNeeded("call reset before step.")
        return self._episode

    def step(self, action: str) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Grade one response.

        Args:
            action: The whole response text, any text.

        Raises:
            RuntimeError: if the episode is over.
        """
        step = self.episode.submit(action)
        info = self._info(step.attempt.verdict)
        return self._observation(), step.reward, step.terminated, step.truncated, info

    @abstractmethod
    def _info(self, verdict: Verdict | None) -> dict[str, Any]:
        """State of the episode, after a verdict if there is one; it ends with `verdict_info`."""

    def _observation(self) -> dict[str, Any]:
        seen: dict[str, Any] = {"messages": self.episode.messages()}
        if self._shows_images:
            seen["images"] = [image.copy() for image in self.episode.images()]
        return seen


def checked_options(options: Mapping[str, Any] | None, accepted: Iterable[str]) -> Mapping[str, Any]:
    """The options of a reset, if all are accepted.

    Raises:
        SftrlError: for one that is not, with the nearest name.
    """
    for key in options or {}:
        if key not in accepted:
            raise unknown_name("reset option", key, accepted)
    return options or {}


def verdict_info(verdict: Verdict | None) -> dict[str, Any]:
    """Entries of `info` about the last response; ``details`` and ``recognized`` only after one."""
    info: dict[str, Any] = {
        "outcome": verdict.outcome if verdict else None,
        "grade_reward": verdict.reward if verdict else None,
        "feedback": verdict.feedback if verdict else None,
    }
    if verdict is not None:
        info["details"] = dict(verdict.details)
        if "recognized" in verdict.details:
            info["recognized"] = verdict.details["recognized"]
    return info

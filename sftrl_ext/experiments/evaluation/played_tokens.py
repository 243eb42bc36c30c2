"""Episodes as the tokens that a model wrote: stored when they are played, replayed for another engine.

Everything else of an episode (prompts, pictures, feedback) follows from the facts of its instance and these
tokens, so a replay gives the segments as they were played, pictures included.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from sftrl_ext.envs.task import make_episode
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.evaluation.evaluate import EvalPlay
from sftrl_ext.experiments.evaluation.targets import EvalSet
from sftrl_ext.rollout.player import Generation, PlayedEpisode, Segment, play
from sftrl_ext.rollout.tokens import ChatTokens
from sftrl_ext.runs.played import Turns

if TYPE_CHECKING:
    from PIL.Image import Image


def turns_of(episode: PlayedEpisode) -> Turns:
    """The tokens that the model wrote, turn after turn, over all segments."""
    return [turn for segment in episode.segments for turn in _turns(segment)]


def _turns(segment: Segment) -> Iterator[list[int]]:
    pairs = list(zip(segment.turn_ids, segment.response_ids, strict=True))
    for number in range(1, max(segment.turn_ids, default=0) + 1):
        yield [token for turn, token in pairs if turn == number]


async def replay(
    settings: EvalPlay, chosen: EvalSet, index: int, turns: Turns, chat: ChatTokens
) -> PlayedEpisode:
    """Play an instance of a split with the tokens that were written.

    Args:
        settings: Token budget of the evaluation.
        chosen: The split.
        index: The instance.
        turns: What `turns_of` gave.
        chat: Tokens of the model's chat template.

    Raises:
        SftrlError: if the episode ends earlier than it did.
    """
    position = 0

    async def generate(
        prompt_ids: list[int], sampling_params: dict[str, Any], images: Sequence[Image]
    ) -> Generation:
        nonlocal position
        if position == len(turns):  # an error of the engine ended the episode here
            raise RuntimeError("no further turn was played")
        position += 1
        return Generation(turns[position - 1])

    played = await play(make_episode(chosen.facts[index]), generate, chat, settings.limits)
    if turns_of(played) != turns:
        raise SftrlError(
            f"instance {index} of split {chosen.split!r}: {len(turns)} turns were played, but a replay "
            f"ends after {len(turns_of(played))}: the task or its limits have changed since."
        )
    return played

"""Play one episode: prompt, response, verdict, feedback, and again, until it is solved or out of attempts.

The reinforcement-learning rollout and the evaluation of checkpoints both play episodes here, with an engine
of their own behind `generate`; so prompts, grading and limits are the same in both.

An episode is a list of segments. A segment is one prompt with the turns that follow it in one dialogue. A
hand of cards has one; a task whose prompt is rebuilt on the way (`Step.new_prompt`) has one per prompt.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sftrl_ext.envs.base import Episode, Message, Step, count_markers
from sftrl_ext.errors import SftrlError
from sftrl_ext.rollout.tokens import ChatTokens, Dialogue

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Generation:
    """Response of an engine to one prompt."""

    token_ids: list[int]
    """Generated ids, the stop token included if one was generated."""
    logprobs: list[float] | None = None
    """Log-probability of each id under the engine's model, or None."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further information of the engine, for the caller of `play`."""


Generate = Callable[[list[int], dict[str, Any], "Sequence[Image]"], Awaitable[Generation]]
"""``await generate(prompt_ids, sampling_params, images)``; ``max_tokens`` is the limit of this turn."""

TurnReward = Callable[[Episode, Step], float]
"""Reward of a turn for training, from the episode after the turn and the step that ended it."""


@dataclass(frozen=True)
class ImageWork:
    """Drawing and encoding of images outside the event loop.

    Attributes:
        executor: Runs it.
        keep: Part of the processor's tensors of a prompt to keep in `Segment.features`.
    """

    executor: Executor
    keep: Callable[[dict[str, Any]], dict[str, Any] | None]


@dataclass(frozen=True)
class Limits:
    """Token budget of an episode.

    A turn always starts with its full limit available: a feedback message that would leave less than
    ``turn`` tokens ends the episode instead. So a turn is cut only by ``turn``, never by its position.
    """

    prompt: int
    """Most tokens of a prompt, which is never cut, because a cut prompt would be another task. A longer one
    is an error at the start of an episode, and ends it on the way."""
    response: int
    """Most tokens after a prompt: all its turns and all feedback between them."""
    turn: int
    """Most tokens of one turn."""
    prompts: int | None = None
    """Most prompts of an episode whose prompt is rebuilt on the way; None for as many as it has."""

    def __post_init__(self) -> None:
        if self.prompts is not None and self.prompts < 1:
            raise SftrlError(f"an episode may have {self.prompts} prompts; expected at least 1, or no limit.")
        if not 0 < self.turn <= self.response:
            raise SftrlError(
                f"a turn may use {self.turn} tokens and the whole response {self.response}: "
                "the first must be at least 1 and fit into the second."
            )


@dataclass
class Segment:
    """One prompt and the turns that followed it; per-token lists run over ``response_ids``."""

    prompt_ids: list[int]
    response_ids: list[int]
    response_mask: list[int]
    turn_ids: list[int]
    """The turn (1, 2, ..) that wrote the token, or 0 for a token the model did not write."""
    logprobs: list[float] | None
    turn_rewards: list[float]
    """Reward of turn 1, 2, ..; it belongs to the last token with that turn id."""
    images: Sequence[Image] = ()
    """Images of the prompt, in order."""
    features: dict[str, Any] | None = None
    """What `ImageWork.keep` kept of the processor's tensors."""
    messages: list[Message] = field(default_factory=list)
    """The dialogue, for people to read."""

    def token_rewards(self) -> list[float]:
        """Dense rewards over ``response_ids``: each on its turn's last model token, 0.0 elsewhere."""
        rewards = [0.0] * len(self.turn_ids)
        # Later positions overwrite earlier ones of the same turn.
        last = {turn: position for position, turn in enumerate(self.turn_ids)}
        for turn, reward in enumerate(self.turn_rewards, start=1):
            if turn in last:
                rewards[last[turn]] = reward
        return rewards


@dataclass
class PlayedEpisode:
    """An episode after its end: its tokens, its steps, and what it cost."""

    segments: list[Segment] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    """The dialogue of the last segment, for people to read."""
    solved: bool = False
    out_of_tokens: bool = False
    """The budget of tokens or prompts ended the episode, not the task."""
    error: str | None = None
    """The error that ended the episode: a first prompt over the limit, or a ``fault``."""
    fault: Exception | None = None
    """The exception of the engine, the task or the reward that ended the episode. Training leaves such an
    episode out of the loss, and no evaluation counts it."""
    cut_turns: int = 0
    """Turns that reached the limit of a turn before the model ended them."""
    prompt_tokens: int = 0
    generated_tokens: int = 0
    feedback_tokens: int = 0
    prefill_tokens: int = 0
    """Context tokens an engine without a prefix cache reads: for each turn, everything before it."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Metrics of the task (`Episode.metrics`)."""
    extra: list[Mapping[str, Any]] = field(default_factory=list)
    """`Generation.extra` of each turn."""

    @property
    def rewards(self) -> list[float]:
        """The rewards of all turns, in order."""
        return [reward for segment in self.segments for reward in segment.turn_rewards]


async def play(
    episode: Episode,
    generate: Generate,
    chat: ChatTokens,
    limits: Limits,
    *,
    sampling_params: Mapping[str, Any] | None = None,
    turn_reward: TurnReward | None = None,
    image_work: ImageWork | None = None,
) -> PlayedEpisode:
    """Play an episode to its end.

    An exception in the engine, the task or the reward ends this episode only: it is logged with its traceback
    and kept in ``fault``, and so are the turns played until then. If the budget ends it, every turn
    played keeps its reward.

    Args:
        episode: A fresh episode; it is played in place.
        generate: The engine.
        chat: Tokens of the model's chat template.
        limits: The token budget.
        sampling_params: Passed on to ``generate`` with ``max_tokens`` added.
        turn_reward: Reward of a turn for training; by default the step's reward.
        image_work: Draws and encodes prompts with images; by default the event loop does.
    """
    played = PlayedEpisode()
    rewards: list[float] = []
    dialogue: Dialogue | None = None
    try:
        while True:
            # A new prompt: at the start, and wherever the task rebuilds it.
            if dialogue is None:
                if len(played.segments) == limits.prompts:
                    played.out_of_tokens = True
                    break
                opened = await _open(chat, episode, image_work)
                # The first prompt shows a wrong limit or template; a later one only a long episode.
                if len(opened.prompt_ids) > limits.prompt:
                    if not played.segments:
                        played.error = _too_long(opened, limits)
                        logger.error("an episode was not begun: %s", played.error)
                    played.out_of_tokens = bool(played.segments)
                    break
                dialogue = opened
                played.prompt_tokens += len(dialogue.prompt_ids)
            step = await _take_turn(episode, dialogue, generate, limits, sampling_params, played)
            rewards.append(step.reward if turn_reward is None else float(turn_reward(episode, step)))
            if step.done:
                break
            if step.new_prompt:
                _close(played, dialogue, rewards)
                dialogue, rewards = None, []
                continue
            if step.reply is None:
                raise SftrlError(
                    f"{type(episode).__name__} goes on after a step without a reply or a new prompt."
                )
            # The next turn must fit after the feedback in full, or the episode ends before it.
            feedback = dialogue.feedback_ids(step.reply)
            if len(dialogue.response_mask) + feedback.added + limits.turn > limits.response:
                played.out_of_tokens = True
                break
            dialogue.add_feedback(feedback)
            played.feedback_tokens += feedback.added
    except Exception as error:  # raised by evaluation, left out by training
        logger.exception("an episode ended with an error after %d turns", len(played.steps))
        played.error, played.fault = f"{type(error).__name__}: {error}", error
    if dialogue is not None:
        _close(played, dialogue, rewards)
    played.solved = episode.solved
    played.metrics = episode.metrics()
    return played


async def _open(chat: ChatTokens, episode: Episode, image_work: ImageWork | None) -> Dialogue:
    """Encode the messages of an episode."""
    messages = episode.messages()
    if image_work is None or not count_markers(messages):
        return Dialogue.start(chat, messages, episode.images())
    return await asyncio.get_running_loop().run_in_executor(
        image_work.executor, lambda: Dialogue.start(chat, messages, episode.images(), image_work.keep)
    )


def _too_long(dialogue: Dialogue, limits: Limits) -> str:
    return (
        f"a prompt has {len(dialogue.prompt_ids)} tokens, more than the limit of {limits.prompt}: "
        "raise data.max_prompt_length, or use a shorter prompt template."
    )


async def _take_turn(
    episode: Episode,
    dialogue: Dialogue,
    generate: Generate,
    limits: Limits,
    sampling_params: Mapping[str, Any] | None,
    played: PlayedEpisode,
) -> Step:
    played.prefill_tokens += len(dialogue.ids)
    params = {**(sampling_params or {}), "max_tokens": limits.turn}
    generation = await generate(list(dialogue.ids), params, dialogue.images)
    # Never beyond the limit, whatever the engine returns.
    ids = generation.token_ids[: limits.turn]
    if not ids:
        raise RuntimeError("the engine generated no token, not even the end of the turn")
    logprobs = None if generation.logprobs is None else generation.logprobs[: limits.turn]
    text = dialogue.add_turn(ids, logprobs)
    played.generated_tokens += len(ids)
    played.cut_turns += len(ids) == limits.turn and ids[-1] not in dialogue.chat.stops
    played.extra.append(generation.extra)
    played.messages = dialogue.messages
    step = episode.submit(text)
    played.steps.append(step)
    return step


def _close(played: PlayedEpisode, dialogue: Dialogue, rewards: list[float]) -> None:
    played.segments.append(
        Segment(
            prompt_ids=dialogue.prompt_ids,
            response_ids=dialogue.response_ids,
            response_mask=list(dialogue.response_mask),
            turn_ids=list(dialogue.turn_ids),
            logprobs=dialogue.logprobs,
            turn_rewards=list(rewards),
            images=dialogue.images,
            features=dialogue.features,
            messages=dialogue.messages,
        )
    )
    played.messages = dialogue.messages

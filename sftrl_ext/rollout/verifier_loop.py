"""Agent loop `verifier`: verl's rollout workers play episodes and return their tokens to the trainer.

A row's ``extra_info.facts`` rebuilds its episode; nothing else of the row decides what is played. Every
turn's reward sits on its last model token, and ``turn_ids`` tells the trainer which turn wrote which token.

Settings (all under ``sftrl.rollout`` of the training config, all optional):
    max_turn_tokens: Most tokens of one turn; by default a sixth of the response length, so that five
        attempts with feedback fit, but at most 512.
    max_prompts: Most prompts of an episode whose prompt is rebuilt on the way, such as the points of a route;
        the episode ends there as one out of tokens does. By default as many as there are.
    reward: Name of a reward function of `sftrl_ext.reward_fns`; without one, the default of the row's data
        source, and without that the step's own reward.
    seeded: Seed every response by its prompt, its index in the group and its turn, so that the same run gives
        the same episodes in whatever order they end.
"""

from __future__ import annotations

import logging
import time
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import torch
from PIL.Image import Image
from ray.exceptions import RayActorError
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register

import sftrl_ext.envs  # noqa: F401  registers the tasks
from sftrl_ext.envs.base import IMAGE_MARKER, Episode, parse_facts
from sftrl_ext.envs.task import make_episode
from sftrl_ext.errors import SftrlError
from sftrl_ext.reward_fns import find_reward, turn_reward
from sftrl_ext.rollout import AGENT_LOOP
from sftrl_ext.rollout.episode_client import EpisodeClient
from sftrl_ext.rollout.metrics import episode_metrics
from sftrl_ext.rollout.pacing import TimeSlices
from sftrl_ext.rollout.player import Generation, ImageWork, Limits, PlayedEpisode, Segment, TurnReward, play
from sftrl_ext.rollout.tokens import chat_tokens
from sftrl_ext.rollout.trained_images import processor_arguments, trainer_features

if TYPE_CHECKING:
    from verl.workers.rollout.replica import TokenOutput

logger = logging.getLogger(__name__)
# verl warns once per episode that a Llama has no token builder of its own; `ChatTokens` closes turns for it.
logging.getLogger("verl.utils.tokenizer.continuous_token_wiring").setLevel(logging.ERROR)


def default_turn_tokens(response_tokens: int) -> int:
    """Most tokens of one turn, unless the config sets them."""
    return max(1, min(512, response_tokens // 6))


class TurnsOutput(AgentLoopOutput):
    """One segment of an episode, with dense rewards and the turn of every token."""

    turn_ids: list[int]
    """Per response token, the turn (1, 2, ..) that wrote it, or 0."""
    token_rewards: list[float]
    """Per response token, the reward of the turn that ends there, or 0.0."""
    image_features: dict[str, Any] | None = None
    """The trainer's tensors of the prompt's images, as `trainer_features` gives them."""

    def as_dict(self) -> dict[str, Any]:
        """Fields for TransferQueue: ``rm_scores`` dense, ``turn_ids`` as a tensor of the same length.

        They are those of verl's outputs, without the images and the processor's arguments, which the worker
        has used by then.
        """
        extra = dict(self.extra_fields)
        teacher = {name: extra.pop(name, None) for name in ("teacher_ids", "teacher_logprobs")}
        fields = {
            "num_turns": self.num_turns,
            "metrics": self.metrics.model_dump(exclude_unset=True),
            "extra_fields": extra,
            "prompts": _tensor(self.prompt_ids, np.int64),
            "responses": _tensor(self.response_ids, np.int64),
            "response_mask": _tensor(self.response_mask, np.int64),
            "rm_scores": _tensor(self.token_rewards, np.float32),
            "turn_ids": _tensor(self.turn_ids, np.int64),
        }
        if self.response_logprobs is not None:
            fields["rollout_log_probs"] = _tensor(self.response_logprobs, np.float32)
        return {**fields, **{name: value for name, value in teacher.items() if value is not None}}


def _tensor(values: Sequence[float], dtype: type[np.generic]) -> torch.Tensor:
    """Tensor of a list; numpy converts lists faster than torch."""
    return torch.from_numpy(np.array(values, dtype=dtype))


@register(AGENT_LOOP)
class VerifierLoop(AgentLoopBase):
    """Plays one row's episode against the rollout engine."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = (self.config.get("sftrl") or {}).get("rollout") or {}
        response = int(self.rollout_config.response_length)
        turn = int(settings.get("max_turn_tokens") or default_turn_tokens(response))
        prompts = settings.get("max_prompts")
        self.limits = Limits(
            prompt=int(self.rollout_config.prompt_length),
            response=response,
            turn=turn,
            prompts=None if prompts is None else int(prompts),
        )
        self.reward_name: str | None = settings.get("reward")
        self.seeded = bool(settings.get("seeded"))
        # Read once, since OmegaConf resolves every access anew.
        self.seed = getattr(self.rollout_config, "seed", 0)
        self.full_determinism = bool(getattr(self.rollout_config, "full_determinism", False))
        self.slices = TimeSlices()
        self.image_work = ImageWork(_image_thread(), partial(trainer_features, self.processor))

    async def run(  # type: ignore[override]  # verl's queue takes lists too
        self, sampling_params: dict[str, Any], **kwargs: Any
    ) -> list[AgentLoopOutput]:
        """Play the episode of a row.

        Args:
            sampling_params: verl's sampling parameters of this phase.
            **kwargs: The row, as verl's data set gives it.

        Returns:
            One output per segment. An episode that ended in an error gives one row without any trained token.
        """
        await self.slices.wait()
        started = time.perf_counter()
        steps = int(kwargs.get("global_steps", 1))
        try:
            played = await self._play(sampling_params, kwargs)
        except Exception as error:  # the row is left out of the update, and of the means of scores
            logger.exception("a row could not be played (index %s)", kwargs.get("index"))
            played = PlayedEpisode(error=f"{type(error).__name__}: {error}", fault=error)
        # One entry per turn: (first, last) policy version that wrote tokens of it, or None.
        turns = [extra.get("versions") for extra in played.extra]
        versions = [version for turn in turns if turn is not None for version in turn]
        fields = {
            "reward_extra_info": episode_metrics(played),
            "min_global_steps": min(versions, default=steps - 1),
            "max_global_steps": max(versions, default=steps - 1),
        }
        if played.error is not None:
            fields["error"] = played.error
            fields["engine_lost"] = isinstance(played.fault, RayActorError)
        segments = played.segments if played.error is None else [self._empty_segment(played)]
        metrics = AgentLoopMetrics(generate_sequences=time.perf_counter() - started)
        outputs: list[AgentLoopOutput] = []
        for segment in segments:
            count = len(segment.turn_rewards)
            outputs.append(self._output(segment, metrics, {**fields, "turn_versions": turns[:count]}))
            turns = turns[count:]
        return outputs

    async def _play(self, sampling_params: dict[str, Any], row: Mapping[str, Any]) -> PlayedEpisode:
        facts = facts_of_row(row)
        episode = episode_of_row(row, facts)
        # One id per episode keeps its turns on one server, whose cache holds the earlier ones.
        request_id = f"det-{row.get('priority', 0)}" if self.full_determinism else uuid4().hex

        name, turn = f"{self.seed}/{row.get('uid')}/{row.get('session_id')}", 0

        async def generate(
            prompt_ids: list[int], params: dict[str, Any], images: Sequence[Image]
        ) -> Generation:
            nonlocal turn
            shown = {"image_data": list(images)} if images else {}
            if self.seeded:
                params = {**params, "seed": zlib.crc32(f"{name}/{turn}".encode())}
            turn += 1
            output = await self.server_manager.generate(
                request_id=request_id, prompt_ids=prompt_ids, sampling_params=params, **shown
            )
            await self.slices.wait()
            return Generation(list(output.token_ids), output.log_probs or None, policy_versions(output))

        played = play(
            episode,
            generate,
            chat_tokens(self.continuous_token_builder),
            self.limits,
            sampling_params=sampling_params,
            turn_reward=self._turn_reward(row, facts),
            image_work=self.image_work,
        )
        try:
            return await played
        finally:
            if isinstance(self.server_manager, EpisodeClient):
                self.server_manager.end(request_id)

    def _turn_reward(self, row: Mapping[str, Any], facts: Mapping[str, Any]) -> TurnReward | None:
        source = str(row.get("data_source", ""))
        if self.reward_name is None and not has_reward(source):
            return None
        return lambda episode, step: turn_reward(step, facts, source, self.reward_name)

    def _empty_segment(self, played: PlayedEpisode) -> Segment:
        """Row of an episode that failed: its prompt if there was one, one token, no loss, no reward."""
        filler = min(chat_tokens(self.continuous_token_builder).eos, default=0)
        if not played.segments:
            return Segment([filler], [filler], [0], [0], [0.0], [])
        first = played.segments[0]
        return Segment(first.prompt_ids, [filler], [0], [0], [0.0], [], first.images, first.features)

    def _output(
        self, segment: Segment, metrics: AgentLoopMetrics, extra_fields: dict[str, Any]
    ) -> TurnsOutput:
        # Validation would copy every list, token by token.
        return TurnsOutput.model_construct(
            prompt_ids=segment.prompt_ids,
            response_ids=segment.response_ids,
            response_mask=segment.response_mask,
            response_logprobs=segment.logprobs,
            reward_score=float(sum(segment.turn_rewards)),
            num_turns=len(segment.turn_rewards),
            metrics=metrics,
            extra_fields=extra_fields,
            multi_modal_data={"images": list(segment.images)} if segment.images else None,
            mm_processor_kwargs=processor_arguments(self.processor, segment.images),
            image_features=segment.features,
            turn_ids=segment.turn_ids,
            token_rewards=segment.token_rewards(),
        )


def policy_versions(output: TokenOutput) -> dict[str, list[int]]:
    """``versions``: the first and the last policy that wrote tokens of a response, where the engine says.

    They differ when an asynchronous trainer interrupted the response for an update of the weights.
    """
    first, last = (output.extra_fields.get(f"{end}_global_steps") for end in ("min", "max"))
    # Not every engine reports versions.
    return {} if first is None or last is None else {"versions": [int(first), int(last)]}


def facts_of_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Parse the facts that rebuild a row's episode.

    Raises:
        SftrlError: if ``extra_info.facts`` is not JSON text of an object.
    """
    info = row.get("extra_info") or {}
    return parse_facts(info.get("facts"), f"row {info.get('index')}: extra_info.facts")


def episode_of_row(row: Mapping[str, Any], facts: Mapping[str, Any]) -> Episode:
    """Rebuild a row's episode.

    Args:
        row: If it comes from verl's data set, it has the prompt as ``raw_prompt``.
        facts: See `facts_of_row`.

    Raises:
        SftrlError: if the facts are malformed, or the row's prompt is not the one they give (the prompt
            template changed after the data were built).
    """
    episode = make_episode(facts)
    prompt = row.get("raw_prompt")
    if prompt is not None and [_as_text(message) for message in prompt] != episode.messages():
        index = (row.get("extra_info") or {}).get("index")
        raise SftrlError(
            f"row {index}: the column prompt is not what the row's facts give now; "
            "the prompt template has changed since the data were built: build them again."
        )
    return episode


def _as_text(message: Mapping[str, Any]) -> dict[str, Any]:
    """Message with image markers in place of the picture blocks that verl's data set makes."""
    content = message["content"]
    if isinstance(content, str):
        return dict(message)
    texts = [part["text"] if part["type"] == "text" else IMAGE_MARKER for part in content]
    return {**message, "content": "".join(texts)}


def has_reward(data_source: str) -> bool:
    """True if a data source has a default reward function."""
    try:
        find_reward(data_source)
    except SftrlError:
        return False
    return True


@cache
def _image_thread() -> ThreadPoolExecutor:
    """Thread that draws and encodes the images of a process.

    One, because drawing holds the interpreter's lock for part of its time, which the event loop needs too.
    """
    return ThreadPoolExecutor(1, "images")

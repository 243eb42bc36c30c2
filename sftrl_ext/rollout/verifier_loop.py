"""The agent loop `verifier`: verl's rollout workers play episodes with `play` and hand the tokens to the trainer.

A row's ``extra_info.facts`` rebuilds its episode; nothing else of the row decides what is played. Every turn's
reward sits on the turn's last model token, and ``turn_ids`` tells the trainer which turn wrote which token.

Settings (all under ``sftrl.rollout`` of the training config, all optional):
    max_turn_tokens: Most tokens of one turn (512, or the whole response length if that is shorter).
    reward: Name of a per-turn reward of `sftrl_ext.reward_fns`; without one, the verifier's own grade.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import torch
from verl.experimental.agent_loop.agent_loop import AgentLoopBase, AgentLoopMetrics, AgentLoopOutput, register

import sftrl_ext.envs  # noqa: F401  registers the tasks
from sftrl_ext.envs.base import Episode, make_episode
from sftrl_ext.errors import SftrlError
from sftrl_ext.rollout.metrics import episode_metrics
from sftrl_ext.rollout.player import Generation, Limits, PlayedEpisode, Segment, TurnReward, play
from sftrl_ext.rollout.tokens import chat_tokens

logger = logging.getLogger(__name__)
# verl warns once per episode that a Llama has no token builder of its own; `ChatTokens` closes turns for it.
logging.getLogger("verl.utils.tokenizer.continuous_token_wiring").setLevel(logging.ERROR)

DEFAULT_TURN_TOKENS = 512
"""Most tokens of one turn when the config does not say."""


class TurnsOutput(AgentLoopOutput):
    """One segment of an episode, with dense rewards and the turn of every token."""

    turn_ids: list[int]
    """Per response token, the turn (1, 2, ..) that wrote it, or 0."""
    token_rewards: list[float]
    """Per response token, the reward of the turn that ends there, or 0.0."""

    def as_dict(self) -> dict[str, Any]:
        """What goes into TransferQueue: ``rm_scores`` dense, ``turn_ids`` as a tensor of the same length."""
        output = super().as_dict()
        output["rm_scores"] = torch.tensor(output.pop("token_rewards"), dtype=torch.float32)
        output["turn_ids"] = torch.tensor(output.pop("turn_ids"), dtype=torch.int64)
        return output


@register("verifier")
class VerifierLoop(AgentLoopBase):
    """Plays one row's episode against the rollout engine."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        settings = (self.config.get("sftrl") or {}).get("rollout") or {}
        response = int(self.rollout_config.response_length)
        turn = int(settings.get("max_turn_tokens") or min(DEFAULT_TURN_TOKENS, response))
        self.limits = Limits(prompt=int(self.rollout_config.prompt_length), response=response, turn=turn)
        self.reward_name: str | None = settings.get("reward")

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> list[AgentLoopOutput]:
        """Play the episode of a row.

        Args:
            sampling_params: verl's sampling parameters of this phase.
            **kwargs: The row, as verl's data set gives it.

        Returns:
            One output per segment. An episode that ended in an error gives one row without any trained token.
        """
        started = time.perf_counter()
        steps = int(kwargs.get("global_steps", 1))
        versions: list[int] = []
        try:
            played = await self._play(sampling_params, kwargs, versions)
        except Exception as error:
            logger.exception("a row could not be played (index %s)", kwargs.get("index"))
            played = PlayedEpisode(error=f"{type(error).__name__}: {error}")
        fields = {
            "reward_extra_info": episode_metrics(played),
            "min_global_steps": min(versions, default=steps - 1),
            "max_global_steps": max(versions, default=steps - 1),
        }
        if played.error is not None:
            fields["error"] = played.error
        segments = played.segments if played.error is None else [self._empty_segment(played)]
        metrics = AgentLoopMetrics(generate_sequences=time.perf_counter() - started)
        return [self._output(segment, metrics, dict(fields)) for segment in segments]

    async def _play(
        self, sampling_params: dict[str, Any], row: Mapping[str, Any], versions: list[int]
    ) -> PlayedEpisode:
        episode = episode_of_row(row)
        determined = bool(getattr(self.rollout_config, "full_determinism", False))
        request_id = f"det-{row.get('priority', 0)}" if determined else uuid4().hex

        async def generate(prompt_ids: list[int], params: dict[str, Any]) -> Generation:
            output = await self.server_manager.generate(
                request_id=request_id, prompt_ids=prompt_ids, sampling_params=params
            )
            for key in ("min_global_steps", "max_global_steps"):
                version = output.extra_fields.get(key)
                if version is not None:
                    versions.append(int(version))
            return Generation(list(output.token_ids), output.log_probs or None)

        return await play(
            episode,
            generate,
            chat_tokens(self.continuous_token_builder),
            self.limits,
            sampling_params=sampling_params,
            turn_reward=self._turn_reward(row),
        )

    def _turn_reward(self, row: Mapping[str, Any]) -> TurnReward | None:
        return None

    def _empty_segment(self, played: PlayedEpisode) -> Segment:
        """The row of an episode that failed: its prompt if it got that far, one token, no loss, no reward."""
        nothing = int(self.tokenizer.eos_token_id)
        prompt = played.segments[0].prompt_ids if played.segments else [nothing]
        return Segment(prompt, [nothing], [0], [0], [0.0], [])

    @staticmethod
    def _output(segment: Segment, metrics: AgentLoopMetrics, extra_fields: dict[str, Any]) -> TurnsOutput:
        return TurnsOutput(
            prompt_ids=segment.prompt_ids,
            response_ids=segment.response_ids,
            response_mask=segment.response_mask,
            response_logprobs=segment.logprobs,
            reward_score=float(sum(segment.turn_rewards)),
            num_turns=len(segment.turn_rewards),
            metrics=metrics,
            extra_fields=extra_fields,
            turn_ids=segment.turn_ids,
            token_rewards=segment.token_rewards(),
        )


def episode_of_row(row: Mapping[str, Any]) -> Episode:
    """Rebuild a row's episode from its facts.

    Args:
        row: Has ``extra_info.facts`` (JSON) and, if it comes from verl's data set, ``raw_prompt``.

    Raises:
        SftrlError: if the facts are missing or malformed, or if the row's prompt is not the one its facts give
            (the prompt template changed after the data were built).
    """
    info = row.get("extra_info") or {}
    facts = info.get("facts")
    if not isinstance(facts, str):
        raise SftrlError(f"row {info.get('index')}: extra_info.facts is {facts!r}, expected the episode's facts as JSON.")
    episode = make_episode(json.loads(facts))
    prompt = row.get("raw_prompt")
    if prompt is not None and [dict(message) for message in prompt] != episode.messages():
        raise SftrlError(
            f"row {info.get('index')}: the column prompt is not what the row's facts give now; "
            "the prompt template has changed since the data were built: build them again."
        )
    return episode

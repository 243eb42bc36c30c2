"""verl's agent loop workers with one `VerifierLoop` for all episodes of a worker.

verl builds an agent loop for every episode by `hydra.utils.instantiate`, with the whole training config as an
argument, which takes longer than the environment does. A `VerifierLoop` holds nothing of an episode. Selected
with ``actor_rollout_ref.rollout.agent.agent_loop_manager_class``.
"""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Sequence
from typing import Any, cast

import ray
import torch
from tensordict import NonTensorData, TensorDict
from verl.experimental.agent_loop.agent_loop import DictConfigWrap
from verl.trainer.ppo.v1 import agent_loop_tq
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ
from verl.utils.tensordict_utils import list_of_dict_to_tensordict
from verl.workers.rollout.llm_server import LLMServerClient

from sftrl_ext.rollout import AGENT_LOOP
from sftrl_ext.rollout.episode_client import EpisodeClient
from sftrl_ext.rollout.gathered_puts import GatheredPuts, Row
from sftrl_ext.rollout.verifier_loop import TurnsOutput, VerifierLoop

logger = logging.getLogger(__name__)

_Worker: Any = cast(Any, AgentLoopWorkerTQ).__ray_metadata__.modified_class  # the class behind the Ray actor

PROMPTS_AT_ONCE = 16
"""Prompts whose episodes start in one iteration of the event loop."""


class VerifierLoopWorker(_Worker):
    """Plays the episodes of its prompts, all of them with one agent loop."""

    _verifier_loop: VerifierLoop | None = None
    llm_client: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._columns: dict[str, dict[str, Any]] = {}
        self._episodes = self._prompts = 0
        """Those in flight."""
        self._puts = GatheredPuts(_send_to_queue)
        # The clients of asynchronous trainers change servers within an episode.
        if type(self.llm_client) is LLMServerClient:
            self.llm_client = EpisodeClient.of(self.llm_client)
        # The collector need not visit the objects of imported libraries between two turns.
        gc.collect()
        gc.freeze()

    async def generate_sequences(self, batch: TensorDict) -> None:
        """Start the episodes of a batch, a few prompts in each iteration of the event loop."""
        # Slice by slice: splitting the whole batch first would itself take long.
        for first in range(0, len(batch), PROMPTS_AT_ONCE):
            await super().generate_sequences(batch[first : first + PROMPTS_AT_ONCE])
            await asyncio.sleep(0)

    async def _run_agent_loop(
        self,
        sampling_params: dict[str, Any],
        trajectory: dict[str, Any],
        *,
        agent_name: str,
        trace: bool = True,
        **row: Any,
    ) -> Any:
        if agent_name != AGENT_LOOP or trace:
            return await super()._run_agent_loop(
                sampling_params, trajectory, agent_name=agent_name, trace=trace, **row
            )
        if self._verifier_loop is None:
            self._verifier_loop = VerifierLoop(
                trainer_config=DictConfigWrap(self.config),
                server_manager=self.llm_client,
                tokenizer=self.tokenizer,
                processor=self.processor,
                hf_model_type=self.hf_model_type,
                dataset_cls=self.dataset_cls,
                data_config=DictConfigWrap(self.config.data),
            )
        self._episodes += 1
        try:
            output = await self._verifier_loop.run(sampling_params, **row)
        finally:
            self._episodes -= 1
        return await self._agent_loop_postprocess(output, trajectory["validate"], **row)

    async def _run_prompt(
        self,
        prompt: dict[str, Any],
        sampling_params: dict[str, Any],
        trajectory: dict[str, Any],
        trace: bool = False,
    ) -> None:
        """Play the episodes of a prompt, and give it the status that verl's worker would.

        The prompt's columns are wrapped once for the rows of all its episodes, and its status is stored with
        that of other prompts.
        """
        uid, validate = prompt["uid"], trajectory["validate"]
        settings = self.config.actor_rollout_ref.rollout
        count = prompt.pop("__rollout_n__", settings.val_kwargs.n if validate else settings.n)
        params = dict(sampling_params)
        if not prompt.pop("__do_sample__", True) and not validate:
            agent_loop_tq.apply_greedy_sampling_params(params)
        self._prompts += 1
        running = asyncio.ensure_future(self._put_status(uid, validate, "running"))
        self._columns[uid] = {
            name: value if isinstance(value, torch.Tensor) else NonTensorData(value)
            for name, value in prompt.items()
        }
        episodes = [
            self._run_agent_loop(params, trajectory=trajectory, trace=trace, session_id=session, **prompt)
            for session in range(count)
        ]
        # The status comes after the last row: a group that failed is cleared as soon as it says so.
        ends = await asyncio.gather(*episodes, return_exceptions=True)
        self._prompts -= 1
        del self._columns[uid]
        await running
        errors = [end for end in ends if isinstance(end, BaseException)]
        for error in errors:
            logger.error("an episode of the prompt %s was not stored", uid, exc_info=error)
        await self._put_status(uid, validate, "failure" if errors else "finished")

    async def _put_status(self, uid: str, validate: bool, status: str) -> None:
        partition, last = "val" if validate else "train", not self._prompts
        await self._puts.put([uid], partition, None, [{"status": status}], last=last)

    async def _agent_loop_postprocess(self, output: Any, validate: bool, **row: Any) -> None:
        """Put an episode's rows into TransferQueue; those of a text model are made here.

        They are verl's rows. Its scores and teachers are left to it: our episodes come with rewards.
        """
        if self.processor is not None or self.distillation_enabled or not _is_scored(output):
            await super()._agent_loop_postprocess(output, validate, **row)
            return
        uid, session = row["uid"], row["session_id"]
        columns = {name: self._columns[uid].get(name, value) for name, value in row.items()}
        rows = [self._row(segment, columns) for segment in output]
        keys = [f"{uid}_{session}_{index}" for index in range(len(rows))]
        tags = [_tags(fields, row["global_steps"]) for fields in rows]
        partition, last = "val" if validate else "train", not self._episodes
        await self._puts.put(keys, partition, rows, tags, last=last)

    def _compute_multi_modal_inputs(self, output: Any, input_ids: torch.Tensor) -> dict[str, Any]:
        """Tensors of an output's images: those kept from its prompt, where there are any."""
        features = getattr(output, "image_features", None)
        if features is not None:
            return dict(features)
        return super()._compute_multi_modal_inputs(output, input_ids)

    def _row(self, output: TurnsOutput, columns: dict[str, Any]) -> dict[str, Any]:
        """Columns of an output's row, as verl's worker makes them for a text model."""
        fields = output.as_dict()
        ids = torch.cat([fields["prompts"], fields["responses"]])
        return {
            **fields,
            **columns,
            "loss_mask": fields["response_mask"],
            "input_ids": ids,
            "position_ids": torch.arange(len(ids)),
            "multi_modal_inputs": {},
        }


async def _send_to_queue(
    keys: list[str], partition: str, rows: Sequence[Row] | None, tags: Sequence[Row]
) -> None:
    """Put rows and tags into TransferQueue; without rows the tags alone."""
    fields = list_of_dict_to_tensordict(list(rows)) if rows else None
    await agent_loop_tq.tq.async_kv_batch_put(keys=keys, fields=fields, tags=tags, partition_id=partition)


def _is_scored(outputs: Any) -> bool:
    """True for the outputs of a `VerifierLoop`."""
    return isinstance(outputs, list) and all(isinstance(output, TurnsOutput) for output in outputs)


def _tags(fields: dict[str, Any], global_steps: int) -> dict[str, Any]:
    """Tags of a row, as verl's worker makes them."""
    prompt, response = len(fields["prompts"]), len(fields["responses"])
    return {
        "status": "success",
        "prompt_len": prompt,
        "response_len": response,
        "seq_len": prompt + response,
        "global_steps": global_steps,
        "min_global_steps": fields["extra_fields"].get("min_global_steps"),
        "max_global_steps": fields["extra_fields"].get("max_global_steps"),
    }


class VerifierLoopManager(AgentLoopManagerTQ):
    """Starts a `VerifierLoopWorker` where verl starts its own worker."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(VerifierLoopWorker)

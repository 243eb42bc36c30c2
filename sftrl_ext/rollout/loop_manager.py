"""verl's agent loop workers with one `VerifierLoop` for all episodes of a worker.

verl builds an agent loop for every episode by `hydra.utils.instantiate`, with the whole training config as an
argument, which takes longer than the environment does. A `VerifierLoop` holds nothing of an episode. Selected
with ``actor_rollout_ref.rollout.agent.agent_loop_manager_class``.
"""

from __future__ import annotations

from typing import Any, cast

import ray
from verl.experimental.agent_loop.agent_loop import DictConfigWrap
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopManagerTQ, AgentLoopWorkerTQ

from sftrl_ext.rollout import AGENT_LOOP
from sftrl_ext.rollout.verifier_loop import VerifierLoop

_Worker: Any = cast(Any, AgentLoopWorkerTQ).__ray_metadata__.modified_class  # the class behind the Ray actor


class VerifierLoopWorker(_Worker):
    """Plays the episodes of its prompts, all of them with one agent loop."""

    _verifier_loop: VerifierLoop | None = None

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
        output = await self._verifier_loop.run(sampling_params, **row)
        return await self._agent_loop_postprocess(output, trajectory["validate"], **row)


class VerifierLoopManager(AgentLoopManagerTQ):
    """Starts a `VerifierLoopWorker` where verl starts its own worker."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.agent_loop_workers_class = ray.remote(VerifierLoopWorker)

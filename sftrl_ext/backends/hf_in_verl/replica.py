"""Replica and weight sender of the rollout `hf`: the two objects that verl creates of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import ray
import torch
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from verl.plugin.platform import get_platform
from verl.workers.rollout.base import BaseRollout
from verl.workers.rollout.replica import RolloutReplica
from verl.workers.rollout.utils import ensure_async_iterator

from sftrl_ext.backends.hf_in_verl.server import HFServer
from sftrl_ext.backends.hf_in_verl.weight_buckets import BucketedWeightSender
from sftrl_ext.errors import SftrlError
from sftrl_ext.training.settings import HF_ROLLOUT

Weights = Iterator[tuple[str, torch.Tensor]] | AsyncIterator[tuple[str, torch.Tensor]]


def _server_name(replica_rank: int) -> str:
    return f"{HF_ROLLOUT}_server_{replica_rank}"


class HFReplica(RolloutReplica):
    """One server for ``tensor_model_parallel_size`` trainer ranks, on the node of the first of them."""

    async def launch_servers(self) -> None:
        """Start the server actor and wait until its model is loaded.

        Raises:
            SftrlError: if the replica is not to share the trainer's processes.
        """
        if self.is_reward_model or self.is_teacher_model:
            raise SftrlError("rollout.name=hf serves the policy only, not reward or teacher models.")
        platform = get_platform()
        resource = platform.ray_resource_name()

        def locate(_: object) -> tuple[str, list[str]]:
            context = ray.get_runtime_context()
            return context.get_node_id(), context.get_accelerator_ids().get(resource, [])

        node, cards = await self.workers[0].__ray_call__.remote(locate)
        env: dict[str, str] = {}
        if platform.device_name != "cpu":
            # Beside the trainer on its GPU, of which Ray accounts for one process only.
            env = {name: "1" for name in platform.ray_noset_envvars()}
            env[platform.visible_devices_envvar()] = ",".join(cards)
        remote: Any = ray.remote(HFServer)
        server = remote.options(
            name=_server_name(self.replica_rank),
            num_cpus=0,
            max_concurrency=self.max_concurrency,
            runtime_env={"env_vars": env},
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node, soft=False),
        ).remote(self.config, self.model_config.path, self.replica_rank, platform.device_name)
        self.servers = [server]
        self._server_handle = server
        # There is no HTTP endpoint; verl uses the address as the name of the server.
        self._server_address = f"{await server.ready.remote()}/{_server_name(self.replica_rank)}"


class HFWeightSender(BaseRollout):
    """Worker side: sends the trainer's weights to the server of this rank's replica.

    The signature is verl's. Of the ranks that share a server the first one sends; the others only take part
    in gathering the shards.
    """

    def __init__(self, config: Any, model_config: Any, device_mesh: Any, replica_rank: int = -1) -> None:
        super().__init__(config, model_config, device_mesh)
        rank, ranks = int(os.environ["RANK"]), self.config.tensor_model_parallel_size
        self.replica_rank = rank // ranks if replica_rank == -1 else replica_rank
        self.sends = rank % ranks == 0
        # Unlike Ray's job id this is unique on the machine: two runs side by side must not share a socket.
        self.zmq_handle = f"ipc://{tempfile.gettempdir()}/sftrl-weights-{uuid4().hex}.sock"
        self._server: Any = None

    async def resume(self, tags: list[str]) -> None:
        """Nothing was released."""

    async def release(self) -> None:
        """Nothing to release."""

    @torch.no_grad()
    async def update_weights(  # type: ignore[override]
        self,
        weights: Weights,
        global_steps: int | None = None,
        wire_format: str = "named_tensors",
        **unused: Any,
    ) -> None:
        """Send every weight, through a bucket in shared memory.

        Args:
            weights: Full tensors by name; making them is a collective operation of all ranks. A standalone
                replica gets them from a checkpoint engine, as an asynchronous iterator.
            global_steps: The trainer step they belong to.
            wire_format: Only full tensors are supported.
            unused: LoRA options.

        Raises:
            SftrlError: for another wire format.
        """
        if wire_format != "named_tensors":
            raise SftrlError(f"rollout.name=hf takes full weights only, not {wire_format!r}.")
        if not self.sends:
            async for _ in ensure_async_iterator(weights):
                pass
            return
        if self._server is None:
            self._server = ray.get_actor(_server_name(self.replica_rank))
        received = self._server.update_weights_from_ipc.remote(self.zmq_handle)
        bucket_mb = self.config.checkpoint_engine.update_weights_bucket_megabytes
        await BucketedWeightSender(self.zmq_handle, bucket_mb, use_shm=True).async_send_weights(weights)
        await received
        if global_steps is not None:
            await self._server.set_global_steps.remote(global_steps)

"""Checkpoint engine ``tcp``: sends weights from the trainer to standalone rollout workers over ZeroMQ.

For trainers whose rollout has processes of its own (``separate_async``). verl's engines need NCCL with cupy,
or RDMA; this one runs on a CPU and on machines without cupy. ``configs/mode/separate_async.yaml`` selects it
with ``rollout.checkpoint_engine.backend=tcp`` and ``custom_backend_module``.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from typing import Any
from uuid import uuid4

import ray
import torch
import zmq
from verl.checkpoint_engine.base import (
    CheckpointEngine,
    CheckpointEngineRegistry,
    TensorMeta,
    merge_weight_chunks,
    split_weight_chunks,
)

from sftrl_ext.errors import SftrlError

TIMEOUT_MS = 600_000
"""A peer that is silent for so long is dead."""
_BUCKETS_IN_FLIGHT = 2


@CheckpointEngineRegistry.register("tcp")
class TcpCheckpointEngine(CheckpointEngine):
    """Trainer rank 0 sends every weight to every rollout worker, in chunks of at most a bucket.

    Args:
        bucket_size: Most bytes of a message.
        is_master: True on the trainer's rank 0, False on its other ranks, None on rollout workers, which verl
            does not tell.
    """

    def __init__(self, bucket_size: int, is_master: bool | None = None) -> None:
        self.bucket_size = bucket_size
        self.sends = bool(is_master)
        self.receives = is_master is None
        self._keys: list[str] = []
        self._sockets: list[zmq.Socket[bytes]] = []

    def prepare(self) -> dict[str, Any]:
        """Open a rollout worker's port; returns its address and the key that its sender must show."""
        if not self.receives:
            return {}
        # Stripped first, because an IPv6 address may come with brackets, and a URL needs exactly one pair.
        host = ray.util.get_node_ip_address().strip("[]")
        socket = self._socket(zmq.PULL)
        name = f"[{host}]" if ":" in host else host
        port = socket.bind_to_random_port(f"tcp://{name}")
        self._keys = [uuid4().hex]
        return {"address": f"tcp://{name}:{port}", "key": self._keys[0]}

    @classmethod
    def build_topology(
        cls, actor_wg_world_size: int, rollout_world_size: int, metadata: list[dict]
    ) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """Every trainer rank gets the addresses of all rollout workers; rank 0 uses them."""
        receivers = metadata[actor_wg_world_size:]
        return (
            {"receivers": [receivers] * actor_wg_world_size},
            {"receivers": [[]] * rollout_world_size},
        )

    def init_process_group(self, *, receivers: list[dict[str, Any]]) -> None:  # type: ignore[override]
        """Connect the sender to its receivers."""
        if self.sends:
            self._keys = [peer["key"] for peer in receivers]
            for peer in receivers:
                self._socket(zmq.PUSH).connect(peer["address"])

    def finalize(self) -> None:
        """Close the sockets; every receiver has all weights by now."""
        for socket in self._sockets:
            socket.close(linger=0)
        self._sockets = []

    @torch.no_grad()
    async def send_weights(
        self, weights: Generator[tuple[str, torch.Tensor], None, None], global_steps: int | None = None
    ) -> None:
        """Send all weights, or on ranks other than 0 take part in gathering them."""
        if not self.sends:
            # Each weight is gathered by a collective operation of all ranks.
            for _ in weights:
                pass
            return
        async for meta, chunk in split_weight_chunks(_contiguous(weights), self.bucket_size):
            if chunk is not None:
                self._send(_header(meta), chunk.cpu().numpy().data)
        # An empty header is the end of the weights.
        self._send({}, b"")

    async def receive_weights(  # type: ignore[override]  # verl's engines are generators, too
        self, global_steps: int | None = None
    ) -> AsyncIterator[tuple[str, torch.Tensor]]:
        """Yield every weight by name, on the CPU."""
        async for name, weight in merge_weight_chunks(self._chunks(), self.bucket_size):  # type: ignore[arg-type]
            yield name, weight

    async def _chunks(self) -> AsyncGenerator[tuple[TensorMeta, torch.Tensor], None]:
        while True:
            header, data = await asyncio.to_thread(self._receive)
            if not header:
                return
            yield _meta(header), torch.frombuffer(bytearray(data), dtype=torch.uint8)

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = zmq.Context.instance().socket(kind)
        socket.setsockopt(zmq.IPV6, 1)
        # A bound on queued messages: the sender waits instead of copying a model into memory.
        for option in (zmq.SNDHWM, zmq.RCVHWM):
            socket.setsockopt(option, _BUCKETS_IN_FLIGHT)
        for option in (zmq.SNDTIMEO, zmq.RCVTIMEO):
            socket.setsockopt(option, TIMEOUT_MS)
        self._sockets.append(socket)
        return socket

    def _send(self, header: dict[str, Any], data: memoryview | bytes) -> None:
        for socket, key in zip(self._sockets, self._keys, strict=True):
            socket.send_multipart([json.dumps({"key": key, **header}).encode(), data])

    def _receive(self) -> tuple[dict[str, Any], bytes]:
        try:
            first, data = self._sockets[0].recv_multipart()
        except zmq.Again:
            raise SftrlError(
                f"checkpoint engine tcp: no weights from the trainer for {TIMEOUT_MS // 1000} s."
            ) from None
        header = json.loads(first)
        if header.pop("key", None) not in self._keys:
            raise SftrlError("checkpoint engine tcp: weights from a sender that is not this run's trainer.")
        return header, data


def _contiguous(
    weights: Generator[tuple[str, torch.Tensor], None, None],
) -> Generator[tuple[str, torch.Tensor], None, None]:
    for name, weight in weights:
        yield name, weight.contiguous()


def _header(meta: TensorMeta) -> dict[str, Any]:
    return {
        "name": meta.name,
        "shape": list(meta.shape),
        "dtype": str(meta.dtype).removeprefix("torch."),
        "offset": meta.chunk_offset,
        "size": meta.chunk_size,
    }


def _meta(header: dict[str, Any]) -> TensorMeta:
    return TensorMeta(
        name=header["name"],
        shape=torch.Size(header["shape"]),
        dtype=getattr(torch, header["dtype"]),
        chunk_offset=header["offset"],
        chunk_size=header["size"],
        offset=0,
    )

"""Replay buffers that poll for finished episodes more often than verl's, and return them in one order."""

from __future__ import annotations

from typing import Any

from transfer_queue import KVBatchMeta
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync


class EagerReplayBuffer(ReplayBuffer):
    """verl's synchronous buffer, polling every 0.1 s: its 2 s would be most of a small model's step.

    Episodes come in the order of their keys, not of their ends, so that the same episodes give the same
    update. Selected with ``trainer.v1.sampler.custom_sampler``; ``sampler_kwargs.poll_interval`` sets another
    interval, in seconds.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault(
            "poll_interval", float((kwargs.get("sampler_kwargs") or {}).get("poll_interval", 0.1))
        )
        super().__init__(*args, **kwargs)

    def _materialize_batch(self, *args: Any, **kwargs: Any) -> KVBatchMeta:
        batch = super()._materialize_batch(*args, **kwargs)
        order = sorted(range(len(batch.keys)), key=lambda index: batch.keys[index])
        batch.keys = [batch.keys[index] for index in order]
        batch.tags = [batch.tags[index] for index in order]
        return batch


class EagerReplayBufferAsync(EagerReplayBuffer, ReplayBufferAsync):
    """The same for verl's asynchronous trainers: older prompts first, the episodes of an update by key."""


def eager_replay_buffer(*args: Any, **kwargs: Any) -> EagerReplayBuffer:
    """Create the buffer of the trainer's mode, so that one ``custom_sampler.name`` serves all modes."""
    buffer = EagerReplayBuffer if kwargs["trainer_mode"] == "sync" else EagerReplayBufferAsync
    return buffer(*args, **kwargs)

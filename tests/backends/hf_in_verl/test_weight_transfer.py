"""Weights from a trainer's rank 0 to rollout processes over sockets."""

from __future__ import annotations

import asyncio
import threading

import pytest

pytest.importorskip("verl")

import torch

from sftrl_ext.backends.hf_in_verl import weight_transfer
from sftrl_ext.backends.hf_in_verl.weight_transfer import TcpCheckpointEngine
from sftrl_ext.errors import SftrlError

WEIGHTS = {
    "embed": torch.arange(600, dtype=torch.float32).reshape(20, 30),  # 2400 bytes: three buckets
    "norm": torch.ones(3, dtype=torch.bfloat16),
    "transposed": torch.arange(12.0).reshape(3, 4).T,
}


def engines(receivers=2):
    senders = [TcpCheckpointEngine(1000, is_master=True), TcpCheckpointEngine(1000, is_master=False)]
    return senders, [TcpCheckpointEngine(1000) for _ in range(receivers)]


def connect(senders, receivers):
    metadata = [engine.prepare() for engine in [*senders, *receivers]]
    for_senders, for_receivers = TcpCheckpointEngine.build_topology(2, len(receivers), metadata)
    for engines_, kwargs in ((senders, for_senders), (receivers, for_receivers)):
        for number, engine in enumerate(engines_):
            engine.init_process_group(**{key: value[number] for key, value in kwargs.items()})


async def received(engine):
    return {name: weight.clone() async for name, weight in engine.receive_weights()}


def test_every_rollout_worker_gets_every_weight_each_time():
    senders, receivers = engines()
    for update in range(2):
        connect(senders, receivers)
        weights = {name: weight + update for name, weight in WEIGHTS.items()}
        taken = []

        def stream(rank, weights=weights, taken=taken):
            for item in weights.items():
                taken.append(rank)
                yield item

        threads = [
            threading.Thread(target=lambda s=s, r=r: asyncio.run(s.send_weights(stream(r))))
            for r, s in enumerate(senders)
        ]
        for thread in threads:
            thread.start()

        async def all_of_them():
            return await asyncio.gather(*map(received, receivers))

        found = asyncio.run(all_of_them())
        for thread in threads:
            thread.join()
        # Gathering a weight is a collective operation: the ranks that do not send walk through them too.
        assert sorted(taken) == [0] * 3 + [1] * 3
        for state in found:
            assert list(state) == list(weights)
            for name, weight in weights.items():
                assert state[name].dtype == weight.dtype and torch.equal(state[name], weight)
        for engine in [*senders, *receivers]:
            engine.finalize()


def test_another_runs_weights_and_silence_are_refused(monkeypatch):
    monkeypatch.setattr(weight_transfer, "TIMEOUT_MS", 300)
    senders, receivers = engines(1)
    connect(senders, receivers)
    senders[0]._keys = ["stranger"]
    asyncio.run(senders[0].send_weights(iter(WEIGHTS.items())))
    with pytest.raises(SftrlError, match="not this run's trainer"):
        asyncio.run(received(receivers[0]))
    receivers[0].finalize()
    connect(senders, receivers)
    with pytest.raises(SftrlError, match="no weights from the trainer"):
        asyncio.run(received(receivers[0]))
    for engine in [*senders, *receivers]:
        engine.finalize()


def test_verl_finds_it_by_name():
    from verl.checkpoint_engine.base import CheckpointEngineRegistry

    assert CheckpointEngineRegistry.get("tcp") is TcpCheckpointEngine

"""Waves of prompts until an update has enough responses: sizes, order, metrics, and after a resume."""

from __future__ import annotations

import pytest

pytest.importorskip("verl")
pytest.importorskip("transfer_queue")

from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta

from sftrl_ext.errors import SftrlError
from sftrl_ext.training import response_batches
from sftrl_ext.training.response_batches import (
    MAX_WAVES,
    ResponseBuffer,
    WaveSizes,
    fetch_single_prompts,
    response_buffer,
)
from sftrl_ext.training.trainer import MinibatchSizes
from tests.training.fake_queue import FakeQueue


class Rollout:
    """verl's side: prompts become finished episodes with a given number of responses, one row each."""

    def __init__(self, queue, turns, group=1, segments=1):
        self.queue, self.turns, self.group, self.segments = queue, turns, group, segments
        self.prompts, self.waiting, self.waves = 0, [], []

    def generate(self, count):
        self.waiting += range(self.prompts, self.prompts + count)
        self.prompts += count
        self.waves.append(count)
        return count

    def sample(self, global_steps, partition_id, batch_size):
        if partition_id == "val":
            return "validation", {"asked": batch_size}
        ready, self.waiting = self.waiting[:batch_size], self.waiting[batch_size:]
        assert len(ready) == batch_size
        keys, rows = [], []
        for prompt in reversed(ready):  # finished in another order than submitted
            for session in range(self.group):
                for segment in range(self.segments):
                    keys.append(f"{prompt:06d}_{session}_{segment}")
                    rows.append({"num_turns": self.turns(prompt)})
        self.queue.kv_batch_put(keys, "train", rows)
        return KVBatchMeta(partition_id="train", keys=keys, tags=[{"row": key} for key in keys]), {"x": 1}


def make(monkeypatch, turns, *, responses=40, prompts=8, group=1, segments=1):
    queue = FakeQueue()
    monkeypatch.setattr(response_batches, "tq", queue)
    rollout = Rollout(queue, turns, group, segments)
    return ResponseBuffer(rollout, WaveSizes(responses, prompts, group), rollout.generate), rollout


def update(buffer, rollout):
    rollout.waves.clear()
    rollout.generate(buffer.first_wave())
    return buffer.sample(1, "train", 8)


def test_an_update_has_enough_responses_of_whole_episodes(monkeypatch):
    buffer, rollout = make(monkeypatch, lambda prompt: 1 + prompt % 5)
    for _ in range(6):
        batch, metrics = update(buffer, rollout)
        assert metrics["episode/responses"] >= 40
        assert metrics["episode/responses"] == sum(1 + int(key[:6]) % 5 for key in batch.keys)
        assert metrics["episode/waves"] == len(rollout.waves)
        assert metrics["episode/played"] == len(batch) == sum(rollout.waves)
        assert batch.keys == sorted(batch.keys) and [tag["row"] for tag in batch.tags] == batch.keys
        assert not rollout.waiting
        assert metrics["x"] == 1  # verl's own metrics stay
        # Not much more than asked for: 3 responses an episode, 3 percent and one wave's spread above it.
        assert metrics["episode/responses"] <= 40 * 1.03 + 3 * 5


def test_the_first_wave_follows_the_length_of_the_last_episodes(monkeypatch):
    buffer, rollout = make(monkeypatch, lambda prompt: 4, prompts=2)
    update(buffer, rollout)
    assert rollout.waves == [2, 9]  # 32 missing at 4 each, and 3 percent
    update(buffer, rollout)
    assert rollout.waves == [11]


def test_groups_and_segments_are_counted(monkeypatch):
    # Two episodes a prompt, each of three segments of two responses.
    buffer, rollout = make(monkeypatch, lambda prompt: 2, prompts=2, group=2, segments=3)
    batch, metrics = update(buffer, rollout)
    assert rollout.waves == [2, 2]
    assert len(batch) == 4 * 2 * 3
    assert metrics["episode/responses"] == 48 and metrics["episode/played"] == 8


def test_failed_episodes_do_not_go_on_for_ever(monkeypatch):
    buffer, rollout = make(monkeypatch, lambda prompt: 0)
    batch, metrics = update(buffer, rollout)
    assert rollout.waves == [8] and len(batch) == 8 and metrics["episode/responses"] == 0
    buffer, rollout = make(monkeypatch, lambda prompt: 1 if prompt == 0 or prompt % 97 == 0 else 0, prompts=1)
    monkeypatch.setattr(response_batches, "MAX_WAVES", 2)
    buffer._sizes.responses = 10_000
    with pytest.raises(SftrlError, match="2 waves of .* prompts in all had .* responses; expected 10000"):
        update(buffer, rollout)
    assert MAX_WAVES > 2


def test_a_failed_episode_is_made_up_for(monkeypatch):
    # The only episode of the second wave fails.
    buffer, rollout = make(monkeypatch, lambda prompt: 0 if prompt == 8 else 5, responses=41)
    _, metrics = update(buffer, rollout)
    assert rollout.waves == [8, 1, 1] and metrics["episode/responses"] == 45


def test_a_resumed_run_sizes_its_waves_as_an_unbroken_one(monkeypatch, tmp_path):
    turns = lambda prompt: 1 + (7 * prompt) % 5  # noqa: E731
    buffer, rollout = make(monkeypatch, turns)
    update(buffer, rollout)
    buffer.save(str(tmp_path))
    first = update(buffer, rollout)[0].keys
    fresh, other = make(monkeypatch, turns)
    other.prompts = int(first[0][:6])  # the loader goes on where it was
    fresh.load(str(tmp_path))
    assert update(fresh, other)[0].keys == first
    fresh.load(str(tmp_path / "missing"))


def test_validation_and_the_rest_are_verls(monkeypatch):
    buffer, rollout = make(monkeypatch, lambda prompt: 1)
    assert buffer.sample(1, "val", 5) == ("validation", {"asked": 5})
    assert buffer.turns is rollout.turns


def config(**keys):
    base = {
        "sftrl": {"responses": 40},
        "data": {"train_batch_size": 8, "gen_batch_size": None},
        "actor_rollout_ref": {"rollout": {"n": 1}, "actor": {"ppo_mini_batch_size": 4}},
        "critic": {"ppo_mini_batch_size": 4},
        "trainer": {"n_gpus_per_node": 2, "nnodes": 1, "v1": {"trainer_mode": "sync"}},
    }
    return OmegaConf.merge(
        OmegaConf.create(base), OmegaConf.from_dotlist([f"{k}={v}" for k, v in keys.items()])
    )


def test_settings():
    assert response_buffer(config(**{"sftrl.responses": "null"}), None, None) is None
    assert response_buffer(config(), None, None).first_wave() == 8
    with pytest.raises(SftrlError, match="sftrl.responses: 0"):
        response_buffer(config(**{"sftrl.responses": 0}), None, None)
    with pytest.raises(SftrlError, match="asynchronous"):
        response_buffer(config(**{"trainer.v1.trainer_mode": "colocate_async"}), None, None)
    with pytest.raises(SftrlError, match="gen_batch_size: 4"):
        fetch_single_prompts(config(**{"data.gen_batch_size": 4}))
    one = config()
    fetch_single_prompts(one)
    assert one.data.gen_batch_size == 1


@pytest.mark.parametrize("rows", [5, 8, 9, 13, 40])
def test_an_update_makes_its_optimizer_steps_on_any_number_of_episodes(rows):
    made = config()
    MinibatchSizes(made).fit(made, rows)
    size = made.actor_rollout_ref.actor.ppo_mini_batch_size
    assert size == made.critic.ppo_mini_batch_size and size % 2 == 0
    padded = -(-rows // size) * size
    assert padded // size == 2 and padded - rows < 4

"""Our trainer on top of each of verl's three: registration, replay buffers, staleness, correction."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("verl")
pytest.importorskip("transfer_queue")

import torch
from omegaconf import OmegaConf

from sftrl_ext.errors import SftrlError
from sftrl_ext.training import trainer as ours
from sftrl_ext.training.replay import EagerReplayBuffer, EagerReplayBufferAsync
from sftrl_ext.training.settings import TRAINERS
from tests.training.test_trainer import fill, make_config, make_trainer

MODES = tuple(TRAINERS)


def buffer_config(sampler):
    path = {"path": "pkg://sftrl_ext.training.replay", "name": sampler.__name__} if sampler else {}
    section = {
        "custom_sampler": path,
        "max_off_policy_threshold": 8,
        "max_off_policy_strategy": "drop",
        "sampler_kwargs": {},
    }
    return OmegaConf.create({"trainer": {"v1": {"trainer_mode": "", "sampler": section}}})


def trainer_with_buffer(mode, sampler):
    from verl.trainer.ppo.v1.trainer_base import get_trainer_cls

    trainer = object.__new__(get_trainer_cls(TRAINERS[mode]))
    trainer.config, trainer.trainer_mode = buffer_config(sampler), mode
    trainer.replay_buffer = trainer._build_replay_buffer()
    return trainer


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_verl_has_our_trainer_in_front(mode):
    from verl.trainer.ppo.v1.trainer_base import PPOTrainer, get_trainer_cls

    cls = get_trainer_cls(TRAINERS[mode])
    assert cls.verl_mode == mode
    # The mixin's methods come before those of verl's trainer, and these before those of verl's base class.
    assert cls.__mro__[1:4] == (ours.TurnCreditMixin, get_trainer_cls(mode), PPOTrainer)


@pytest.mark.parametrize("mode", MODES)
def test_each_mode_takes_its_own_kind_of_replay_buffer(mode):
    right, wrong = EagerReplayBuffer, EagerReplayBufferAsync
    if mode != "sync":
        right, wrong = wrong, right
    trainer_with_buffer(mode, right)._check_replay_buffer()
    with pytest.raises(SftrlError, match=rf"custom_sampler is {wrong.__name__}; trainer {TRAINERS[mode]}"):
        trainer_with_buffer(mode, wrong)._check_replay_buffer()


def test_the_asynchronous_buffer_polls_often_and_drops_or_waits_as_verls_does():
    buffer = trainer_with_buffer("colocate_async", EagerReplayBufferAsync).replay_buffer
    assert buffer.poll_interval == 0.1
    buffer._sync_metadata_from_transfer_queue = lambda: None
    buffer.finished_keys["train"] = {"new", "old"}
    buffer.prompt_global_steps["train"] = {"new": 9, "old": 1}
    assert buffer._terminal_eviction_reasons(9, "train")[0] == {"old"}


def mode_config(**actor):
    return OmegaConf.create(
        {
            "sftrl": {"rollout": {"seeded": False}},
            "trainer": {"v1": {"separate_async": {"parameter_sync_step": 2}}},
            "actor_rollout_ref": {"actor": {"fsdp_config": {"param_offload": False, **actor}}},
        }
    )


@pytest.mark.parametrize("loss", ["turn_ratio", "vanilla"])
def test_turn_weights_reach_the_queue_where_the_loss_reads_them(loss, monkeypatch):
    config = make_config()
    config.algorithm.rollout_correction = {"rollout_is": None, "rollout_is_threshold": 1.5}
    config.actor_rollout_ref.actor.policy_loss = {"loss_mode": loss}
    trainer, queue = make_trainer(config, monkeypatch)
    trainer.correction = "turn"
    batch, metrics = fill(queue), {}
    # Turns of the first row: tokens 0 and 1, tokens 3 and 4; the sampler found the first likelier than now.
    queue.rows["p_0_0"]["rollout_log_probs"] = torch.tensor([-0.75, -0.5, 0, -1.25, -2.0])
    trainer._compute_advantage(batch, metrics)
    low, high = math.exp(-0.75), 1.5
    wanted = [1, low, 1, 1, high] if loss == "turn_ratio" else [low, low, 0, high, high]
    assert queue.rows["p_0_0"]["rollout_is_weights"].tolist() == pytest.approx(wanted)
    assert metrics["correction/turns_truncated"] == pytest.approx(1 / 4)
    assert metrics["mismatch/turn_logp_abs_max"] == pytest.approx(1.25)


def test_an_interrupted_response_cannot_be_seeded():
    config = mode_config()
    config.sftrl.rollout.seeded = True
    assert object.__new__(ours.TurnTrainer)._check_mode(config) == 1
    for cls in (ours.TurnTrainerColocateAsync, ours.TurnTrainerSeparateAsync):
        with pytest.raises(SftrlError, match="sftrl.rollout.seeded=true"):
            object.__new__(cls)._check_mode(config)


def test_parts_of_an_update_need_a_kept_copy_of_the_policy():
    separate = object.__new__(ours.TurnTrainerSeparateAsync)
    assert separate._check_mode(mode_config()) == 2
    config = mode_config(param_offload=True)
    with pytest.raises(SftrlError, match="param_offload=true"):
        separate._check_mode(config)
    config.trainer.v1.separate_async.parameter_sync_step = 1
    assert separate._check_mode(config) == 1


def test_minibatches_of_a_part_are_a_share_of_its_rows():
    config = OmegaConf.create(
        {
            "data": {"train_batch_size": 8},
            "actor_rollout_ref": {"rollout": {"n": 1}, "actor": {"ppo_mini_batch_size": 4}},
            "critic": {"ppo_mini_batch_size": 4},
            "trainer": {"n_gpus_per_node": 2, "nnodes": 1},
        }
    )
    sizes = ours.MinibatchSizes(config, parts=2)
    sizes.fit(config, 4)
    assert config.actor_rollout_ref.actor.ppo_mini_batch_size == 4
    # Four routes of three prompts each: one optimizer step on all of them, as on four rows.
    sizes.fit(config, 12)
    assert config.actor_rollout_ref.actor.ppo_mini_batch_size == 12


def test_outputs_of_a_worker_group_are_collected_while_asked_for():
    class Group:
        def __init__(self):
            self.update_actor = lambda batch: {"metrics": {"actor/pg_clipfrac": [batch, 0.5]}}

    group = Group()
    call = group.update_actor
    with pytest.raises(RuntimeError), ours._outputs_of(group, "update_actor") as outputs:
        group.update_actor(0.25)
        raise RuntimeError
    assert group.update_actor is call and outputs[0]["metrics"]["actor/pg_clipfrac"][0] == 0.25

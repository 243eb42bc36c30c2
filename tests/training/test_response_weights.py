"""Under `ppo_paper` every response of an optimizer batch weighs the same, in any row, micro-batch or rank.

verl's own losses, with the config verl composes, on what the trainer puts into the queue for its workers.
"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("verl")
pytest.importorskip("hydra")

import torch
from hydra import compose, initialize_config_dir
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.utils import tensordict_utils as tu

from sftrl_ext.paths import configs_dir
from sftrl_ext.training import trainer as ours
from sftrl_ext.training.policy_loss import turn_log_ratio
from tests.training.fake_queue import FakeQueue

TURNS = {
    "a_0_0": [[1, 1, 0, 2, 2, 2, 0, 3], [1.0, 2.0, -3.0]],
    "b_0_0": [[1, 1, 1], [0.5]],
    "c_0_0": [[1, 1], [-2.0]],  # two points of one route
    "c_0_1": [[1, 0, 2, 2], [4.0, -1.0]],
    "pad_0_0": [[0], []],
}
"""Per row the turn of each token, and the advantage of each turn."""
RANKS = ((("a_0_0",), ("pad_0_0",)), (("b_0_0", "c_0_1"), ("c_0_0",)))
"""Rows of each micro-batch of each rank."""


@pytest.fixture(scope="module")
def config():
    with initialize_config_dir(str(configs_dir()), version_base=None):
        return compose("ppo", overrides=["algorithm=ppo_paper", "backend=cpu"])


def nested(values):
    return torch.nested.as_nested_tensor(values, layout=torch.jagged)


def fill(queue):
    for number, (key, (turns, advantages)) in enumerate(TURNS.items()):
        turn_ids = torch.tensor(turns)
        mask = (turn_ids > 0).long()
        starts = torch.tensor([t > 0 and t not in turns[:i] for i, t in enumerate(turns)]).long()
        per_token = torch.tensor([0.0, *advantages])[turn_ids]
        generator = torch.Generator().manual_seed(number)
        new = 0.02 * torch.randn(len(turns), generator=generator)
        queue.rows[key] = {
            "turn_ids": turn_ids, "response_mask": mask, "loss_mask": mask.clone(), "turn_starts": starts,
            "advantages": per_token, "returns": per_token, "old_log_probs": torch.zeros(len(turns)),
            "ref_log_prob": torch.zeros(len(turns)), "values": torch.zeros(len(turns)), "new": new,
        }  # fmt: skip


@pytest.fixture
def seen(config, monkeypatch):
    """The rows as actor and critic get them from the trainer."""
    from verl.trainer.ppo.v1 import trainer_base

    queue = FakeQueue()
    fill(queue)
    monkeypatch.setattr(ours, "tq", queue)
    monkeypatch.setattr(trainer_base, "tq", queue)
    trainer = object.__new__(ours.TurnTrainer)
    trainer.config, trainer.credit = config, ours.credit_settings(config)
    trainer.global_steps = 1
    trainer.actor_rollout_wg = SimpleNamespace(update_actor=None)  # it is not called: the trainer's own is
    copies = {}

    def capture(name):
        def update(self, batch, metrics):
            copies[name] = {key: dict(queue.rows[key]) for key in batch.keys}
            return batch

        return update

    monkeypatch.setattr(trainer_base.PPOTrainer, "_update_actor", capture("actor"))
    monkeypatch.setattr(trainer_base.PPOTrainer, "_update_critic", capture("critic"))
    batch = KVBatchMeta(keys=list(TURNS), tags=[{} for _ in TURNS], partition_id="train")
    trainer._update_actor(batch, {})
    trainer._update_critic(batch, {})
    for key, (turns, _) in TURNS.items():
        assert queue.rows[key]["loss_mask"].tolist() == [int(turn > 0) for turn in turns]
    return copies


def micro_batch(rows, keys, total):
    names = ["response_mask", "loss_mask", "advantages", "returns", "values", "old_log_probs", "ref_log_prob"]
    data = {name: nested([rows[key][name] for key in keys]) for name in names}
    data["responses"] = data["response_mask"]
    data["prompts"] = nested([torch.zeros(1, dtype=torch.int64) for _ in keys])
    batch = TensorDict(data, batch_size=len(keys))
    # What verl's engine adds: the sum of loss_mask over the optimizer batch and all ranks, and its rows.
    for name, value in {
        "dp_size": len(RANKS),
        "batch_num_tokens": total,
        "global_batch_size": len(TURNS),
    }.items():
        tu.assign_non_tensor(batch, **{name: value})
    return batch


def reduced_loss(rows, loss_of, model_key, model_output):
    """The loss that FSDP's gradients are of: summed over micro-batches, averaged over ranks."""
    total = sum(int(row["loss_mask"].sum()) for row in rows.values())
    ranks = []
    for micro_batches in RANKS:
        losses = []
        for keys in micro_batches:
            # verl's models give a value for every token but the last of prompt and response.
            output = nested([torch.cat([model_output[key], torch.zeros(1)]) for key in keys])
            losses.append(loss_of({model_key: output}, micro_batch(rows, keys, total)))
        ranks.append(sum(losses))
    return sum(ranks) / len(ranks)


def test_the_policy_loss_is_the_mean_over_responses(config, seen):
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.utils.losses import ppo_loss

    rows = seen["actor"]
    actor = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
    new = {key: rows[key]["new"].clone().requires_grad_() for key in rows}
    loss = reduced_loss(rows, lambda out, data: ppo_loss(actor, out, data)[0], "log_probs", new)
    by_hand = []
    for key, (turns, advantages) in TURNS.items():
        for turn, advantage in enumerate(advantages, start=1):
            ratio = torch.exp(sum(new[key][i] for i, t in enumerate(turns) if t == turn))
            by_hand.append(-torch.minimum(ratio * advantage, ratio.clamp(0.9, 1.1) * advantage))
    expected = torch.stack(by_hand).mean()
    assert len(by_hand) == 7
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    grads = torch.autograd.grad(loss, list(new.values()))
    expected_grads = torch.autograd.grad(expected, list(new.values()), allow_unused=True)
    for grad, wanted in zip(grads, expected_grads, strict=True):
        assert torch.allclose(grad, torch.zeros_like(grad) if wanted is None else wanted, atol=1e-6)


def test_the_value_loss_is_half_the_mean_squared_error_of_turns(config, seen):
    from verl.workers.utils.losses import value_loss

    rows = seen["critic"]
    vpreds = {key: torch.full((len(turns),), 0.05) for key, (turns, _) in TURNS.items()}
    loss = reduced_loss(rows, lambda out, data: value_loss(config.critic, out, data)[0], "values", vpreds)
    returns = torch.tensor([number for _, advantages in TURNS.values() for number in advantages])
    assert float(loss) == pytest.approx(0.5 * float((0.05 - returns).square().mean()), rel=1e-5)


def test_ratios_are_still_of_whole_responses(seen):
    row = seen["actor"]["a_0_0"]
    _, last = turn_log_ratio(row["new"][None], torch.zeros(1, 8), row["turn_ids"][None])
    assert row["response_mask"].sum() == 6 and row["loss_mask"].sum() == last.sum() == 3


def test_minibatches_are_drawn_anew_in_every_epoch(config):
    from verl.utils.tensordict_utils import make_iterator

    assert config.actor_rollout_ref.actor.shuffle and config.critic.shuffle
    data = TensorDict({"row": torch.arange(8)}, batch_size=8)
    batches = [
        batch["row"].tolist()
        for batch in make_iterator(data, 4, 4, seed=42, dataloader_kwargs={"shuffle": True})
    ]
    epochs = [batches[i] + batches[i + 1] for i in range(0, 8, 2)]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert len({tuple(sorted(epoch[:4])) for epoch in epochs}) > 1

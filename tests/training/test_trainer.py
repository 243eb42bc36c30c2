"""The trainer's own part: advantages per turn into the queue, the critic's masks, metrics, token counts."""

from __future__ import annotations

import pytest

pytest.importorskip("verl")
pytest.importorskip("transfer_queue")

import torch
from omegaconf import OmegaConf
from transfer_queue import KVBatchMeta

from sftrl_ext.errors import SftrlError
from sftrl_ext.training import trainer as ours
from sftrl_ext.training.estimators import ESTIMATORS, CreditSettings, Estimator
from sftrl_ext.training.metrics import Passes, TokenCounts
from tests.training.fake_queue import FakeQueue

GAMMA, LAM = 0.9, 0.95


def make_config(estimator="gae", **credit):
    return OmegaConf.create(
        {
            "sftrl": {
                "credit": {"estimator": estimator, "gamma": GAMMA, "lam": LAM, "normalize": "none", **credit}
            },
            "algorithm": {
                "use_kl_in_reward": False,
                "adv_estimator": "gae" if estimator in ("gae", "token") else "grpo",
                "gamma": 1.0,
                "lam": 1.0,
            },
            "actor_rollout_ref": {
                "rollout": {"n": 1 if estimator == "gae" else 2, "temperature": 1.0},
                "actor": {"ppo_epochs": 4, "use_kl_loss": True},
            },
            "critic": {
                "enable": None,
                "ppo_epochs": 2,
                "ppo_mini_batch_size": 5,
                "data_loader_seed": 1,
                "shuffle": False,
            },
            "trainer": {"critic_warmup": 0, "v1": {"trainer_mode": "sftrl_turn"}},
        }
    )


def make_trainer(config, monkeypatch):
    from verl.trainer.ppo.v1 import trainer_base

    queue = FakeQueue()
    monkeypatch.setattr(ours, "tq", queue)
    monkeypatch.setattr(trainer_base, "tq", queue)
    trainer = object.__new__(ours.TurnTrainer)
    trainer.config = config
    trainer.credit = ours.credit_settings(config)
    trainer.tokens = TokenCounts()
    trainer.use_critic = config.algorithm.adv_estimator == "gae"
    trainer.use_reference_policy = True
    trainer.global_steps = 1
    return trainer, queue


def row(turn_ids, rewards, values=None, *, uid="p", error=None, generated=0):
    turn_ids = torch.tensor(turn_ids)
    mask = (turn_ids > 0).long()
    info = {"acc": 1.0, "generated_tokens": float(generated), "prompt_tokens": 3.0, "feedback_tokens": 2.0}
    extra = {"reward_extra_info": info, **({"error": error} if error else {})}
    return {
        "uid": uid,
        "turn_ids": turn_ids,
        "response_mask": mask,
        "loss_mask": mask.clone(),
        "rm_scores": torch.tensor(rewards),
        "values": torch.tensor(values or [9.0] * len(rewards)),
        "old_log_probs": torch.full(turn_ids.shape, -1.0),
        "rollout_log_probs": torch.full(turn_ids.shape, -1.0),
        "ref_log_prob": torch.full(turn_ids.shape, -1.5),
        "entropy": torch.full(turn_ids.shape, 2.0),
        "extra_fields": extra,
    }


TAG = {"seq_len": 10}


def fill(queue):
    """Two prompts with two episodes each, one of which failed, and a padding row that copies the first."""
    first = row([1, 1, 0, 2, 2], [0.0, -1.0, 0, 0, 5.0], [2.0, 9, 9, 3.0, 9], generated=4)
    padding = {**first, "uid": "pad"}
    for name in ("response_mask", "loss_mask"):
        padding[name] = torch.zeros(1, dtype=torch.int64)
    for name in ("rm_scores", "values", "old_log_probs", "rollout_log_probs", "ref_log_prob", "entropy"):
        padding[name] = torch.zeros(1)
    rows = {
        "p_0_0": first,
        "p_1_0": row([1, 1], [0.0, -2.0], [1.0, 9], generated=2),
        "q_0_0": row([0], [0.0], error="RuntimeError: no"),
        "q_1_0": row([1, 1, 1], [0.0, 0.0, 4.0], [0.5, 9, 9], uid="q", generated=3),
        "pad_0_0": padding,
    }
    tags = [dict(TAG) for _ in rows]
    tags[-1]["is_padding"] = True
    queue.kv_batch_put(list(rows), "train", list(rows.values()))
    return KVBatchMeta(keys=list(rows), tags=tags, partition_id="train")


def test_gae_advantages_returns_and_turn_starts(monkeypatch):
    trainer, queue = make_trainer(make_config(), monkeypatch)
    metrics = {}
    trainer._compute_advantage(fill(queue), metrics)
    # The first episode is worked in test_credit.
    assert torch.allclose(queue.rows["p_0_0"]["advantages"], torch.tensor([1.41, 1.41, 0, 2, 2]))
    assert torch.allclose(queue.rows["p_0_0"]["returns"], torch.tensor([3.41, 3.41, 0, 5, 5]))
    assert queue.rows["p_0_0"]["turn_starts"].tolist() == [1, 0, 0, 1, 0]
    assert queue.rows["p_1_0"]["advantages"].tolist() == [-3.0, -3.0]
    assert queue.rows["q_1_0"]["advantages"].tolist() == [3.5, 3.5, 3.5]
    for nothing in ("q_0_0", "pad_0_0"):
        assert queue.rows[nothing]["advantages"].tolist() == [0.0]
        assert queue.rows[nothing]["turn_starts"].tolist() == [0]
    assert queue.rows["p_0_0"]["advantages"].dtype == torch.float32
    assert metrics["turns/mean"] == pytest.approx(4 / 3)
    assert metrics["turns/reward_1"] == pytest.approx((-1 - 2 + 4) / 3)
    assert metrics["turns/share_2"] == pytest.approx(1 / 3)
    errors = torch.tensor([1.41, 2.0, -3.0, 3.5])
    assert metrics["critic/turn_value_rmse"] == pytest.approx(float(errors.square().mean().sqrt()))
    assert metrics["policy/kl_start_k1"] == pytest.approx(0.5)
    assert metrics["policy/kl_start_k3"] == pytest.approx(torch.expm1(torch.tensor(-0.5)).item() + 0.5)
    assert metrics["policy/entropy"] == pytest.approx(2.0)


def test_token_counts_leave_padding_out(monkeypatch):
    trainer, queue = make_trainer(make_config(), monkeypatch)
    metrics = {}
    trainer._compute_advantage(fill(queue), metrics)
    assert metrics["tokens/generated"] == 9 and metrics["tokens/prefill"] == 4 * 5
    assert metrics["tokens/trained"] == 4 * 40 and metrics["tokens/trained_critic"] == 2 * 40
    assert metrics["tokens/forward"] == 2 * 40 and metrics["tokens/forward_critic"] == 40
    assert metrics["tokens/sequence"] == 40
    trainer._compute_advantage(fill(queue), metrics)
    assert metrics["tokens/generated"] == 18 and metrics["tokens/step_generated"] == 9
    trainer.config.trainer.critic_warmup = 5
    trainer._compute_advantage(fill(queue), metrics)
    assert metrics["tokens/step_trained"] == 0 and metrics["tokens/step_trained_critic"] == 80


def test_leave_one_out_groups_by_prompt(monkeypatch):
    trainer, queue = make_trainer(make_config("rloo"), monkeypatch)
    metrics = {}
    trainer._compute_advantage(fill(queue), metrics)
    # Two episodes of p differ; of q one failed, and nothing is left to compare.
    assert metrics["groups/informative"] == 1.0
    # To go of p: -1 + 0.9 * 5 = 3.5, then 5; and -2. At turn 1 the 4 of q counts as one more episode. Nobody
    # else is at turn 2: minus the other's first, -2.
    assert torch.allclose(queue.rows["p_0_0"]["advantages"], torch.tensor([2.5, 2.5, 0, 7, 7]))
    assert torch.allclose(queue.rows["p_1_0"]["advantages"], torch.tensor([-5.75, -5.75]))
    # The other episode of q failed, so there is nothing to compare with.
    assert queue.rows["q_1_0"]["advantages"].tolist() == [0.0] * 3


def test_token_credit_leaves_verls_numbers_alone(monkeypatch):
    trainer, queue = make_trainer(make_config("token"), monkeypatch)
    trainer._compute_advantage(fill(queue), {})
    assert "turn_starts" not in queue.rows["p_0_0"]
    assert len(set(queue.rows["p_0_0"]["advantages"][[0, 1]].tolist())) == 2


def test_the_critic_sees_turn_starts_only_and_masks_come_back(monkeypatch):
    trainer, queue = make_trainer(make_config(), monkeypatch)
    batch = fill(queue)
    trainer._compute_advantage(batch, {})
    seen = {}

    class Critic:
        def train_mini_batch(self, batch):
            seen.update({key: dict(queue.rows[key]) for key in batch.keys})
            raise RuntimeError("stop here")

    trainer.critic_wg = Critic()
    batch.extra_info = {}
    with pytest.raises(RuntimeError, match="stop here"):
        trainer._update_critic(batch, {})
    for name in ("response_mask", "loss_mask"):
        assert seen["p_0_0"][name].tolist() == [1, 0, 0, 1, 0]
        assert seen["q_0_0"][name].tolist() == [0]
        assert queue.rows["p_0_0"][name].tolist() == [1, 1, 0, 1, 1]
        assert queue.rows["q_1_0"][name].tolist() == [1, 1, 1]


def test_a_step_in_which_all_episodes_failed_is_refused(monkeypatch):
    trainer, queue = make_trainer(make_config(), monkeypatch)
    queue.kv_batch_put(["p_0_0"], "train", [row([0], [0.0], error="KeyError: 'cards'")])
    batch = KVBatchMeta(keys=["p_0_0"], tags=[dict(TAG)], partition_id="train")
    with pytest.raises(SftrlError, match="all 1 episodes.*KeyError: 'cards'"):
        trainer._compute_advantage(batch, {})


def test_settings_are_held_against_the_config():
    config = make_config("rloo")
    config.actor_rollout_ref.rollout.n = 1
    with pytest.raises(SftrlError, match="rollout.n is 1"):
        ours.credit_settings(config)
    config = make_config("gae")
    config.algorithm.adv_estimator = "grpo"
    with pytest.raises(SftrlError, match="needs a critic"):
        ours.credit_settings(config)
    config = make_config("grpo")
    config.algorithm.adv_estimator = "gae"
    with pytest.raises(SftrlError, match="has no critic"):
        ours.credit_settings(config)
    assert ours.credit_settings(
        OmegaConf.create({"algorithm": {"adv_estimator": "gae"}, "critic": {"enable": None}})
    )


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"estimator": "gea"}, "Did you mean 'gae'"),
        ({"gama": 0.9}, "Did you mean 'gamma'"),
        ({"gamma": 1.5}, "from 0 to 1"),
        ({"lam": True}, "from 0 to 1"),
        ({"normalize": "whitened"}, "Did you mean 'whiten'"),
    ],
)
def test_wrong_settings(values, says):
    with pytest.raises(SftrlError, match=says):
        CreditSettings.from_mapping(values)


def test_an_estimator_of_a_plugin_gives_the_advantages(monkeypatch):
    monkeypatch.setattr(ESTIMATORS, "_items", dict(ESTIMATORS._items))
    ESTIMATORS.add("plug_sum", Estimator(lambda turns, gamma, lam: (turns.rewards + lam, turns.rewards)))
    trainer, queue = make_trainer(make_config("plug_sum"), monkeypatch)
    batch = fill(queue)
    trainer._compute_advantage(batch, {})
    expected = [LAM - 1, LAM - 1, 0, LAM + 5, LAM + 5]
    assert queue.rows["p_0_0"]["advantages"].tolist() == pytest.approx(expected)


def test_default_normalization():
    assert CreditSettings().normalization == "whiten"
    assert CreditSettings(estimator="rloo").normalization == "none"
    assert CreditSettings(estimator="grpo", normalize="scale").normalization == "scale"


def test_everything_is_registered_by_name():
    from sftrl_ext.training.register import missing_registrations, register_with_verl

    register_with_verl()
    assert missing_registrations() == []


@pytest.mark.parametrize("name", ["ppo_turn", "ppo_paper", "grpo_turn", "rloo_turn"])
def test_every_algorithm_composes(name):
    hydra = pytest.importorskip("hydra")
    from sftrl_ext.paths import configs_dir

    with hydra.initialize_config_dir(str(configs_dir()), version_base=None):
        config = hydra.compose("ppo", overrides=[f"algorithm={name}", "backend=cpu"])
    settings = ours.credit_settings(config)
    assert settings.gamma == 0.9 and config.trainer.v1.trainer_mode == "sftrl_turn"
    if name == "ppo_paper":
        actor, critic = config.actor_rollout_ref.actor, config.critic
        assert settings == CreditSettings("gae", 0.9, 0.95, "whiten")
        assert (
            actor.clip_ratio == actor.clip_ratio_low == actor.clip_ratio_high == critic.cliprange_value == 0.1
        )
        assert (
            actor.ppo_epochs == critic.ppo_epochs == 4
            and actor.optim.clip_grad == critic.optim.clip_grad == 1.0
        )
        assert config.actor_rollout_ref.rollout.temperature == 0.2
        assert actor.kl_loss_coef == actor.entropy_coeff == 0.0 and not config.algorithm.use_kl_in_reward


def routes(queue, other=1.0):
    """Two routes of two prompts each, their rows mixed and out of order; ``other`` scales the second one."""
    rows = {
        "p_0_1": row([1, 1], [0.0, 5.0], [3.0, 9]),
        "q_0_0": row([1], [other], [other], uid="q"),
        "p_0_0": row([1, 0, 2], [-1.0, 0, 1.0], [2.0, 9, 1.0]),
        "q_0_1": row([1], [-other], [other], uid="q"),
    }
    queue.kv_batch_put(list(rows), "train", list(rows.values()))
    return KVBatchMeta(keys=list(rows), tags=[dict(TAG) for _ in rows], partition_id="train")


def test_credit_goes_along_the_points_of_a_route_and_never_to_another_route(monkeypatch):
    found = []
    for other in (1.0, 100.0):
        trainer, queue = make_trainer(make_config(), monkeypatch)
        metrics = {}
        trainer._compute_advantage(routes(queue, other), metrics)
        found.append([queue.rows[key]["advantages"].tolist() for key in ("p_0_0", "p_0_1")])
        assert metrics["turns/mean"] == 2.5
    third = 5.0 - 3.0
    second = 1.0 + GAMMA * 3.0 - 1.0 + GAMMA * LAM * third
    first = -1.0 + GAMMA * 1.0 - 2.0 + GAMMA * LAM * second
    assert found[0] == found[1]
    assert found[0][0] == pytest.approx([first, 0, second]) and found[0][1] == pytest.approx([third, third])


def test_leave_one_out_credit_goes_along_the_points_too(monkeypatch):
    trainer, queue = make_trainer(make_config("rloo"), monkeypatch)
    rows = {
        "p_0_0": row([1], [1.0]),
        "p_0_1": row([1], [1.0]),
        "p_1_0": row([1, 0, 2], [-1.0, 0, -2.0]),
    }
    queue.kv_batch_put(list(rows), "train", list(rows.values()))
    trainer._compute_advantage(
        KVBatchMeta(keys=list(rows), tags=[dict(TAG) for _ in rows], partition_id="train"), {}
    )
    assert queue.rows["p_0_0"]["advantages"].tolist() == pytest.approx([1.9 + 2.8])
    assert queue.rows["p_0_1"]["advantages"].tolist() == pytest.approx([1.0 + 2.0])
    assert queue.rows["p_1_0"]["advantages"].tolist() == pytest.approx([-4.7, 0, -3.0])


@pytest.mark.parametrize(
    ("group", "ranks", "actor", "critic"), [(1, 1, 16, 16), (4, 2, 4, 8), (1, 8, 32, 16), (8, 1, 4, 256)]
)
def test_an_update_makes_as_many_steps_however_many_prompts_its_episodes_had(group, ranks, actor, critic):
    import math

    config = OmegaConf.create(
        {
            "data": {"train_batch_size": 32 // group if group < 8 else 4},
            "actor_rollout_ref": {"rollout": {"n": group}, "actor": {"ppo_mini_batch_size": actor}},
            "critic": {"ppo_mini_batch_size": critic},
            "trainer": {"n_gpus_per_node": ranks, "nnodes": 1},
        }
    )
    given = (actor, critic)
    sizes = ours.MinibatchSizes(config)

    def read():
        return (config.actor_rollout_ref.actor.ppo_mini_batch_size, config.critic.ppo_mini_batch_size)

    for rows in (431, 32, 33, 1000):
        sizes.fit(config, rows)
        if rows == 32:
            assert read() == given
            continue
        multiple = math.lcm(ranks, *(size * group for size in read()))
        padded = -(-rows // multiple) * multiple
        for size, start in zip(read(), given, strict=True):
            assert size * group % ranks == 0
            assert padded // (size * group) == max(1, 32 // (start * group))
        assert padded - rows < group * ranks * 64


def test_passes_without_critic_reference_or_old_log_probs():
    config = make_config("rloo")
    assert Passes.of_update(config, 1, critic=False, reference=True) == Passes(4, 0, 2, 0)
    assert Passes.of_update(config, 1, critic=True, reference=False) == Passes(4, 2, 1, 1)
    config.algorithm.rollout_correction = {"bypass_mode": True}
    assert Passes.of_update(config, 1, critic=True, reference=False) == Passes(4, 2, 0, 1)
    config.trainer.critic_warmup = 3
    assert Passes.of_update(config, 2, critic=True, reference=True) == Passes(0, 2, 1, 1)


def test_counts_go_on_from_a_checkpoint_of_an_earlier_version():
    counts = TokenCounts()
    counts.restore({"generated": 6, "prefill": 14, "prefill_uncached": 50, "forward": 40, "trained": 20})
    assert counts.total["sequence"] == 20 and counts.total["forward_critic"] == 0
    counts.restore({"generated": 6, "prefill": 14, "sequence": 19})
    assert counts.total["sequence"] == 19

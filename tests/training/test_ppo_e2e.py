"""Two steps of the real thing: verl's trainer, our loop, our credit, on a CPU, from rows of the builder."""

from __future__ import annotations

import pytest

pytest.importorskip("verl")

from tests.backends.launch import launch
from tests.training.tiny_start import write_model_and_rows

EPISODES, TURN_TOKENS = 8, 24


@pytest.fixture(scope="module")
def metrics(tmp_path_factory):
    """Metrics of each step of PPO, which computes all log-probabilities in each."""
    return ppo_metrics(tmp_path_factory.mktemp("ppo"), 1)


def ppo_metrics(folder, check_every):
    """Metrics of each step of one run of PPO."""
    write_model_and_rows(folder, 32)
    overrides = {
        "backend": "cpu",
        "algorithm": "ppo_turn",
        "data.train_files": folder / "rl.parquet",
        "data.val_files": folder / "rl.parquet",
        "data.train_batch_size": EPISODES,
        "data.max_prompt_length": 128,
        "data.max_response_length": 300,
        "sftrl.rollout.max_turn_tokens": TURN_TOKENS,
        "sftrl.check_every": check_every,
        "actor_rollout_ref.model.path": folder / "model",
        "actor_rollout_ref.actor.ppo_mini_batch_size": EPISODES,
        "actor_rollout_ref.actor.ppo_epochs": 2,
        "actor_rollout_ref.actor.optim.lr": 1e-3,
        "critic.ppo_mini_batch_size": EPISODES,
        "critic.ppo_epochs": 2,
        "trainer.default_local_dir": folder / "checkpoints",
        "trainer.total_training_steps": 2,
        "trainer.total_epochs": 10,
        "trainer.n_gpus_per_node": 1,
        "trainer.nnodes": 1,
        "trainer.save_freq": -1,
        "trainer.test_freq": 2,
        "trainer.experiment_name": "e2e",
    }
    return launch(["-m", "verl.trainer.main_ppo"], "ppo", overrides, folder, folder / "m.jsonl", timeout=300)


@pytest.mark.e2e
@pytest.mark.slow
def test_rollout_and_trainer_agree_before_and_after_an_update(metrics):
    assert len(metrics) == 2
    for step in metrics:
        assert step["training/rollout_probs_diff_max"] < 1e-5
        # Log-probabilities, of tokens and of whole turns; every turn by the policy that is trained on it.
        assert step["mismatch/logp_abs_max"] < 1e-4 and step["mismatch/turn_logp_abs_max"] < 1e-3
        assert step["turns/staleness_max"] == step["turns/mixed_share"] == 0.0
        # The first optimizer step is taken where the policy has not moved, the second is not.
        assert step["actor/pg_clipfrac_first"] == 0.0
        assert abs(step["actor/ppo_kl_first"]) < 1e-8 < abs(step["actor/ppo_kl"])
        assert "correction/turn_weight_mean" not in step
    assert metrics[0]["policy/kl_start_k3"] == pytest.approx(0.0, abs=1e-6)
    assert metrics[1]["policy/kl_start_k3"] > metrics[0]["policy/kl_start_k3"]


@pytest.mark.e2e
@pytest.mark.slow
def test_episodes_turns_and_tokens_are_counted(metrics):
    for number, step in enumerate(metrics, start=1):
        assert step["episode/episode_error"] == 0.0 and step["episode/out_of_tokens"] == 0.0
        assert (
            step["turns/mean"]
            == pytest.approx(step["episode/turns"])
            == pytest.approx(step["num_turns/mean"])
        )
        assert 1 <= step["turns/mean"] <= 3 and step["turns/share_1"] == 1.0
        assert step["episode/generated_tokens"] <= 3 * TURN_TOKENS
        assert step["tokens/step_generated"] == pytest.approx(EPISODES * step["episode/generated_tokens"])
        tokens = step["perf/total_num_tokens"]
        # Actor and critic train on every token twice: two epochs.
        assert step["tokens/step_trained"] == step["tokens/step_trained_critic"] == 2 * tokens
        # Old and reference log-probabilities, and values, read every token once each.
        assert (step["tokens/step_forward"], step["tokens/step_forward_critic"]) == (2 * tokens, tokens)
        # A prompt or feedback token is read once, a model token written once.
        assert step["tokens/step_sequence"] == tokens
        assert step["tokens/step_generated"] + step["tokens/step_prefill"] == tokens
        assert step["critic/score/mean"] == pytest.approx(step["episode/reward_total"])
        assert step["training/global_step"] == number
    assert metrics[1]["tokens/generated"] == sum(step["tokens/step_generated"] for step in metrics)


@pytest.mark.e2e
@pytest.mark.slow
def test_the_critic_learns_at_turn_starts(metrics):
    # At its first step the critic's loss is half the mean squared error over turns: nothing else is trained.
    # (It is averaged over two epochs, so it can only have fallen.)
    first = metrics[0]
    assert 0 < first["critic/vf_loss"] <= 0.5 * first["critic/turn_value_rmse"] ** 2 * 1.001
    assert first["critic/advantages/mean"] < 1.0


@pytest.mark.e2e
@pytest.mark.slow
def test_validation_has_the_core_metric_of_the_data_source(metrics):
    core = [key for key in metrics[1] if key.startswith("val-core/")]
    assert core and all("/acc/" in key for key in core)
    assert any(key.endswith("/outcome/unparsable/mean@1") for key in metrics[1])


@pytest.mark.e2e
@pytest.mark.slow
def test_an_update_on_the_samplers_log_probabilities_is_the_same(metrics, tmp_path):
    checked, unchecked = ppo_metrics(tmp_path, 8)
    assert checked["mismatch/logp_abs_max"] < 1e-4
    for name in ("episode/generated_tokens", "episode/solved", "tokens/step_trained"):
        assert unchecked[name] == metrics[1][name], name
    for name in ("actor/pg_loss", "critic/vf_loss", "actor/grad_norm", "critic/grad_norm"):
        assert unchecked[name] == pytest.approx(metrics[1][name], rel=1e-3, abs=1e-5), name
    # Neither a pass nor a number that a copied log-probability would make look perfect.
    assert unchecked["tokens/step_forward"] == 0
    assert metrics[1]["tokens/step_forward"] == 2 * metrics[1]["perf/total_num_tokens"]
    measured = ("mismatch/", "policy/", "training/rollout_", "rollout_corr/", "actor/kl_loss")
    assert not [name for name in unchecked if name.startswith(measured)]

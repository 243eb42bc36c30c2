"""Three updates of each asynchronous trainer on two ranks, without a GPU, as a user starts it."""

from __future__ import annotations

import pytest

pytest.importorskip("verl")

from tests.backends.launch import launch
from tests.training.tiny_start import write_model_and_rows

EPISODES, UPDATES = 8, 3
MODES = {
    "colocate_async": {},
    "separate_async": {
        # Two ranks train, a third process only generates; an update draws its episodes in two parts.
        "trainer.v1.separate_async.parameter_sync_step": 2,
        "actor_rollout_ref.rollout.n_gpus_per_node": 1,
        "ray_kwargs.ray_init.num_gpus": 3,
    },
}


def train(mode, folder):
    write_model_and_rows(folder, 64)
    overrides = {
        "backend": "cpu",
        "mode": mode,
        "algorithm": "ppo_paper",
        "data.train_files": folder / "rl.parquet",
        "data.val_files": folder / "rl.parquet",
        "data.val_max_samples": 8,
        "data.train_batch_size": EPISODES,
        "data.max_prompt_length": 128,
        "data.max_response_length": 300,
        "sftrl.rollout.max_turn_tokens": 48,
        "actor_rollout_ref.model.path": folder / "model",
        "actor_rollout_ref.actor.ppo_mini_batch_size": EPISODES // 2,
        "actor_rollout_ref.actor.ppo_epochs": 2,
        "actor_rollout_ref.actor.optim.lr": 1e-2,
        "actor_rollout_ref.rollout.temperature": 1.0,
        "critic.ppo_mini_batch_size": EPISODES // 2,
        "critic.ppo_epochs": 2,
        "trainer.default_local_dir": folder / "checkpoints",
        "trainer.total_training_steps": UPDATES,
        "trainer.total_epochs": 10,
        "trainer.n_gpus_per_node": 2,
        "trainer.nnodes": 1,
        "trainer.save_freq": UPDATES,
        "trainer.test_freq": UPDATES,
        "trainer.experiment_name": "e2e",
        **MODES[mode],
    }
    return launch(["-m", "verl.trainer.main_ppo"], "ppo", overrides, folder, folder / "m.jsonl", timeout=800)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("mode", MODES)
def test_updates_of_an_asynchronous_trainer(mode, tmp_path):
    steps = train(mode, tmp_path)
    assert len(steps) == UPDATES
    for number, step in enumerate(steps, start=1):
        assert step["training/global_step"] == number and step["episode/episode_error"] == 0.0
        assert 0 <= step["turns/staleness_mean"] <= step["turns/staleness_max"] <= number - 1
        # verl's ages of whole episodes, from the same versions.
        assert step["turns/staleness_max"] == step["training/off_policy/trajectory_staleness_worst/max"]
        # In the first optimizer step of an update the policy is still the one that the ratios refer to.
        assert step["actor/pg_clipfrac_first"] == 0.0 and abs(step["actor/ppo_kl_first"]) < 1e-4
        assert 0 < step["correction/turn_weight_mean"] <= 2.0
        assert step["episode/reward_total"] == pytest.approx(step["critic/score/mean"])
        if step["turns/staleness_max"] == 0:
            assert step["mismatch/logp_abs_max"] < 1e-4
            assert step["correction/turn_weight_mean"] == pytest.approx(1.0, abs=1e-3)
    # The policy moves fast here, so samples of an older one do not fit the next.
    stale = [step for step in steps if step["turns/staleness_mean"] == 1.0]
    assert stale and all(step["mismatch/logp_abs_mean"] > 1e-3 for step in stale)
    assert steps[-1]["tokens/generated"] == sum(step["tokens/step_generated"] for step in steps)
    assert any(key.startswith("val-core/") for key in steps[-1])
    # Prompts in the queue are part of a checkpoint: a resumed run continues them.
    assert any((tmp_path / "checkpoints" / f"global_step_{UPDATES}" / "transfer_queue").iterdir())

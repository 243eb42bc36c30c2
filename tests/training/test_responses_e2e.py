"""Updates of a number of responses through the real thing: verl on a CPU, two ranks, `ppo_paper`."""

from __future__ import annotations

import shutil

import pytest

pytest.importorskip("verl")

from tests.backends.launch import launch
from tests.training.tiny_start import write_model_and_rows

RESPONSES = 40


def train(folder, run, **more):
    """Metrics of each update of a run whose checkpoints lie in ``folder / run``."""
    overrides = {
        "backend": "cpu",
        "algorithm": "ppo_paper",
        "sftrl.responses": RESPONSES,
        "sftrl.credit.normalize": "none",
        "sftrl.rollout.max_turn_tokens": 12,
        "data.train_files": folder / "rl.parquet",
        "data.val_files": folder / "rl.parquet",
        "data.train_batch_size": 8,
        "data.max_prompt_length": 128,
        "data.max_response_length": 300,
        "actor_rollout_ref.model.path": folder / "model",
        "actor_rollout_ref.actor.ppo_mini_batch_size": 8,
        "actor_rollout_ref.actor.ppo_epochs": 1,
        "actor_rollout_ref.actor.optim.lr": 1e-3,
        "actor_rollout_ref.rollout.temperature": 1.0,
        "critic.ppo_mini_batch_size": 8,
        "critic.ppo_epochs": 1,
        "trainer.default_local_dir": folder / run,
        "trainer.total_training_steps": 2,
        "trainer.total_epochs": 10,
        "trainer.n_gpus_per_node": 2,
        "trainer.nnodes": 1,
        "trainer.save_freq": 1,
        "trainer.test_freq": -1,
        "trainer.experiment_name": run,
    }
    metrics = folder / f"{run}.jsonl"
    metrics.unlink(missing_ok=True)
    module = ["-m", "verl.trainer.main_ppo"]
    return launch(module, "ppo", {**overrides, **more}, folder, metrics, timeout=800)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model and the rows of 24 hands: two updates go over them more than once."""
    folder = tmp_path_factory.mktemp("responses")
    write_model_and_rows(folder, 24, layers=1)
    return folder


@pytest.fixture(scope="module")
def metrics(folder):
    return train(folder, "first")


@pytest.mark.e2e
@pytest.mark.slow
def test_every_update_has_the_responses(metrics):
    assert len(metrics) == 2
    for step in metrics:
        assert RESPONSES <= step["episode/responses"] <= RESPONSES + 6
        assert step["episode/responses"] == pytest.approx(step["turns/mean"] * step["episode/played"])
        assert step["episode/episode_error"] == 0.0
    # Eight prompts of at most three attempts are too few for the first update; the second one knows that.
    assert metrics[0]["episode/waves"] == 2.0 and metrics[1]["episode/waves"] == 1.0


@pytest.mark.e2e
@pytest.mark.slow
def test_losses_are_means_over_the_responses_of_an_optimizer_batch(metrics):
    # One epoch of one minibatch: the ratios are 1 and the values have not moved.
    for step in metrics:
        assert abs(step["turns/advantage_mean"]) > 0.1
        assert step["actor/pg_loss"] == pytest.approx(-step["turns/advantage_mean"], rel=1e-4)
        assert step["critic/vf_loss"] == pytest.approx(0.5 * step["critic/turn_value_rmse"] ** 2, rel=1e-4)


@pytest.mark.e2e
@pytest.mark.nightly
def test_a_resumed_run_plays_the_same_episodes(folder, metrics):
    shutil.copytree(folder / "first" / "global_step_1", folder / "again" / "global_step_1")
    (folder / "again" / "latest_checkpointed_iteration.txt").write_text("1")
    (resumed,) = train(folder, "again")
    for key in ("episode/responses", "episode/waves", "turns/return_mean", "episode/generated_tokens"):
        assert resumed[key] == metrics[1][key]
    assert resumed["actor/pg_loss"] == pytest.approx(metrics[1]["actor/pg_loss"], rel=1e-4)

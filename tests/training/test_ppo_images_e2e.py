"""Two steps of the real thing with images in the context: rollout and trainer see the same pictures."""

from __future__ import annotations

import pytest

pytest.importorskip("verl")

from data_prep.general_points import rl_rows
from data_prep.sources import Source
from data_prep.writer import write_rows
from sftrl_ext.envs.general_points.episode import PlaySettings
from sftrl_ext.envs.general_points.render import Look
from tests.backends.launch import launch
from tests.backends.tiny_vl import sober_folder as model_folder

EPISODES = 8


@pytest.fixture(scope="module", params=["qwen2_5_vl", pytest.param("mllama", marks=pytest.mark.nightly)])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def metrics(kind, tmp_path_factory):
    """Metrics of each step, of one run of PPO with a critic that sees the pictures too."""
    folder = tmp_path_factory.mktemp("ppo")
    play = PlaySettings(3, template="compact", modality="image", look=Look(width=112, height=56))
    write_rows(folder / "rl.parquet", rl_rows(Source("id", settings=play), 16))
    overrides = {
        "backend": "cpu",
        "algorithm": "ppo_turn",
        "data.train_files": folder / "rl.parquet",
        "data.val_files": folder / "rl.parquet",
        "data.train_batch_size": EPISODES,
        "data.max_prompt_length": 90,
        "data.max_response_length": 160,
        "sftrl.rollout.max_turn_tokens": 20,
        "sftrl.check_every": 1,
        "actor_rollout_ref.model.path": model_folder(kind),
        "actor_rollout_ref.actor.ppo_mini_batch_size": EPISODES,
        "actor_rollout_ref.actor.optim.lr": 1e-3,
        "actor_rollout_ref.actor.ppo_epochs": 1,
        "critic.ppo_mini_batch_size": EPISODES,
        "critic.ppo_epochs": 1,
        "trainer.default_local_dir": folder / "checkpoints",
        "trainer.total_training_steps": 2,
        "trainer.total_epochs": 10,
        "trainer.n_gpus_per_node": 1,
        "trainer.nnodes": 1,
        "trainer.save_freq": 2,
        "trainer.test_freq": 2,
        "trainer.experiment_name": "e2e",
    }
    found = launch(
        ["-m", "verl.trainer.main_ppo"], "ppo", overrides, folder, folder / "m.jsonl", timeout=1700
    )
    return found, folder


@pytest.mark.e2e
@pytest.mark.slow
def test_rollout_and_trainer_agree_before_and_after_an_update(metrics):
    steps, _ = metrics
    assert len(steps) == 2
    for step in steps:
        assert step["training/rollout_probs_diff_max"] < 1e-5
        assert step["episode/episode_error"] == 0.0
        # Placeholders of pictures are prompt tokens; each is read once.
        assert step["tokens/step_generated"] + step["tokens/step_prefill"] == step["tokens/step_sequence"]
    assert steps[0]["policy/kl_start_k3"] == pytest.approx(0.0, abs=1e-6)
    assert steps[1]["policy/kl_start_k3"] > 0


@pytest.mark.e2e
@pytest.mark.slow
def test_recognition_is_a_metric_of_training_and_validation(metrics):
    steps, _ = metrics
    assert all("episode/recognized" in step and "episode/number_right" in step for step in steps)
    assert any(key.startswith("val-core/gp_vl/id/") for key in steps[1])
    assert any(key.endswith("/recognized/mean@1") for key in steps[1])


@pytest.mark.e2e
@pytest.mark.slow
def test_the_saved_model_still_sees(metrics, kind):
    import torch

    from sftrl_ext.backends.hf.engine import Engine

    _, folder = metrics
    saved = folder / "checkpoints" / "global_step_2" / "actor" / "huggingface"
    engine = Engine.from_folder(saved)
    start = Engine.from_folder(model_folder(kind))
    assert engine.vision is not None
    encoder = "vision_model" if kind == "mllama" else "visual"
    now, then = (getattr(made.model.model, encoder).parameters() for made in (engine, start))
    assert any(not torch.equal(a, b) for a, b in zip(now, then, strict=True))


@pytest.mark.e2e
@pytest.mark.slow
def test_the_critic_sees_images_and_learns(metrics):
    steps, _ = metrics
    for step in steps:
        assert 0 < step["critic/vf_loss"] <= 0.5 * step["critic/turn_value_rmse"] ** 2 * 1.001
        assert step["critic/grad_norm"] > 0

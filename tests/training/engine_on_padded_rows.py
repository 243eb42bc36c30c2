"""verl's own worker on the config of scale `gpu` without flash-attn: ``<model folder> <model type>``.

Writes what its model gives on rows of many lengths, against each row alone.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf
from verl.utils import tensordict_utils
from verl.utils.config import omega_conf_to_dataclass
from verl.utils.distributed import initialize_global_process_group
from verl.workers.engine_workers import TrainingWorker, TrainingWorkerConfig

from sftrl_ext.experiments.plan import make_plan
from sftrl_ext.experiments.recipe import attention
from sftrl_ext.experiments.recipe.recipe_files import load_recipe
from tests.experiments.recipe.composing import config_of

LENGTHS = [30, 5, 17, 9, 30, 4, 12, 21]
CAP = 64


def composed(folder):
    """The RL command's config, with a model folder and what a machine without a GPU needs."""
    attention.flash_attn_fault = lambda: "flash-attn is not installed"
    stages = make_plan(load_recipe("fig6_gp_l", "gpu"), Path(folder) / "run")
    config = config_of(next(stage for stage in stages if stage.kind == "rl").command)
    OmegaConf.set_struct(config, False)
    config.actor_rollout_ref.model.path = config.critic.model.path = folder
    for engine in (config.actor_rollout_ref.actor.fsdp_config, config.critic.fsdp):
        engine.mixed_precision = dict.fromkeys(("param_dtype", "reduce_dtype", "buffer_dtype"), "fp32")
        engine.use_torch_compile, engine.strategy = False, "fsdp2"
        engine.param_offload = engine.optimizer_offload = False
    return config


def make_worker(config, role):
    if role == "value_model":
        part = omega_conf_to_dataclass(config.critic)
        model = part.model
    else:
        part = omega_conf_to_dataclass(config.actor_rollout_ref.actor)
        model = omega_conf_to_dataclass(config.actor_rollout_ref.model)
    engine = part.engine
    engine.use_dynamic_bsz, engine.infer_max_token_len_per_gpu = True, CAP
    settings = TrainingWorkerConfig(
        model_type=role,
        model_config=model,
        engine_config=engine,
        optimizer_config=part.optim,
        checkpoint_config=part.checkpoint,
    )
    worker = TrainingWorker(settings)
    worker.reset()
    return worker


def jagged(rows):
    return torch.nested.as_nested_tensor(rows, layout=torch.jagged)


def main(folder, role):
    initialize_global_process_group()
    worker = make_worker(composed(folder), role)
    torch.manual_seed(0)
    rows = [torch.randint(5, 60, (length,)) for length in LENGTHS]
    tensors = {
        "input_ids": jagged(rows),
        "position_ids": jagged([torch.arange(length) for length in LENGTHS]),
        "loss_mask": jagged([torch.ones(length) for length in LENGTHS]),
    }
    further = {"temperature": 1.0, "calculate_entropy": True, "compute_loss": False, "pad_token_id": 0}
    batch = tensordict_utils.get_tensordict(
        tensors, non_tensor_dict={**further, "global_token_num": list(LENGTHS)}
    )
    micro_batches, step = [], worker.engine.forward_step

    def watched(micro_batch, loss_function, forward_only):
        micro_batches.append(micro_batch["input_ids"].offsets().diff().tolist())
        return step(micro_batch, loss_function, forward_only)

    worker.engine.forward_step = watched
    output = worker.infer_batch(batch)
    off = {"values": 0.0, "log_probs": 0.0, "entropy": 0.0}
    for number, row in enumerate(rows):
        with torch.no_grad():
            logits = worker.engine.module(input_ids=row[None], use_cache=False).logits[0].float()
        if role == "value_model":
            expected = {"values": logits[:, 0]}
        else:
            log_probs = logits.log_softmax(-1)
            taken = log_probs[:-1].gather(1, row[1:, None])[:, 0]
            expected = {"log_probs": taken, "entropy": -(log_probs.exp() * log_probs).sum(-1)}
        for name, values in expected.items():
            difference = output[name][number][: len(values)] - values
            off[name] = max(off[name], difference.abs().max().item())
    kernel = worker.engine.module.config._attn_implementation
    result = {"micro_batches": micro_batches, "off": off, "attention": kernel, "names": sorted(output.keys())}
    sys.stdout.write(f"RESULT {json.dumps(result)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])

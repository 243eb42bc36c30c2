"""Settings that a training command gives verl, resolved without verl.

The planner must read what a run would really use: the files of ``configs/backend`` and ``configs/algorithm``
under the overrides of the command, ``verl_ppo`` and ``verl_sft`` among them. Keys that none of them sets have
verl 0.9.1's defaults, listed here; a test compares with Hydra's composition on verl's own schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from sftrl_ext.paths import configs_dir

_FSDP: dict[str, Any] = {
    "param_offload": False,
    "optimizer_offload": False,
    "offload_policy": False,
    "model_dtype": "fp32",
    "mixed_precision": None,
    "use_no_sync_for_gradient_accumulation": False,
}
"""``verl/trainer/config/engine/fsdp.yaml``."""

_MODEL: dict[str, Any] = {
    "use_remove_padding": True,
    "enable_gradient_checkpointing": True,
    "override_config": {"attn_implementation": None},
}
_OPTIM: dict[str, Any] = {"override_optimizer_config": None}

PPO_DEFAULTS: dict[str, Any] = {
    "actor_rollout_ref": {
        "model": {**_MODEL, "use_fused_kernels": False},
        "actor": {
            "entropy_from_logits_with_chunking": False,
            "entropy_from_logits_chunk_size": 2048,
            "entropy_coeff": 0,
            "calculate_entropy": False,
            "use_kl_loss": False,
            "ppo_max_token_len_per_gpu": 16384,
            "fsdp_config": dict(_FSDP),
            "optim": dict(_OPTIM),
            "checkpoint": {"save_contents": ["model", "optimizer", "extra"]},
        },
        "ref": {"log_prob_max_token_len_per_gpu": 16384, "fsdp_config": dict(_FSDP)},
        "rollout": {
            "name": None,
            "n": 1,
            "temperature": 1.0,
            "dtype": "bfloat16",
            "gpu_memory_utilization": 0.5,
            "free_cache_engine": True,
            "max_num_seqs": 256,
            "tensor_model_parallel_size": 1,
            "log_prob_max_token_len_per_gpu": 16384,
            "checkpoint_engine": {"update_weights_bucket_megabytes": 2048},
        },
    },
    "algorithm": {"adv_estimator": "gae", "use_kl_in_reward": False},
    "critic": {
        "ppo_max_token_len_per_gpu": 32768,
        "forward_max_token_len_per_gpu": 32768,
        "model": dict(_MODEL),
        "fsdp": dict(_FSDP),
        "optim": dict(_OPTIM),
        "checkpoint": {"save_contents": ["model", "optimizer", "extra"]},
    },
}
"""Keys of verl's ``ppo_trainer`` that memory and time depend on."""

SFT_DEFAULTS: dict[str, Any] = {
    "model": {**_MODEL, "use_fused_kernels": False},
    "engine": dict(_FSDP),
    "optim": dict(_OPTIM),
    "data": {"use_dynamic_bsz": True, "max_token_len_per_gpu": 8192, "micro_batch_size_per_gpu": 4},
    "checkpoint": {"save_contents": ["model", "optimizer", "extra"]},
}
"""Keys of verl's ``sft_trainer_engine`` that memory and time depend on."""

_GROUPS = {"ppo": {"algorithm": "ppo_turn", "backend": "gpu"}, "sft": {"sft_backend": "gpu"}}
"""Groups of ``configs/ppo.yaml`` and ``configs/sft.yaml`` with their defaults."""


def command_settings(command: Sequence[str]) -> DictConfig:
    """Settings of a training command.

    Args:
        command: Arguments of a stage of kind ``sft`` or ``rl``.

    Returns:
        The keys of `PPO_DEFAULTS` or `SFT_DEFAULTS` and all that files and overrides set.
    """
    start = command.index("--config-name")
    name, overrides = command[start + 1], command[start + 2 :]
    groups = dict(_GROUPS[name])
    plain: list[str] = []
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        if key in groups:
            groups[key] = value
        elif not override.startswith(("~", "hydra.")):
            plain.append(f"{key}={value}")
    settings: Any = OmegaConf.create(PPO_DEFAULTS if name == "ppo" else SFT_DEFAULTS)
    for group, choice in groups.items():
        settings = OmegaConf.merge(settings, _group_file(configs_dir() / group / f"{choice}.yaml"))
    file_settings = _group_file(configs_dir() / f"{name}.yaml")
    settings = OmegaConf.merge(settings, file_settings)
    # Every plain override is one key; a value is YAML, as in Hydra.
    for word in plain:
        key, _, value = word.partition("=")
        OmegaConf.update(settings, key, yaml.safe_load(value) if value else None, force_add=True)
    assert isinstance(settings, DictConfig)
    return settings


@cache
def _group_file(path: Path) -> DictConfig:
    """A file of a group with the files its defaults name in the same folder, its own keys last."""
    content: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    merged: Any = OmegaConf.create({})
    for entry in content.pop("defaults", []):
        base = path.parent / f"{entry}.yaml"
        if isinstance(entry, str) and entry != "_self_" and base.is_file():
            merged = OmegaConf.merge(merged, _group_file(base))
    content.pop("hydra", None)
    merged = OmegaConf.merge(merged, OmegaConf.create(content))
    assert isinstance(merged, DictConfig)
    return merged

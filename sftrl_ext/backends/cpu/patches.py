"""Patches of verl 0.9.1 for the CPU platform: one function per line of verl that assumes a GPU.

Each function is named after the module and the name it changes and is called right after verl imports that
module. A GPU run applies none of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from types import ModuleType
from typing import Any

from sftrl_ext.after_import import after_import


def verl_utils_distributed_init_process_group(module: ModuleType) -> None:
    """``backend="cpu:gloo,<device>:<backend>"`` names the CPU twice, which torch refuses: plain gloo.

    Both helpers that start the process group are replaced, verl's Ray workers use one and its SFT trainer
    the other.
    """
    import torch.distributed

    def initialize_global_process_group(timeout_second: int = 36000) -> tuple[int, int, int]:
        torch.distributed.init_process_group(
            backend="gloo",
            timeout=timedelta(seconds=timeout_second),
            init_method=os.environ.get("DIST_INIT_METHOD"),
        )
        return int(os.environ["LOCAL_RANK"]), torch.distributed.get_rank(), torch.distributed.get_world_size()

    module.initialize_global_process_group = initialize_global_process_group  # type: ignore[attr-defined]
    module.initialize_global_process_group_ray = partial(  # type: ignore[attr-defined]
        module.initialize_global_process_group_ray, backend="gloo"
    )


def verl_engine_fsdp_cpu_offload_policy(module: ModuleType) -> None:
    """``CPUOffloadPolicy(pin_memory=True)`` of the reference model: nothing to offload, no memory to pin."""
    from torch.distributed.fsdp import OffloadPolicy

    def no_offload(pin_memory: bool = True) -> OffloadPolicy:
        return OffloadPolicy()

    module.CPUOffloadPolicy = no_offload  # type: ignore[attr-defined]


def verl_utils_fsdp_utils_sharded_save_to_cpu(module: ModuleType) -> None:
    """``_local_tensor.detach().cpu()``, meant as a copy, is the parameter itself where that is on the CPU.

    The trainer `separate_async` restores the policy before the update from it, to compute its
    log-probabilities: without a copy they would be those of the policy after the update.
    """
    save = module.fsdp2_sharded_save_to_cpu

    def fsdp2_sharded_save_to_cpu(model: object) -> tuple[dict[str, tuple[Any, object]], object]:
        state, spec = save(model)
        return {name: (shard.clone(), shard_spec) for name, (shard, shard_spec) in state.items()}, spec

    module.fsdp2_sharded_save_to_cpu = fsdp2_sharded_save_to_cpu  # type: ignore[attr-defined]


PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "verl.utils.distributed": verl_utils_distributed_init_process_group,
    "verl.utils.fsdp_utils": verl_utils_fsdp_utils_sharded_save_to_cpu,
    "verl.workers.engine.fsdp.transformer_impl": verl_engine_fsdp_cpu_offload_policy,
}
"""Module of verl -> the function that changes it."""


def apply_when_imported() -> None:
    """Schedule every patch to be applied as soon as verl imports the module it changes."""
    for name, patch in PATCHES.items():
        after_import(name, patch)

"""What verl 0.9.1 hard-codes for a GPU, changed for the CPU platform: one function per line of verl.

Each function is named after the module and the name it changes and is called right after verl imports that
module. A GPU run applies none of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from types import ModuleType
from typing import Any

from sftrl_ext.backends.after_import import after_import


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


def verl_utils_model_load_valuehead_model(module: ModuleType) -> None:
    """``attn_implementation="flash_attention_2"`` of the critic: the one its config asks for instead.

    Its new head is drawn from a seed, so that a run that starts again is the same run.
    """

    def load_valuehead_model(
        local_path: str, torch_dtype: object, model_config: object, trust_remote_code: bool
    ) -> object:
        import torch
        from transformers import AutoModelForTokenClassification

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return AutoModelForTokenClassification.from_pretrained(
                local_path,
                dtype=torch_dtype,
                config=model_config,
                attn_implementation=model_config._attn_implementation,  # type: ignore[attr-defined]
                trust_remote_code=trust_remote_code,
            )

    module.load_valuehead_model = load_valuehead_model  # type: ignore[attr-defined]


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


def verl_utils_seqlen_balancing_partitions(module: ModuleType) -> None:
    """Micro-batches balanced by tokens mix long rows with short ones; padded rows go by length instead."""
    balanced = module.get_seqlen_balanced_partitions

    def get_seqlen_balanced_partitions(
        seqlen_list: list[int], k_partitions: int, equal_size: bool
    ) -> list[list[int]]:
        if equal_size:  # ranks, not micro-batches
            found: list[list[int]] = balanced(seqlen_list, k_partitions, equal_size)
            return found
        return partitions_by_length(seqlen_list, k_partitions)

    module.get_seqlen_balanced_partitions = get_seqlen_balanced_partitions  # type: ignore[attr-defined]


def partitions_by_length(costs: Sequence[float], parts: int) -> list[list[int]]:
    """Cut rows, ordered by cost, into non-empty runs of about the same total cost.

    Args:
        costs: Cost of each row, growing with its length.
        parts: How many runs, at most ``len(costs)``.

    Returns:
        The indices of each run.
    """
    order = sorted(range(len(costs)), key=lambda row: costs[row])
    total, spent, cuts = sum(costs), 0.0, [0]
    for place, row in enumerate(order):
        made = len(cuts)
        if made == parts:
            break
        spent += costs[row]
        last_chance = len(order) - (parts - made) == place + 1
        if last_chance or (spent >= total * made / parts and len(order) - place - 1 >= parts - made):
            cuts.append(place + 1)
    return [order[a:b] for a, b in zip(cuts, [*cuts[1:], len(order)], strict=True)]


PATCHES: dict[str, Callable[[ModuleType], None]] = {
    "verl.utils.distributed": verl_utils_distributed_init_process_group,
    "verl.utils.fsdp_utils": verl_utils_fsdp_utils_sharded_save_to_cpu,
    "verl.utils.model": verl_utils_model_load_valuehead_model,
    "verl.utils.seqlen_balancing": verl_utils_seqlen_balancing_partitions,
    "verl.workers.engine.fsdp.transformer_impl": verl_engine_fsdp_cpu_offload_policy,
}
"""Module of verl -> the function that changes it."""


def apply_when_imported() -> None:
    """Arrange for every patch to be applied as soon as verl imports the module it changes."""
    for name, patch in PATCHES.items():
        after_import(name, patch)

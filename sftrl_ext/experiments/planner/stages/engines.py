"""Engines and micro-batches of a training command, from its settings."""

from __future__ import annotations

from omegaconf import DictConfig

from sftrl_ext.experiments.planner import memory
from sftrl_ext.experiments.planner.activations import MicroBatch
from sftrl_ext.experiments.planner.memory import ModelEngine
from sftrl_ext.experiments.planner.stages.stage import PlanContext
from sftrl_ext.experiments.planner.stages.workload import Workload


def engine_of(
    context: PlanContext,
    role: str,
    fsdp: DictConfig,
    optim: DictConfig | None,
    freeze: str | None,
    start_copy: bool,
) -> ModelEngine:
    """One engine of a command.

    Args:
        context: The recipe's context.
        role: ``actor``, ``critic``, ``reference`` or ``sft``.
        fsdp: Its FSDP config.
        optim: Its optimizer config; None for the reference.
        freeze: Part that is not trained.
        start_copy: A frozen start model lies beside it.
    """
    a = context.architecture
    critic = role == "critic"
    parameters = a.critic_parameters if critic else a.parameters
    trainable = 0 if role == "reference" else parameters - a.frozen_parameters(freeze)
    mixed = fsdp.get("mixed_precision") or {}
    options = (optim.get("override_optimizer_config") if optim is not None else None) or {}
    return ModelEngine(
        role, parameters, trainable, context.ranks, memory.root_and_layers(a, critic),
        param_offload=bool(fsdp.param_offload),
        optimizer_offload=bool(fsdp.optimizer_offload),
        offload_policy=bool(fsdp.offload_policy) or role == "reference",
        fused=bool(options.get("fused", False)),
        compute_bytes=4 if mixed.get("param_dtype") == "fp32" else 2,
        start_copy=parameters if start_copy else 0,
    )  # fmt: skip


def micro_batch(
    workload: Workload, row: float, longest: float, cap: float, share: float, capped: bool
) -> MicroBatch:
    """Largest micro-batch of a pass.

    Args:
        workload: Images of a row.
        row: Tokens of an average row.
        longest: Tokens of the longest, to which a padded row is filled up.
        cap: Token limit of a micro-batch.
        share: Tokens of a rank's rows.
        capped: The cap holds for computed tokens: rows are packed, or padding counts towards it
            (`sftrl_ext.training.padded_batches`). Otherwise rows are filled up to the longest.
    """
    # A rank may have fewer tokens than the cap allows, but never less than its longest row.
    valid = max(min(cap, share), min(longest, cap))
    rows = max(1.0, valid / row)
    tokens = valid if capped else max(valid, rows * min(longest, cap))
    return MicroBatch(tokens, valid, rows, rows * workload.images, workload.patches)


def is_packed(model: DictConfig) -> bool:
    """Rows of a micro-batch are packed without padding."""
    return bool(model.use_remove_padding)


def has_flash(model: DictConfig) -> bool:
    """flash-attn is installed: a run whose attention is flash-attn's could not start without."""
    attention = (model.get("override_config") or {}).get("attn_implementation")
    return attention in (None, "flash_attention_2")

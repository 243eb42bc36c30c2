"""Plan of a stage of SFT."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from sftrl_ext.experiments.plan import Stage
from sftrl_ext.experiments.planner import activations, memory, work
from sftrl_ext.experiments.planner.activations import LogitPass
from sftrl_ext.experiments.planner.memory import Keys
from sftrl_ext.experiments.planner.stages.engines import engine_of, has_flash, is_packed, micro_batch
from sftrl_ext.experiments.planner.stages.row_sampling import with_sampling
from sftrl_ext.experiments.planner.stages.stage import PlanContext, StagePlan, finish, on_cpu
from sftrl_ext.experiments.planner.stages.verl_settings import command_settings
from sftrl_ext.experiments.planner.stages.workload import workload_of
from sftrl_ext.experiments.recipe.arm_config import ArmConfig
from sftrl_ext.experiments.recipe.arms import saved_steps
from sftrl_ext.training.engine_settings import LOSSES

if TYPE_CHECKING:
    from sftrl_ext.experiments.recipe.schema import SFTConfig


def sft_plan(context: PlanContext, stage: Stage, config: SFTConfig, arm: ArmConfig | None) -> StagePlan:
    """Plan a stage of SFT.

    Args:
        context: The recipe's context.
        stage: The stage, with its command and environment.
        config: Its budget.
        arm: Its arm; None for a stage before the arms.
    """
    settings = command_settings(stage.command)
    a = context.architecture
    workload = workload_of(
        context.recipe, a, arm, dialogues=1.0 if stage.name == "dialogues" else config.dialogues
    )
    anchored = LOSSES[stage.env.get("SFTRL_SFT_LOSS", "nll")].anchored
    engine = engine_of(
        context, "sft", settings.engine, settings.optim, stage.env.get("SFTRL_FREEZE"), anchored
    )
    row, longest = workload.sft_row, min(workload.longest_sft_row, config.max_length)
    packed, dtype = is_packed(settings.model), engine.compute_bytes
    micro = settings.data.micro_batch_size_per_gpu
    cap = (
        settings.data.max_token_len_per_gpu if settings.data.use_dynamic_bsz else micro * (row + longest) / 2
    )
    share = config.batch_size / context.ranks * row
    capped = packed or bool(settings.data.use_dynamic_bsz)
    batch = micro_batch(workload, row, longest, cap, max(share, cap), capped)
    checkpointing = bool(settings.model.enable_gradient_checkpointing)
    acts = activations.saved_bytes(a, batch, dtype, checkpointing)
    acts += activations.vision_bytes(a, batch, dtype, checkpointing)
    temperature_one = LogitPass(training=True, scaled=False, packed=packed, flash=has_flash(settings.model))
    logits = activations.logit_bytes(batch, a.vocab, dtype, temperature_one)
    if anchored:  # both models' distributions in float32
        logits += (dtype + 3 * 4) * batch.valid * a.vocab
    section = stage.name if stage.name in ("base", "dialogues", "init") else "sft"
    keys = Keys(f"budget.{section}.micro_batch_size", ("scale.offload=always",))
    phases = memory.training_phases("train", engine, 0.0, acts, logits, keys)
    if context.cpu:
        phases = [on_cpu(phase) for phase in phases]
    padding = 1.0 if capped else longest / row
    amount = work.sft_work(
        a, context.hardware, context.efficiency, workload,
        rows=float(config.steps * config.batch_size), steps=config.steps,
        devices=context.ranks, recompute=checkpointing, padding=padding, anchored=anchored,
    )  # fmt: skip
    if arm is not None and arm.rows == "own":
        amount = with_sampling(context, replace(workload, turns=1.0), float(config.rows), amount)
    saves = len(saved_steps(config))
    return finish(
        context, stage.name, "sft", phases, [engine], saves, workload, amount, traffic=0.0, rows=0.0
    )

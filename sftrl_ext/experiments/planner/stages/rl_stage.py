"""Plan of a stage of RL: generation, passes without gradients, and the updates of actor and critic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from sftrl_ext.experiments.plan import Stage
from sftrl_ext.experiments.planner import activations, disk, memory, work
from sftrl_ext.experiments.planner.activations import LogitPass, MicroBatch
from sftrl_ext.experiments.planner.memory import VLLM_WORKSPACE, Keys, ModelEngine, Phase
from sftrl_ext.experiments.planner.stages.engines import engine_of, has_flash, is_packed, micro_batch
from sftrl_ext.experiments.planner.stages.row_sampling import with_sampling
from sftrl_ext.experiments.planner.stages.stage import PlanContext, StagePlan, finish, on_cpu
from sftrl_ext.experiments.planner.stages.verl_settings import command_settings
from sftrl_ext.experiments.planner.stages.workload import Workload, workload_of
from sftrl_ext.experiments.planner.work import RLShape
from sftrl_ext.experiments.recipe.arm_config import ArmConfig
from sftrl_ext.experiments.recipe.arms import saved_steps

if TYPE_CHECKING:
    from sftrl_ext.experiments.recipe.schema import RLConfig


def rl_plan(context: PlanContext, stage: Stage, config: RLConfig, arm: ArmConfig | None) -> StagePlan:
    """Plan a stage of RL.

    Args:
        context: The recipe's context.
        stage: The stage, with its command.
        config: Its budget.
        arm: Its arm.
    """
    settings = command_settings(stage.command)
    ref = settings.actor_rollout_ref
    a, workload = context.architecture, workload_of(context.recipe, context.architecture, arm)
    episodes = episodes_of(config, workload)
    actor = engine_of(
        context, "actor", ref.actor.fsdp_config, ref.actor.optim, stage.env.get("SFTRL_FREEZE"), False
    )
    engines = [actor]
    critic = None
    if settings.algorithm.adv_estimator == "gae":
        critic = engine_of(context, "critic", settings.critic.fsdp, settings.critic.optim, None, False)
        engines.append(critic)
    reference = None
    if ref.actor.use_kl_loss or settings.algorithm.use_kl_in_reward:
        reference = engine_of(context, "reference", ref.ref.fsdp_config, None, None, False)
        engines.append(reference)
    limit = float(config.max_prompt_length + config.max_response_length)
    share = episodes * workload.rows * limit / context.ranks  # memory: every row at its limits
    rollout_copy = _rollout_copy(context, ref)
    phases, sequences = _generation(context, ref, engines, workload)
    passes = _Passes(context, settings, workload, share, config.minibatches, rollout_copy)
    phases += passes.forward(
        "old log-probs", actor, engines, ref.rollout.log_prob_max_token_len_per_gpu, True
    )
    if reference is not None:
        cap = ref.ref.log_prob_max_token_len_per_gpu
        phases += passes.forward("reference", reference, engines, cap, False)
    if critic is not None:
        phases += passes.forward(
            "values", critic, engines, settings.critic.forward_max_token_len_per_gpu, False
        )
        phases += passes.train("update critic", critic, engines, settings.critic.ppo_max_token_len_per_gpu)
    phases += passes.train("update actor", actor, engines, ref.actor.ppo_max_token_len_per_gpu)
    if context.cpu:
        phases = [on_cpu(phase) for phase in phases]
    moved = sum(
        2 * engine.host for engine in engines if engine.param_offload or engine.optimizer_offload
    ) + sum(
        (config.epochs * config.minibatches if engine.trainable else 1) * 3 * engine.weights
        for engine in engines
        if engine.offload_policy and not context.cpu
    )
    shape = RLShape(
        updates=config.updates, episodes=episodes, epochs=config.epochs, devices=context.ranks,
        tensor_parallel=ref.rollout.tensor_model_parallel_size,
        sequences=max(1.0, min(float(ref.rollout.max_num_seqs), sequences)),
        critic=critic is not None, reference=reference is not None,
        checked=_checked_share(settings, config.updates),
        recompute=bool(ref.model.enable_gradient_checkpointing), padding=_padding(context, passes),
        sync_bytes=4.0 * a.parameters, offload_bytes=0.0 if context.cpu else moved,
        weight_bytes=4 if context.cpu else 2,
    )  # fmt: skip
    amount = work.rl_work(a, context.hardware, context.efficiency, workload, shape)
    if arm is not None and arm.rows == "learnable":
        tried = float(config.tried_prompts * config.prompt_samples)
        amount = with_sampling(context, workload, tried, amount)
    return finish(
        context, stage.name, "rl", phases, engines, len(saved_steps(config)), workload, amount,
        traffic=disk.picture_bytes(workload, episodes),
        rows=disk.row_bytes(workload, episodes), sequences=sequences,
    )  # fmt: skip


PADDING = 1.13
"""Computed tokens over valid ones where padding counts towards the cap: the largest share seen in 512 rows of
200 to 1,152 tokens, at a cap of 64 of the longest."""


def _checked_share(settings: DictConfig, updates: int) -> float:
    """Share of the updates that compute log-probabilities which the sampler has returned already."""
    every = OmegaConf.select(settings, "sftrl.check_every") or 1
    return math.ceil(updates / every) / updates


def _padding(context: PlanContext, passes: _Passes) -> float:
    if passes.packed:
        return 1.0
    if context.cpu:  # the runs that its efficiency was fitted to were cut by valid tokens
        return min(passes.workload.longest_row, passes.longest) / passes.workload.row
    return PADDING


def episodes_of(config: RLConfig, workload: Workload) -> float:
    """Episodes of an update; where an update counts responses, as many as give them."""
    responses = getattr(config, "responses", None)
    return config.episodes if responses is None else responses / workload.responses


@dataclass(frozen=True)
class _Passes:
    """Passes of an update's engines over a rank's rows."""

    context: PlanContext
    settings: DictConfig
    workload: Workload
    share: float
    minibatches: int
    rollout_copy: float

    @property
    def packed(self) -> bool:
        return is_packed(self.settings.actor_rollout_ref.model)

    @property
    def longest(self) -> float:
        data = self.settings.data
        return float(data.max_prompt_length + data.max_response_length)

    def _batch(self, cap: float, share: float) -> MicroBatch:
        longest = min(self.workload.longest_row, self.longest)
        return micro_batch(self.workload, self.workload.row, longest, cap, share, capped=True)

    def _others(self, engine: ModelEngine, engines: list[ModelEngine]) -> float:
        return sum(other.resident for other in engines if other is not engine) + self.rollout_copy

    def _logits(self, engine: ModelEngine, training: bool, entropy: bool) -> LogitPass:
        actor = self.settings.actor_rollout_ref.actor
        # Of padded rows the entropy is computed row by row (`sftrl_ext.training.padded_batches`).
        chunked = not self.packed or bool(actor.entropy_from_logits_with_chunking)
        return LogitPass(
            training=training,
            entropy="none" if not entropy else "chunked" if chunked else "full",
            scaled=self.settings.actor_rollout_ref.rollout.temperature != 1,
            packed=self.packed,
            flash=has_flash(self.settings.actor_rollout_ref.model),
            chunk=int(actor.entropy_from_logits_chunk_size),
        )

    def forward(
        self, name: str, engine: ModelEngine, engines: list[ModelEngine], cap: float, entropy: bool
    ) -> list[Phase]:
        a, batch = self.context.architecture, self._batch(cap, self.share)
        vocab = 0 if engine.role == "critic" else a.vocab
        logits = activations.logit_bytes(
            batch, vocab, engine.compute_bytes, self._logits(engine, False, entropy)
        )
        acts = activations.forward_bytes(a, batch, engine.compute_bytes)
        keys = Keys("budget.rl.micro_batch_size", (*OFFLOAD, *_without_critic(engines)))
        return [memory.forward_phase(name, engine, self._others(engine, engines), acts, logits, keys)]

    def train(self, name: str, engine: ModelEngine, engines: list[ModelEngine], cap: float) -> list[Phase]:
        a, actor = self.context.architecture, self.settings.actor_rollout_ref.actor
        batch = self._batch(cap, self.share / self.minibatches)
        checkpointing = bool(self.settings.actor_rollout_ref.model.enable_gradient_checkpointing)
        critic = engine.role == "critic"
        entropy = not critic and bool(actor.calculate_entropy or actor.entropy_coeff)
        logits = activations.logit_bytes(
            batch, 0 if critic else a.vocab, engine.compute_bytes, self._logits(engine, True, entropy)
        )
        acts = activations.saved_bytes(a, batch, engine.compute_bytes, checkpointing)
        acts += activations.vision_bytes(a, batch, engine.compute_bytes, checkpointing)
        keys = Keys("budget.rl.micro_batch_size", (*OFFLOAD, *_without_critic(engines)))
        others = self._others(engine, engines)
        return memory.training_phases(name, engine, others, acts, logits, keys)


def _without_critic(engines: list[ModelEngine]) -> tuple[str, ...]:
    return ("budget.rl.algorithm=rloo_turn",) if any(e.role == "critic" for e in engines) else ()


OFFLOAD = ("scale.offload=idle", "scale.offload=always")
"""Recipe keys that move weights and optimizer states to the host."""


def _rollout_copy(context: PlanContext, ref: DictConfig) -> float:
    """Bytes that the rollout engine keeps on the device while models train."""
    if context.cpu:
        return 4.0 * context.architecture.parameters
    if ref.rollout.name != "vllm":
        return 2.0 * context.architecture.parameters
    if ref.rollout.free_cache_engine:
        return 0.0
    return float(ref.rollout.gpu_memory_utilization) * context.hardware.memory


def _generation(
    context: PlanContext, ref: DictConfig, engines: list[ModelEngine], workload: Workload
) -> tuple[list[Phase], float]:
    """Phases of the rollout engine, and the sequences its cache holds."""
    a, rollout = context.architecture, ref.rollout
    resident = sum(engine.resident for engine in engines)
    dtype = 4 if context.cpu else 2
    parts = rollout.tensor_model_parallel_size if rollout.name == "vllm" else 1  # others share, undivided
    weights = dtype * a.parameters / parts
    cache_row = a.kv_bytes(dtype) * workload.longest_row / parts
    if context.cpu or rollout.name != "vllm":
        cache = cache_row * rollout.max_num_seqs
        phase = Phase(
            "generate",
            {"weights": weights, "kv_cache": cache, "others": resident, "runtime": memory.RUNTIME},
            Keys("verl_ppo=[actor_rollout_ref.rollout.max_num_seqs=..]", OFFLOAD),
        )
        return [phase], float(rollout.max_num_seqs)
    bucket = float(rollout.checkpoint_engine.update_weights_bucket_megabytes) * 2**20
    phases = memory.vllm_phases(
        resident, weights, float(rollout.gpu_memory_utilization), context.hardware.memory, bucket,
        4.0 * (a.vocab + a.extra_embeddings) * a.hidden,
    )  # fmt: skip
    cache = phases[0].parts["kv_cache"] - VLLM_WORKSPACE
    return phases, max(0.0, cache / cache_row)

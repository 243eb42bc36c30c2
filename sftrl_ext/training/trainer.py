"""verl's three V1 trainers (synchronous, colocated and separate asynchronous) with turn-level credit.

Selected with ``trainer.v1.trainer_mode=sftrl_turn``, ``sftrl_turn_colocate_async`` or
``sftrl_turn_separate_async``. Four things differ from verl: advantages and returns come from
`sftrl_ext.training.credit`, the critic learns at the first token of each turn only (where its value is read),
the number of optimizer steps of an update does not depend on the number of prompts of its episodes, and there
are metrics of episodes, turns and tokens. A synchronous update may hold a number of responses instead of
episodes (`sftrl_ext.training.response_batches`).
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
from verl.trainer.ppo.utils import need_critic
from verl.trainer.ppo.v1.replay_buffer import ReplayBufferAsync
from verl.trainer.ppo.v1.trainer_base import PPOTrainer, register_trainer
from verl.trainer.ppo.v1.trainer_colocate_async import PPOTrainerColocateAsync
from verl.trainer.ppo.v1.trainer_separate_async import PPOTrainerSeparateAsync
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import response_to_nested

from sftrl_ext.errors import SftrlError
from sftrl_ext.rollout import AGENT_LOOP
from sftrl_ext.runs.layout import TOKENS_FILE
from sftrl_ext.training import credit
from sftrl_ext.training.correction import as_loss_weights, correction_level, turn_is_action, turn_weights
from sftrl_ext.training.estimators import CreditSettings, PlayedTurns
from sftrl_ext.training.log_prob_checks import LogProbChecks, copy_log_probs, drop_copied_metrics
from sftrl_ext.training.metrics import (
    Passes,
    StepRows,
    TokenCounts,
    first_minibatch_metrics,
    group_metrics,
    merge_metrics,
    mismatch_metrics,
    policy_metrics,
    row_metrics,
    staleness_metrics,
    turn_metrics,
)
from sftrl_ext.training.response_batches import fetch_single_prompts, requested_responses, response_buffer
from sftrl_ext.training.settings import POLICY_LOSS, TRAINERS

if TYPE_CHECKING:
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

_TOKEN_FIELDS = ["response_mask", "turn_ids", "rm_scores", "token_level_rewards", "values", "old_log_probs"]
_TOKEN_FIELDS += ["ref_log_prob", "entropy", "rollout_log_probs"]
_MINIBATCHES = ("actor_rollout_ref.actor.ppo_mini_batch_size", "critic.ppo_mini_batch_size")


def credit_settings(config: DictConfig) -> CreditSettings:
    """Read ``sftrl.credit`` and check it against the rest of the config.

    Raises:
        SftrlError: if the config contradicts the estimator.
    """
    section = OmegaConf.select(config, "sftrl.credit")
    values: Any = None if section is None else OmegaConf.to_container(section, resolve=True)
    settings = CreditSettings.from_mapping(values)
    name, method = f"sftrl.credit.estimator={settings.estimator}", settings.method
    if method.critic and not need_critic(config):
        raise SftrlError(f"{name} needs a critic: set algorithm.adv_estimator=gae.")
    if method.groups and (size := int(config.actor_rollout_ref.rollout.n)) < 2:
        raise SftrlError(
            f"{name} compares episodes of the same prompt: actor_rollout_ref.rollout.n is {size}, expected 2 "
            "or more."
        )
    if method.estimate is not None and not method.critic and need_critic(config):
        raise SftrlError(f"{name} has no critic: set algorithm.adv_estimator=grpo.")
    return settings


class MinibatchSizes:
    """Minibatch sizes as a share of the step's rows, as the config's are a share of its episodes.

    verl counts minibatches in rows. An episode with several prompts has a row for each, so a step of such
    episodes would make as many times the optimizer steps, the last one of them on few rows.

    Args:
        config: The training config.
        parts: Parts in which the trainer draws the episodes of a step.
    """

    def __init__(self, config: DictConfig, parts: int = 1) -> None:
        self.episodes = int(config.data.train_batch_size) * int(config.actor_rollout_ref.rollout.n) // parts
        self.group = int(config.actor_rollout_ref.rollout.n)
        self.ranks = int(config.trainer.n_gpus_per_node) * int(config.trainer.nnodes)
        self.sizes = {key: int(OmegaConf.select(config, key)) for key in _MINIBATCHES}
        self.counts_responses = requested_responses(config) is not None

    def fit(self, config: DictConfig, rows: int) -> None:
        """Set the sizes for a part of so many rows; with one row per episode they are the configured ones.

        A step that counts responses has any number of episodes, so its sizes are always set.
        """
        steps = {key: max(1, self.episodes // (size * self.group)) for key, size in self.sizes.items()}
        # verl pads a step to a multiple of every minibatch; this is one.
        unit = math.lcm(self.group, self.ranks) * math.lcm(*steps.values())
        padded = -(-rows // unit) * unit
        for key, size in self.sizes.items():
            fits = self.counts_responses or rows > self.episodes
            fitted = padded // steps[key] // self.group if fits else size
            OmegaConf.update(config, key, fitted)


class TurnCreditMixin(PPOTrainer):
    """PPO, GRPO or RLOO in which one response is one action; goes in front of one of verl's V1 trainers.

    Attributes:
        verl_mode: verl's name of the trainer behind it.
        correction: Level of the importance weights of samples; None weights none.
        checks: Updates that compute log-probabilities which the sampler has returned already.
    """

    verl_mode: ClassVar[str]
    correction: str | None = None
    checks: LogProbChecks = LogProbChecks()

    def __init__(self, config: DictConfig) -> None:
        if AGENT_LOOP not in _agent_loop_registry:
            raise SftrlError(
                f"verl does not know the agent loop {AGENT_LOOP!r}: the verl.plugins entry point of "
                "sftrl-ext was not loaded in this process. Is sftrl-ext installed here, and is "
                "VERL_USE_EXTERNAL_PLUGINS not 'none'?"
            )
        self.credit = credit_settings(config)
        self.correction = correction_level(config, self.verl_mode)
        self.checks = LogProbChecks.of_config(config, self.verl_mode)
        with open_dict(config):
            # verl picks its replay buffer and its checkpoint contents by this name.
            config.trainer.v1.trainer_mode = self.verl_mode
            if self.correction is not None:
                by_token = self.correction == "token"
                config.algorithm.rollout_correction.rollout_is = "token" if by_token else None
        self.tokens = TokenCounts()
        self._named = (-1, 0)
        self._parts: list[tuple[int, dict[str, float]]] = []
        self._minibatches = MinibatchSizes(config, self._check_mode(config))
        if self._minibatches.counts_responses:
            fetch_single_prompts(config)
        super().__init__(config)
        self._check_replay_buffer()
        self._responses = response_buffer(config, self.replay_buffer, self._add_prompts_to_generate)
        if self._responses is not None:
            self.replay_buffer = cast("ReplayBuffer", self._responses)

    def _check_mode(self, config: DictConfig) -> int:
        """Refuse options the mode does not support; return the parts in which it draws a step's episodes."""
        if self.verl_mode == "sync":
            return 1
        if requested_responses(config) is not None:
            raise SftrlError(
                f"sftrl.responses with trainer {TRAINERS[self.verl_mode]}: an asynchronous update takes the "
                "episodes that have ended; expected null (budget.rl.responses=null), and the number of "
                "episodes in its place."
            )
        if OmegaConf.select(config, "sftrl.rollout.seeded"):
            raise SftrlError(
                f"sftrl.rollout.seeded=true with trainer {TRAINERS[self.verl_mode]}: a response that is "
                "interrupted by an update would continue with the random numbers it began with; expected "
                f"seeded=false (mode={self.verl_mode} sets it)."
            )
        if self.verl_mode != "separate_async":
            return 1
        parts = int(config.trainer.v1.separate_async.parameter_sync_step)
        if parts > 1 and OmegaConf.select(config, "actor_rollout_ref.actor.fsdp_config.param_offload"):
            # verl_utils_fsdp_utils: the "copy" of a parameter that is on the CPU already is the parameter.
            raise SftrlError(
                "trainer.v1.separate_async.parameter_sync_step above 1 with "
                "actor_rollout_ref.actor.fsdp_config.param_offload=true: verl keeps no copy of the policy "
                "before the update, so its log-probabilities would be of the policy after it."
            )
        return parts

    def _check_replay_buffer(self) -> None:
        buffer = type(self.replay_buffer)
        if (self.verl_mode != "sync") != issubclass(buffer, ReplayBufferAsync):
            expected = "subclass" if self.verl_mode != "sync" else "no subclass"
            raise SftrlError(
                f"trainer.v1.sampler.custom_sampler is {buffer.__name__}; trainer "
                f"{TRAINERS[self.verl_mode]} expects {expected} of verl's ReplayBufferAsync."
            )

    # ------------------------------------------------------------------ prompts

    def _fetch_one_gen_batch(self) -> TensorDict:
        """Fetch verl's next prompts, named by step and index instead of at random.

        A resumed run gives them the same names, so seeds and order, which derive from them, are the same.
        """
        batch = super()._fetch_one_gen_batch()
        if self._named[0] != self.global_steps:
            self._named = (self.global_steps, 0)
        step, first = self._named
        self._named = (step, first + len(batch))
        names = [f"{step:08d}-{index:06d}" for index in range(first, first + len(batch))]
        tu.assign_non_tensor_stack(batch, "uid", names)
        return batch

    def _next_train_batch(self, num_prompts: int | None = None) -> TensorDict:
        if num_prompts is None and self._responses is not None:
            num_prompts = self._responses.first_wave()
        return super()._next_train_batch(num_prompts)

    # ------------------------------------------------------------------ parts of an update

    def step(self, metrics: dict, timing_raw: dict) -> KVBatchMeta:
        """verl's, with the episode and token metrics of an update's parts merged by their kind."""
        # An asynchronous update may have several parts, each with metrics of its own.
        self._parts = []
        batch = super().step(metrics, timing_raw)
        metrics.update(merge_metrics(self._parts))
        return batch

    def _step_once(self, metrics: dict, *args: Any, **kwargs: Any) -> KVBatchMeta:
        batch = super()._step_once(metrics, *args, **kwargs)
        # The weight of this part in the means.
        rows = sum(not tag.get("is_padding", False) for tag in batch.tags)
        self._parts.append((rows, dict(metrics)))
        return batch

    # ------------------------------------------------------------------ minibatches

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any) -> KVBatchMeta:
        """verl's, after the size of a minibatch has been fitted to the rows of the step."""
        self._minibatches.fit(self.config, len(batch))
        return super()._balance_batch(batch, metrics, *args, **kwargs)

    # ------------------------------------------------------------------ log-probabilities

    def _compute_old_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.checks.due(self.global_steps):
            return super()._compute_old_log_prob(batch, metrics)
        return copy_log_probs(batch, "rollout_log_probs", "old_log_probs")

    def _compute_ref_log_prob(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.checks.due(self.global_steps):
            return super()._compute_ref_log_prob(batch, metrics)
        # The actor reads the field whenever it logs a divergence; its coefficient is 0.
        return copy_log_probs(batch, "old_log_probs", "ref_log_prob")

    # ------------------------------------------------------------------ advantages

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        rows = StepRows(batch.keys, batch.tags, self._extra_fields(batch))
        metrics.update(row_metrics(rows))
        rows.refuse_faults()
        # verl's own advantages are replaced below; its KL penalty and rollout correction, if asked for, stay.
        batch = super()._compute_advantage(batch, metrics)
        data, nested_mask = self._token_data(batch)
        self._count_tokens(rows, metrics)
        if self.checks.due(self.global_steps):
            metrics.update(policy_metrics(data))
            metrics.update(mismatch_metrics(data))
        else:
            drop_copied_metrics(metrics)
        metrics.update(staleness_metrics(rows, self.global_steps - 1))
        if self.correction == "turn":
            self._put_turn_weights(batch, data, nested_mask, metrics)
        method = self.credit.method
        if method.estimate is None:
            return batch

        # In double precision, so that equal rewards cancel: Adam would magnify the rounding errors.
        rewards = data.get("token_level_rewards", data["rm_scores"]).double()
        turns = credit.collect_turns(data["turn_ids"], rewards, rows.episode, rows.segment)
        values = turns.at_start(data["values"].double()) if method.critic else None
        played = PlayedTurns(turns.rewards, turns.alive, rows.group_of_episode, values)
        raw, returns = method.estimate(played, self.credit.gamma, self.credit.lam)
        advantages = credit.normalize_advantages(raw, turns.alive, self.credit.normalization)
        metrics.update(turn_metrics(turns, raw, returns, values))
        if method.groups:
            metrics.update(group_metrics(rows, turns.alive, turns.rewards))
        fields = {
            "advantages": response_to_nested(turns.to_tokens(advantages).float(), nested_mask),
            "returns": response_to_nested(turns.to_tokens(returns).float(), nested_mask),
            "turn_starts": response_to_nested(turns.start_mask(), nested_mask),
        }
        return tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(batch))
        )

    def _put_turn_weights(
        self, batch: KVBatchMeta, data: dict[str, torch.Tensor], nested_mask: torch.Tensor, metrics: dict
    ) -> None:
        """Write the turns' importance weights where the policy loss finds verl's own."""
        threshold = self.config.algorithm.rollout_correction.rollout_is_threshold
        weights, is_last, measured = turn_weights(
            data["old_log_probs"], data["rollout_log_probs"], data["turn_ids"], threshold
        )
        metrics.update(measured)
        weights = as_loss_weights(weights, is_last, turn_is_action=turn_is_action(self.config))
        fields = {"rollout_is_weights": response_to_nested(weights, nested_mask)}
        tq.kv_batch_put(
            keys=batch.keys, partition_id=batch.partition_id, fields=TensorDict(fields, batch_size=len(batch))
        )

    def _extra_fields(self, batch: KVBatchMeta) -> list[Any]:
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields"]
        )
        return list(data["extra_fields"])

    def _token_data(self, batch: KVBatchMeta) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """Token tensors of the step, padded on the right to ``[rows, tokens]``; the nested response mask."""
        data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=_TOKEN_FIELDS)
        nested_mask = data["response_mask"]
        padded = data.to_padded_tensor()
        tensors = {key: padded[key] for key in _TOKEN_FIELDS if padded.get(key) is not None}
        # verl's padding rows copy the turns of a real row, but have no mask.
        tensors["turn_ids"] = tensors["turn_ids"] * tensors["response_mask"]
        return tensors, nested_mask

    # ------------------------------------------------------------------ losses

    def _update_critic(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if not self.credit.method.critic:
            return super()._update_critic(batch, metrics)
        with self._turn_starts_as(["response_mask", "loss_mask"], batch):
            return super()._update_critic(batch, metrics)

    def _update_actor(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """verl's; with one ratio per turn, ``token-mean`` is the mean over the turns of a minibatch.

        verl divides by the sum of ``loss_mask`` over the minibatch and all ranks, and reads it for nothing
        else.
        """
        per_turn = self.config.actor_rollout_ref.actor.policy_loss.loss_mode == POLICY_LOSS
        if not per_turn or self.credit.method.estimate is None:
            return self._update_actor_and_log(batch, metrics)
        with self._turn_starts_as(["loss_mask"], batch):
            return self._update_actor_and_log(batch, metrics)

    def _update_actor_and_log(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        """verl's, which averages the metrics of the optimizer steps; those of the first are logged too."""
        # verl returns averages only; the worker group's own outputs still have every optimizer step.
        with _outputs_of(self.actor_rollout_wg, "update_actor") as outputs:
            batch = super()._update_actor(batch, metrics)
        for output in outputs:
            metrics.update(first_minibatch_metrics(output["metrics"]))
        if not self.checks.due(self.global_steps):
            drop_copied_metrics(metrics)
        return batch

    @contextmanager
    def _turn_starts_as(self, names: list[str], batch: KVBatchMeta) -> Iterator[None]:
        """Replace masks of a batch by those of each turn's first token, and restore them after."""
        saved = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=[*names, "turn_starts"]
        )
        starts = TensorDict(dict.fromkeys(names, saved["turn_starts"]), batch_size=len(batch))
        tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=starts)
        try:
            yield
        finally:
            tq.kv_batch_put(keys=batch.keys, partition_id=batch.partition_id, fields=saved.select(*names))

    # ------------------------------------------------------------------ token counts

    def _count_tokens(self, rows: StepRows, metrics: dict) -> None:
        passes = Passes.of_update(
            self.config,
            self.global_steps,
            critic=self.use_critic,
            reference=self.use_reference_policy,
            checked=self.checks.due(self.global_steps),
        )
        self.tokens.add_step(rows, passes)
        metrics.update(self.tokens.metrics())

    def _save_checkpoint(self) -> None:
        folder = os.path.join(self.config.trainer.default_local_dir, f"global_step_{self.global_steps}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, TOKENS_FILE), "w", encoding="utf-8") as file:
            json.dump(self.tokens.total, file)
        if self._responses is not None:
            self._responses.save(folder)
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        # verl found no checkpoint.
        if self.global_steps == 0:
            return
        config = self.config.trainer
        folder = os.path.join(config.default_local_dir, f"global_step_{self.global_steps}")
        if config.resume_mode == "resume_path":
            folder = config.resume_from_path
        if self._responses is not None:
            self._responses.load(folder)
        path = os.path.join(folder, TOKENS_FILE)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                self.tokens.restore(json.load(file))


@contextmanager
def _outputs_of(group: Any, method: str) -> Iterator[list[Any]]:
    """Collect the return values of a worker group's method while the context is open."""
    call = getattr(group, method)
    outputs: list[Any] = []

    def collect(*args: Any, **kwargs: Any) -> Any:
        outputs.append(call(*args, **kwargs))
        return outputs[-1]

    setattr(group, method, collect)
    try:
        yield outputs
    finally:
        setattr(group, method, call)


@register_trainer(TRAINERS["sync"])
class TurnTrainer(TurnCreditMixin, PPOTrainerSync):
    """Generates all episodes of an update with the policy it updates, then trains."""

    verl_mode = "sync"


@register_trainer(TRAINERS["colocate_async"])
class TurnTrainerColocateAsync(TurnCreditMixin, PPOTrainerColocateAsync):
    """Generates on the same GPUs, ahead of the update: unfinished episodes go on under the next policy."""

    verl_mode = "colocate_async"


@register_trainer(TRAINERS["separate_async"])
class TurnTrainerSeparateAsync(TurnCreditMixin, PPOTrainerSeparateAsync):
    """Generates on GPUs of its own while the others train."""

    verl_mode = "separate_async"

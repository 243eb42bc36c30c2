"""The trainer `sftrl_turn`: verl's synchronous V1 trainer, with credit over turns.

Chosen with ``trainer.v1.trainer_mode=sftrl_turn``. Everything is verl's but four things: advantages and
returns come from `sftrl_ext.training.credit`, the critic learns at the first token of each turn only (where
its value is read), an update makes as many optimizer steps however many prompts its episodes had, and the
metrics say what happened to episodes, turns and tokens.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transfer_queue as tq
from omegaconf import DictConfig, OmegaConf, open_dict
from tensordict import TensorDict
from transfer_queue import KVBatchMeta
from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
from verl.trainer.ppo.utils import need_critic
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.utils import tensordict_utils as tu
from verl.workers.utils.padding import response_to_nested

from sftrl_ext.errors import SftrlError
from sftrl_ext.training import credit
from sftrl_ext.training.metrics import (
    Passes,
    StepRows,
    TokenCounts,
    policy_metrics,
    row_metrics,
    turn_metrics,
)
from sftrl_ext.training.register import AGENT_LOOP, TRAINER
from sftrl_ext.training.settings import TOKENS_FILE, CreditSettings

_TOKEN_FIELDS = ["response_mask", "turn_ids", "rm_scores", "token_level_rewards", "values", "old_log_probs"]
_TOKEN_FIELDS += ["ref_log_prob", "entropy"]
_MINIBATCHES = ("actor_rollout_ref.actor.ppo_mini_batch_size", "critic.ppo_mini_batch_size")


def credit_settings(config: DictConfig) -> CreditSettings:
    """Read ``sftrl.credit`` and hold it against the rest of the config.

    Raises:
        SftrlError: if the estimator needs what the config does not give it.
    """
    section = OmegaConf.select(config, "sftrl.credit")
    values: Any = None if section is None else OmegaConf.to_container(section, resolve=True)
    settings = CreditSettings.from_mapping(values)
    if settings.estimator == "gae" and not need_critic(config):
        raise SftrlError("sftrl.credit.estimator=gae needs a critic: set algorithm.adv_estimator=gae.")
    if settings.estimator in ("rloo", "grpo"):
        size = int(config.actor_rollout_ref.rollout.n)
        if size < 2:
            raise SftrlError(
                f"sftrl.credit.estimator={settings.estimator} compares episodes of the same prompt: "
                f"actor_rollout_ref.rollout.n is {size}, expected 2 or more."
            )
        if need_critic(config):
            raise SftrlError(
                f"sftrl.credit.estimator={settings.estimator} has no critic: "
                "set algorithm.adv_estimator=grpo."
            )
    return settings


class MinibatchSizes:
    """Minibatches of a share of the step's rows, as the config's are a share of its episodes.

    verl counts minibatches in rows. An episode with several prompts has a row for each, so a step of such
    episodes would make as many times the optimizer steps, the last one of them on few rows.

    Args:
        config: The training config, as given.
    """

    def __init__(self, config: DictConfig) -> None:
        self.episodes = int(config.data.train_batch_size) * int(config.actor_rollout_ref.rollout.n)
        self.group = int(config.actor_rollout_ref.rollout.n)
        self.ranks = int(config.trainer.n_gpus_per_node) * int(config.trainer.nnodes)
        self.sizes = {key: int(OmegaConf.select(config, key)) for key in _MINIBATCHES}

    def fit(self, config: DictConfig, rows: int) -> None:
        """Set the sizes for a step of so many rows; with a row for each episode they are as given."""
        steps = {key: max(1, self.episodes // (size * self.group)) for key, size in self.sizes.items()}
        # verl pads a step to a multiple of every minibatch; this is one.
        unit = math.lcm(self.group, self.ranks) * math.lcm(*steps.values())
        padded = -(-rows // unit) * unit
        for key, size in self.sizes.items():
            fitted = padded // steps[key] // self.group if rows > self.episodes else size
            OmegaConf.update(config, key, fitted)


@register_trainer(TRAINER)
class TurnTrainer(PPOTrainerSync):
    """Synchronous PPO, GRPO or RLOO in which one response is one action."""

    def __init__(self, config: DictConfig) -> None:
        if AGENT_LOOP not in _agent_loop_registry:
            raise SftrlError(
                f"verl does not know the agent loop {AGENT_LOOP!r}: the verl.plugins entry point of "
                "sftrl-ext was not loaded in this process. Is sftrl-ext installed here, and is "
                "VERL_USE_EXTERNAL_PLUGINS not 'none'?"
            )
        self.credit = credit_settings(config)
        with open_dict(config):
            # verl picks its replay buffer and its checkpoint contents by this name.
            config.trainer.v1.trainer_mode = "sync"
        self.tokens = TokenCounts()
        self._named = (-1, 0)
        self._minibatches = MinibatchSizes(config)
        super().__init__(config)

    # ------------------------------------------------------------------ prompts

    def _fetch_one_gen_batch(self) -> TensorDict:
        """verl's next prompts, known by their step and place instead of by chance.

        A resumed run gives them the same names, so what is derived from these (seeds, order) is the same.
        """
        batch = super()._fetch_one_gen_batch()
        if self._named[0] != self.global_steps:
            self._named = (self.global_steps, 0)
        step, first = self._named
        self._named = (step, first + len(batch))
        names = [f"{step:08d}-{place:06d}" for place in range(first, first + len(batch))]
        tu.assign_non_tensor_stack(batch, "uid", names)
        return batch

    # ------------------------------------------------------------------ minibatches

    def _balance_batch(self, batch: KVBatchMeta, metrics: dict, *args: Any, **kwargs: Any) -> KVBatchMeta:
        """verl's, after the size of a minibatch has been fitted to the rows of the step."""
        self._minibatches.fit(self.config, len(batch))
        return super()._balance_batch(batch, metrics, *args, **kwargs)

    # ------------------------------------------------------------------ advantages

    def _compute_advantage(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        rows = StepRows(batch.keys, batch.tags, self._extra_fields(batch))
        metrics.update(row_metrics(rows))
        rows.require_some_played()
        # verl's own advantages are replaced below; its KL penalty and rollout correction, if asked for, stay.
        batch = super()._compute_advantage(batch, metrics)
        data, nested_mask = self._token_data(batch)
        self._count_tokens(rows, metrics)
        metrics.update(policy_metrics(data))
        if self.credit.estimator == "token":
            return batch

        # In double precision, so that equal rewards cancel: Adam would magnify what rounding leaves over.
        rewards = data.get("token_level_rewards", data["rm_scores"]).double()
        turns = credit.collect_turns(data["turn_ids"], rewards, rows.episode, rows.segment)
        if self.credit.estimator == "gae":
            values = turns.at_start(data["values"].double())
            raw, returns = credit.turn_gae(
                turns.rewards, values, turns.alive, self.credit.gamma, self.credit.lam
            )
        else:
            values = None
            raw = credit.leave_one_out_advantages(
                turns.rewards,
                turns.alive,
                rows.group_of_episode,
                self.credit.gamma,
                divide_by_spread=self.credit.estimator == "grpo",
            )
            returns = credit.reward_to_go(turns.rewards, turns.alive, self.credit.gamma)
        advantages = credit.normalize_advantages(raw, turns.alive, self.credit.normalization)
        metrics.update(turn_metrics(turns, raw, returns, values))
        fields = {
            "advantages": response_to_nested(turns.spread(advantages).float(), nested_mask),
            "returns": response_to_nested(turns.spread(returns).float(), nested_mask),
            "turn_starts": response_to_nested(turns.start_mask(), nested_mask),
        }
        return tq.kv_batch_put(
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

    # ------------------------------------------------------------------ critic

    def _update_critic(self, batch: KVBatchMeta, metrics: dict) -> KVBatchMeta:
        if self.credit.estimator != "gae":
            return super()._update_critic(batch, metrics)
        with self._critic_sees_turn_starts(batch):
            return super()._update_critic(batch, metrics)

    @contextmanager
    def _critic_sees_turn_starts(self, batch: KVBatchMeta) -> Iterator[None]:
        """Let the masks of a batch select each turn's first token, and put them back."""
        names = ["response_mask", "loss_mask"]
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
        )
        self.tokens.add_step(rows, passes)
        metrics.update(self.tokens.metrics())

    def _save_checkpoint(self) -> None:
        folder = os.path.join(self.config.trainer.default_local_dir, f"global_step_{self.global_steps}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, TOKENS_FILE), "w", encoding="utf-8") as file:
            json.dump(self.tokens.total, file)
        super()._save_checkpoint()

    def _load_checkpoint(self) -> None:
        super()._load_checkpoint()
        if self.global_steps == 0:
            return
        config = self.config.trainer
        folder = os.path.join(config.default_local_dir, f"global_step_{self.global_steps}")
        if config.resume_mode == "resume_path":
            folder = config.resume_from_path
        path = os.path.join(folder, TOKENS_FILE)
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                self.tokens.restore(json.load(file))

"""Metrics of a training step beyond verl's: episodes, turns, the policy's drift, and tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from sftrl_ext.errors import SftrlError
from sftrl_ext.rollout.metrics import mean_metrics
from sftrl_ext.training.credit import Turns


class StepRows:
    """Rows of one training step: the episode and prompt of each, and its metrics from the rollout.

    Args:
        keys: verl's keys, ``{prompt}_{session}_{segment}``; a session of a prompt is one episode.
        tags: verl's tags; ``is_padding`` marks rows that only fill up the batch.
        extra_fields: What the agent loop attached to each row.

    Attributes:
        episode: Per row, the number of its episode.
        segment: Per row, its index in the episode.
        versions: Per episode, for each of its turns the first and the last policy that wrote tokens of it;
            None for a turn without versions.
        group_of_episode: Per episode, the number of its prompt.
    """

    def __init__(
        self,
        keys: Sequence[str],
        tags: Sequence[Mapping[str, Any]],
        extra_fields: Sequence[Mapping[str, Any]],
    ) -> None:
        episodes: dict[tuple[str, str], int] = {}
        prompts: dict[str, int] = {}
        groups: list[int] = []
        self.episode: list[int] = []
        self.segment: list[int] = []
        self.infos: dict[int, Mapping[str, float]] = {}
        self.sequence_tokens = 0
        self.errors: list[str] = []
        self.lost = 0
        versions: dict[int, dict[int, Sequence[Any]]] = {}
        for key, tag, extra in zip(keys, tags, extra_fields, strict=True):
            # A prompt's own name may contain underscores.
            prompt, session, segment = key.rsplit("_", 2)
            if (prompt, session) not in episodes:
                episodes[prompt, session] = len(episodes)
                groups.append(prompts.setdefault(prompt, len(prompts)))
            number = episodes[prompt, session]
            self.episode.append(number)
            self.segment.append(int(segment))
            # Padding rows get an episode number, since the token tensors have them, but no metrics.
            if tag.get("is_padding", False):
                continue
            self.sequence_tokens += int(tag["seq_len"])
            versions.setdefault(number, {})[int(segment)] = extra.get("turn_versions") or []
            if number not in self.infos:
                self.infos[number] = dict(extra.get("reward_extra_info", {}))
                if "error" in extra:
                    self.errors.append(str(extra["error"]))
                    self.lost += bool(extra.get("engine_lost"))
        self.versions = {
            number: [turn for _, turns in sorted(parts.items()) for turn in turns]
            for number, parts in versions.items()
        }
        self.group_of_episode = torch.tensor(groups, dtype=torch.int64)

    def sum(self, key: str) -> float:
        """Sum of one of the rollout's numbers over the episodes."""
        return sum(info.get(key, 0.0) for info in self.infos.values())

    def refuse_faults(self) -> None:
        """Refuse a step in which every episode failed, or one that lost an engine.

        The other engines' episodes would make a smaller update, and its checkpoint would be resumed from.

        Raises:
            SftrlError: naming the first error.
        """
        if self.lost:
            raise SftrlError(
                f"{self.lost} of {len(self.infos)} episodes of this step lost their rollout engine, whose "
                f"process died; the first error: {self.errors[0]} This step is not trained on: "
                "`sftrl resume` plays it again."
            )
        if self.infos and len(self.errors) == len(self.infos):
            raise SftrlError(
                f"all {len(self.infos)} episodes of this step ended in an error; the first: {self.errors[0]} "
                "(tracebacks are in the log of the agent loop workers)."
            )


def row_metrics(rows: StepRows) -> dict[str, float]:
    """Means of the rollout's metrics over the step's episodes."""
    return {f"episode/{key}": value for key, value in mean_metrics(rows.infos.values()).items()}


def staleness_metrics(rows: StepRows, version: int) -> dict[str, float]:
    """Age of the step's turns: updates between the policy that wrote a turn and the one being trained.

    ``turns/staleness_mean`` and ``_max`` over all turns, ``turns/staleness_<k>`` over the k-th turns. A turn
    that was interrupted by an update and continued by the next policy counts from its oldest token;
    ``turns/mixed_share`` is the share of such turns. Empty where the engine reports no versions.

    Args:
        rows: The step's rows.
        version: The policy being trained, as the number of updates before it.
    """
    ages_by_turn: dict[int, list[int]] = {}
    mixed: list[bool] = []
    for turns in rows.versions.values():
        for number, turn in enumerate(turns, start=1):
            if turn is not None:
                ages_by_turn.setdefault(number, []).append(version - int(turn[0]))
                mixed.append(turn[0] != turn[1])
    ages = [age for turn_ages in ages_by_turn.values() for age in turn_ages]
    if not ages:
        return {}
    metrics = {f"turns/staleness_{k}": sum(v) / len(v) for k, v in sorted(ages_by_turn.items())}
    metrics["turns/staleness_mean"] = sum(ages) / len(ages)
    metrics["turns/staleness_max"] = float(max(ages))
    metrics["turns/mixed_share"] = sum(mixed) / len(mixed)
    return metrics


def mismatch_metrics(data: Mapping[str, Tensor]) -> dict[str, float]:
    """Mismatch of the log-probabilities of sampler and trainer, before the update.

    ``d`` is the log-probability of a sampled token under the trainer's policy minus that under the sampler.
    Over the tokens the model wrote: mean and maximum of ``|d|``; KL(sampler || trainer) in its low-variance
    form ``exp(d) - 1 - d``; the share of tokens whose probabilities differ by more than a factor of two. Over
    turns, whose product is one ratio: mean and maximum of ``|sum of d|``.

    With a synchronous trainer this is the numerical difference of two engines with the same weights. With an
    asynchronous one it contains the updates in between (``turns/staleness_*``).
    """
    if "rollout_log_probs" not in data or "old_log_probs" not in data:
        return {}
    turn_ids = data["turn_ids"]
    written = turn_ids > 0
    if not bool(written.any()):
        return {}
    difference = (data["old_log_probs"] - data["rollout_log_probs"]).double() * written
    tokens = difference[written]
    # Sums and counts of each turn; column 0 collects the tokens outside turns.
    shape = (turn_ids.shape[0], int(turn_ids.max()) + 1)
    sums = torch.zeros(shape, dtype=difference.dtype).scatter_add(1, turn_ids, difference)
    counts = torch.zeros(shape, dtype=torch.int64).scatter_add(1, turn_ids, written.long())
    turns = sums[counts > 0].abs()
    return {
        "mismatch/logp_abs_mean": float(tokens.abs().mean()),
        "mismatch/logp_abs_max": float(tokens.abs().max()),
        "mismatch/k3": float((torch.expm1(tokens) - tokens).mean()),
        "mismatch/ratio_outliers": float((tokens.abs() > math.log(2)).double().mean()),
        "mismatch/turn_logp_abs_mean": float(turns.mean()),
        "mismatch/turn_logp_abs_max": float(turns.max()),
    }


def first_minibatch_metrics(logged: Mapping[str, Any]) -> dict[str, float]:
    """Clip fraction and divergence in the first optimizer step of an update.

    There the new policy is still the old one: both are 0 unless the trainer's own two passes over a sample
    disagree.

    Args:
        logged: Metrics of verl's actor, lists over the optimizer steps.
    """
    metrics = {}
    for name in ("pg_clipfrac", "ppo_kl"):
        steps = logged.get(f"actor/{name}")
        if isinstance(steps, Sequence) and steps:
            first = steps[0]
            metrics[f"actor/{name}_first"] = float(
                first.aggregate() if hasattr(first, "aggregate") else first
            )
    return metrics


def turn_metrics(
    turns: Turns, advantages: Tensor, returns: Tensor, values: Tensor | None
) -> dict[str, float]:
    """Metrics of the turns of a step.

    Args:
        turns: The turns.
        advantages: ``[episodes, turns]`` before normalization.
        returns: ``[episodes, turns]``.
        values: ``[episodes, turns]``, or None without a critic.
    """
    alive = turns.alive
    if not bool(alive.any()):
        return {}
    episodes = max(int(alive[:, 0].sum()), 1)
    metrics: dict[str, float] = {"turns/mean": float(alive.sum()) / episodes}
    for turn in range(alive.shape[1]):
        reached = alive[:, turn]
        if bool(reached.any()):
            metrics[f"turns/reward_{turn + 1}"] = float(turns.rewards[reached, turn].mean())
            metrics[f"turns/share_{turn + 1}"] = float(reached.sum()) / episodes
    advantage = advantages[alive]
    metrics["turns/advantage_mean"] = float(advantage.mean())
    metrics["turns/advantage_std"] = float(advantage.std(unbiased=False))
    metrics["turns/advantage_max"] = float(advantage.max())
    metrics["turns/advantage_min"] = float(advantage.min())
    metrics["turns/return_mean"] = float(returns[alive].mean())
    if values is not None:
        error = (returns - values)[alive]
        metrics["critic/turn_value_rmse"] = float(error.square().mean().sqrt())
        variance = returns[alive].var(unbiased=False)
        # Returns that do not vary have nothing to explain.
        explained = 1 - error.var(unbiased=False) / variance if float(variance) > 1e-8 else torch.zeros(())
        metrics["critic/turn_explained_var"] = float(explained)
    return metrics


def group_metrics(rows: StepRows, alive: Tensor, rewards: Tensor) -> dict[str, float]:
    """Share of the prompts whose episodes differ, where a step compares episodes of the same prompt.

    Args:
        rows: The rows of the step.
        alive: ``[episodes, turns]``: turns that were played.
        rewards: ``[episodes, turns]``.

    Returns:
        ``groups/informative``, the share of prompts whose episodes earn unlike rewards, turn by turn, and
        ``groups/solved_sometimes``, the share of those that some of their episodes solve and others do not;
        nothing where every prompt has one episode. Of another prompt the group's own baseline leaves
        nothing; what our baseline takes from other prompts (`leave_one_out_advantages`) remains.
    """
    groups: dict[int, list[int]] = {}
    for episode, group in enumerate(rows.group_of_episode.tolist()):
        if episode in rows.infos and bool(alive[episode].any()):
            groups.setdefault(group, []).append(episode)
    compared = [episodes for episodes in groups.values() if len(episodes) > 1]
    if not compared:
        return {}
    # A turn that was not played is unlike any reward.
    earned = torch.where(alive, rewards, torch.full_like(rewards, math.nan)).nan_to_num(nan=math.inf)
    solved = [[rows.infos[episode].get("solved", 0.0) for episode in episodes] for episodes in compared]
    return {
        "groups/informative": sum(len(earned[group].unique(dim=0)) > 1 for group in compared) / len(compared),
        "groups/solved_sometimes": sum(min(some) < max(some) for some in solved) / len(compared),
    }


def policy_metrics(data: Mapping[str, Tensor]) -> dict[str, float]:
    """Entropy, and the divergence from the start model on the step's own samples.

    Both are means over the tokens the model wrote, under the policy that wrote them. The divergence
    KL(policy || start) is estimated as the mean log-ratio (``k1``, unbiased) and in the low-variance form
    ``r - 1 - log r`` with r = start / policy (``k3``). It needs the start model's log-probabilities:
    ``actor.use_kl_loss=True``, which with ``kl_loss_coef=0`` changes nothing but costs one forward pass.
    """
    mask = data["response_mask"].to(torch.float32)
    count = mask.sum().clamp(min=1)
    metrics: dict[str, float] = {}
    if "entropy" in data:
        metrics["policy/entropy"] = float((data["entropy"] * mask).sum() / count)
    if "ref_log_prob" in data and "old_log_probs" in data:
        log_ratio = data["old_log_probs"] - data["ref_log_prob"]
        metrics["policy/kl_start_k1"] = float((log_ratio * mask).sum() / count)
        # Schulman's k3 estimator: expm1 keeps precision where the policies hardly differ.
        low_variance = torch.expm1(-log_ratio) + log_ratio
        metrics["policy/kl_start_k3"] = float((low_variance * mask).sum() / count)
    return metrics


def merge_metrics(parts: Sequence[tuple[int, Mapping[str, float]]]) -> dict[str, float]:
    """Merge the metrics of an update's parts, where verl's own merging goes by parts of their names.

    verl adds up every metric with ``sum`` or ``total`` in its name (``episode/reward_total``), takes the
    largest of those with ``max``, and averages running totals.

    Args:
        parts: Weight (rows) and metrics of each part.
    """
    merged: dict[str, float] = {}
    for key in dict.fromkeys(key for _, metrics in parts for key in metrics):
        values = [(weight, metrics[key]) for weight, metrics in parts if key in metrics]
        if key.startswith("episode/"):
            merged[key] = sum(w * v for w, v in values) / max(1, sum(w for w, _ in values))
        elif key.startswith("tokens/step_"):
            merged[key] = sum(v for _, v in values)
        elif key.startswith("tokens/"):
            merged[key] = values[-1][1]
        elif key.startswith("actor/") and key.endswith("_first"):
            merged[key] = values[0][1]  # later parts begin after the policy has moved
    return merged


@dataclass(frozen=True)
class Passes:
    """Passes over every sequence of one update.

    Attributes:
        actor_epochs: Forward and backward passes of the actor.
        critic_epochs: Forward and backward passes of the critic.
        forward: Forward-only passes of the policy's size: old and reference log-probabilities.
        forward_critic: Forward-only passes of the critic: values.
    """

    actor_epochs: int
    critic_epochs: int = 0
    forward: int = 0
    forward_critic: int = 0

    @classmethod
    def of_update(
        cls, config: DictConfig, step: int, *, critic: bool, reference: bool, checked: bool = True
    ) -> Passes:
        """Passes of the update at ``step``.

        Args:
            config: verl's training config.
            step: Number of the update, from 1.
            critic: True if there is a critic.
            reference: True if there is a reference policy.
            checked: True if the update computes log-probabilities that the sampler has returned already.
        """
        correction = OmegaConf.select(config, "algorithm.rollout_correction")
        # In bypass mode verl takes the sampler's log-probabilities and makes no pass for the old ones.
        old_log_probs = not (correction and correction.get("bypass_mode", False))
        trains_actor = config.trainer.critic_warmup <= step
        return cls(
            actor_epochs=int(config.actor_rollout_ref.actor.ppo_epochs) if trains_actor else 0,
            critic_epochs=int(config.critic.ppo_epochs) if critic else 0,
            forward=int(old_log_probs) + int(reference) if checked else 0,
            forward_critic=int(critic),
        )


class TokenCounts:
    """Tokens spent, for the compute axis: of the last step, and in total since the start of the stage.

    * ``sequence``: tokens of the update's sequences, each once.
    * ``generated``: written by the model in the rollout.
    * ``prefill``: prompt and feedback tokens, each read once (an engine with a prefix cache).
    * ``prefill_uncached``: for each turn everything before it (an engine without one).
    * ``forward``: tokens of the policy's forward-only passes (old and reference log-probabilities).
    * ``forward_critic``: tokens of the critic's forward-only passes (values).
    * ``trained``: tokens of the sequences the actor was updated on, times epochs.
    * ``trained_critic``: the same for the critic.
    """

    NAMES = (
        *("sequence", "generated", "prefill", "prefill_uncached"),
        *("forward", "forward_critic", "trained", "trained_critic"),
    )

    def __init__(self) -> None:
        self.step: dict[str, int] = dict.fromkeys(self.NAMES, 0)
        self.total: dict[str, int] = dict.fromkeys(self.NAMES, 0)

    def add_step(self, rows: StepRows, passes: Passes) -> None:
        """Count one step; verl's padding rows are left out."""
        self.step = {
            "sequence": rows.sequence_tokens,
            "generated": int(rows.sum("generated_tokens")),
            "prefill": int(rows.sum("prompt_tokens") + rows.sum("feedback_tokens")),
            "prefill_uncached": int(rows.sum("prefill_tokens")),
            "forward": passes.forward * rows.sequence_tokens,
            "forward_critic": passes.forward_critic * rows.sequence_tokens,
            "trained": passes.actor_epochs * rows.sequence_tokens,
            "trained_critic": passes.critic_epochs * rows.sequence_tokens,
        }
        for name, count in self.step.items():
            self.total[name] += count

    def restore(self, totals: Mapping[str, int]) -> None:
        """Continue from the totals of a checkpoint.

        Checkpoints of earlier versions lack ``sequence``, which is what the rollout read and wrote, and count
        the critic's values in ``forward``.
        """
        self.total.update(totals)
        if "sequence" not in totals:
            self.total["sequence"] = totals.get("generated", 0) + totals.get("prefill", 0)

    def metrics(self) -> dict[str, float]:
        """``tokens/<name>`` in total and ``tokens/step_<name>``."""
        return {
            **{f"tokens/{name}": float(count) for name, count in self.total.items()},
            **{f"tokens/step_{name}": float(count) for name, count in self.step.items()},
        }

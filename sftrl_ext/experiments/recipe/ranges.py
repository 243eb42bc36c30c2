"""Ranges of a recipe's numbers, and names that its task, rewards and algorithms must know.

They are checked when a recipe is composed: a value that is found impossible by a later stage has cost all
stages before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from sftrl_ext.envs.task_config import CityConfig, RoutesConfig, TaskConfig
from sftrl_ext.errors import SftrlError, check_known
from sftrl_ext.experiments.recipe.arm_config import ArmConfig
from sftrl_ext.experiments.recipe.launcher_config import KubeRayConfig, SkyConfig, SlurmConfig
from sftrl_ext.experiments.recipe.schema import (
    EvalConfig,
    ModelConfig,
    Recipe,
    RLConfig,
    ScaleConfig,
    SFTConfig,
    SweepConfig,
    VisionConfig,
)
from sftrl_ext.paths import configs_dir

DTYPES = ("float32", "bfloat16", "float16")
OWN_ANSWERS = ("correct", "all")


@dataclass(frozen=True)
class Range:
    """Accepted values of a number; NaN and infinity never are.

    Attributes:
        low: The smallest.
        high: The largest.
        open_low: ``low`` itself is refused.
        open_high: ``high`` itself is refused.
        switch: A value outside that switches something off.
    """

    low: float
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    switch: float | None = None

    def __contains__(self, value: float) -> bool:
        if self.switch is not None and value == self.switch:
            return True
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below and math.isfinite(value)

    def __str__(self) -> str:
        low = f"above {self.low:g}" if self.open_low else f"{self.low:g} or more"
        text = low
        if self.high < math.inf:
            text = f"{low} and {'below' if self.open_high else 'at most'} {self.high:g}"
        return text if self.switch is None else f"{text}, or {self.switch:g}"


_COUNT, _FROM_0, _ABOVE_0, _ANY = Range(1), Range(0), Range(0, open_low=True), Range(-math.inf)
_SHARE, _NOT_ALL, _STEPS = Range(0, 1), Range(0, 1, open_high=True), Range(1, switch=-1)

RANGES: dict[type, dict[str, Range]] = {
    VisionConfig: dict.fromkeys(("hidden_size", "layers", "heads", "patch_size"), _COUNT),
    ModelConfig: dict.fromkeys(
        ("hidden_size", "layers", "heads", "kv_heads", "vocab_size", "max_positions"), _COUNT
    )
    | {"init_tokens": _FROM_0},
    ScaleConfig: dict.fromkeys(
        (
            "n_gpus_per_node",
            "nnodes",
            "threads",
            "eval_threads",
            "tensor_parallel",
            "eval_workers",
            "rollout_gpus",
        ),
        _COUNT,
    )
    | {"host_memory_gb": _ABOVE_0, "disk_gb": _ABOVE_0},
    SFTConfig: dict.fromkeys(
        ("rows", "steps", "batch_size", "micro_batch_size", "micro_tokens", "max_length"), _COUNT
    )
    | {"lr": _ABOVE_0, "warmup_ratio": _SHARE, "betas": _NOT_ALL, "save_every": _STEPS, "dialogues": _SHARE},
    RLConfig: dict.fromkeys(
        (
            "rows",
            "updates",
            "episodes",
            "responses",
            "group",
            "tried_prompts",
            "epochs",
            "minibatches",
            "micro_batch_size",
            "decay_updates",
            "max_prompt_length",
            "max_response_length",
            "max_turn_tokens",
            "max_prompts",
        ),
        _COUNT,
    )
    | dict.fromkeys(("warmup", "critic_warmup", "max_staleness"), _FROM_0)
    | {"prompt_samples": Range(2)}
    | dict.fromkeys(("lr", "critic_lr", "temperature"), _ABOVE_0)
    | dict.fromkeys(("save_every", "validate_every"), _STEPS),
    EvalConfig: dict.fromkeys(("hands", "hands_of", "max_turn_tokens", "samples", "batch_size"), _COUNT)
    | dict.fromkeys(("temperature", "seed", "sample_episodes", "kl_episodes"), _FROM_0)
    | {"top_p": Range(0, 1, open_low=True)},
    SweepConfig: {"seeds": _FROM_0, "sft_lrs": _ABOVE_0, "rl_lrs": _ABOVE_0},
    ArmConfig: dict.fromkeys(("lrs", "lr_times", "times"), _ABOVE_0)
    | {"seeds": _FROM_0, "max_attempts": _COUNT, "kl_coef": _FROM_0, "replay": _SHARE},
    TaskConfig: {
        "max_attempts": _COUNT,
        "cards": Range(3, 6),
        "target": _ANY,
        "targets": _ANY,
        "exposure": _SHARE,
    },
    CityConfig: {"seed": _FROM_0, "routes": _COUNT, "width": _COUNT, "most_legs": Range(2, 8)},
    RoutesConfig: dict.fromkeys(("points_per_leg", "most_legs", "image_size"), _COUNT)
    | {"holdout": _NOT_ALL, "drop_rate": _SHARE, "exceeded_penalty": _ANY},
    SlurmConfig: {"cpus_per_node": _COUNT, "array_limit": _COUNT, "signal_s": Range(1, 65535)},
    SkyConfig: {"disk_size": _COUNT},
    KubeRayConfig: {"cpus": _COUNT, "rdma_count": _COUNT, "retries": _FROM_0, "keep_s": _FROM_0},
}
"""Ranges of the numbers of each part of a recipe; of a list or a mapping those of its values."""


def check_ranges(part: Any, key: str = "") -> None:
    """Refuse a number out of its range, in a part of a recipe and all parts of it.

    Args:
        part: One of the schema's dataclasses.
        key: Its key in the recipe.

    Raises:
        SftrlError: naming the key, the value and the range.
    """
    ranges = RANGES.get(type(part), {})
    for field in fields(part):
        name = f"{key}.{field.name}" if key else field.name
        for item, suffix in _items(getattr(part, field.name)):
            if is_dataclass(item):
                check_ranges(item, name + suffix)
            elif field.name not in ranges or item is None:
                continue
            elif not isinstance(item, (int, float)):
                raise SftrlError(f"{name}{suffix}: {item!r}; expected a number, {ranges[field.name]}.")
            elif item not in ranges[field.name]:
                raise SftrlError(f"{name}{suffix}: {item:g}; expected {ranges[field.name]}.")


def _items(value: Any) -> Iterator[tuple[Any, str]]:
    """A value, or the items of a list or a mapping, each with the end of its key."""
    if isinstance(value, list):
        yield from ((item, f"[{number}]") for number, item in enumerate(value))
    elif isinstance(value, dict):
        yield from ((item, f".{name}") for name, item in value.items())
    else:
        yield value, ""


def check_names(recipe: Recipe) -> None:
    """Refuse names of algorithms and types that are not known.

    Raises:
        SftrlError: naming the key, with the nearest known name.
    """
    check_known("model.dtype", "type", recipe.model.dtype, DTYPES)
    check_known("budget.own_answers", "choice of answers", recipe.budget.own_answers, OWN_ANSWERS)
    algorithms = [path.stem for path in (configs_dir() / "algorithm").glob("[!_]*.yaml")]
    check_known("budget.rl.algorithm", "algorithm", recipe.budget.rl.algorithm, algorithms)
    for name, arm in recipe.arms.items():
        if arm.kind == "rl" and "algorithm" in arm.budget:
            key = f"arms.{name}.budget.algorithm"
            check_known(key, "algorithm", str(arm.budget["algorithm"]), algorithms)


def _check_reward(task: TaskConfig) -> None:
    from sftrl_ext.reward_fns import REWARDS

    check_known("task.reward", "reward function", task.reward, (key for key in REWARDS if "/" not in key))


def check_task(recipe: Recipe) -> None:
    """Refuse splits and rewards that are not known, and settings with which the task builds no rows.

    Raises:
        SftrlError: naming the key, with the nearest known name.
    """
    from data_prep.task_rows import find_rows

    task = recipe.task
    _check_reward(task)
    splits: Mapping[str, list[str]] = {
        "task.train_split": [task.train_split],
        "task.pretrain_splits": task.pretrain_splits,
        "task.exposure": list(task.exposure),
        "task.eval_splits": [name for name in task.eval_splits if str(name) not in task.eval_sets],
        **{f"arms.{name}.splits": arm.splits for name, arm in recipe.arms.items()},
    }
    for key, names in splits.items():
        for name in names:
            if not isinstance(name, str):  # OmegaConf takes a mapping for a text
                raise SftrlError(f"{key}: {name!r} is not the name of a split.")
    find_rows(task.kind).check(task, splits)

"""The paper's hyper-parameters (arXiv 2501.17161, appendix C) as keys of verl's config, and our deviations.

`SETTINGS` is what the stages of a recipe must have at scale ``node``; `DEVIATIONS` is what they have
otherwise, in every recipe; `varied_settings` is what one recipe changes on purpose. `recipes/README.md`
prints the last two, and `mismatches` holds a composed config against all three. The values are in
``configs/paper.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml
from omegaconf import DictConfig, OmegaConf

from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.paths import configs_dir

PAPER = "2501.17161"
PAPER_SCALES = ("node", "cluster")
"""Scales with the paper's hyper-parameters."""

_PAPER: dict[str, Any] = yaml.safe_load((configs_dir() / "paper.yaml").read_text(encoding="utf-8"))
TASKS: tuple[str, ...] = tuple(_PAPER["tasks"])
"""The paper's tasks, by the names of their data sources."""


@dataclass(frozen=True)
class Setting:
    """A value of the paper that a stage must have.

    Attributes:
        stage: ``init``, ``sft`` (the arms trained by SFT) or ``rl``; several with a space between.
        key: Key of verl's config, or a name of `derived_values`.
        value: The value.
        source: Where it is from.
        varied_by: Keys of the budget by which an arm changes it.
        tasks: Tasks it holds for.
    """

    stage: str
    key: str
    value: Any
    source: str
    varied_by: tuple[str, ...] = ()
    tasks: tuple[str, ...] = TASKS


@dataclass(frozen=True)
class Deviation:
    """A choice of ours where the paper has another, or none.

    Attributes:
        stage: As in `Setting`.
        what: What is chosen, in words.
        paper: The paper's choice, in words.
        ours: Our choice, in words.
        reason: Why.
        keys: Keys of verl's config with the values that make it ours; empty where no key does.
        tasks: Tasks it holds for.
        varied_by: Keys of the budget by which an arm changes it.
    """

    stage: str
    what: str
    paper: str
    ours: str
    reason: str
    keys: tuple[tuple[str, Any], ...] = ()
    tasks: tuple[str, ...] = TASKS
    varied_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScaleDeviation:
    """Choices of the scales below ``node``, where no value is the paper's unless it is said.

    Attributes:
        scales: The scales.
        what: As in `Deviation`.
        ours: As in `Deviation`.
        reason: As in `Deviation`.
        tasks: Tasks they hold for.
    """

    scales: tuple[str, ...]
    what: str
    ours: str
    reason: str
    tasks: tuple[str, ...] = TASKS


Entry = TypeVar("Entry", Setting, Deviation, ScaleDeviation)


def _entries(kind: type[Entry], name: str) -> tuple[Entry, ...]:
    """The entries of one list of the file, with tuples for its lists and pairs for its mappings of keys."""
    entries = []
    for entry in _PAPER[name]:
        fields: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) and key != "value" else value
            for key, value in entry.items()
        }
        if "keys" in fields:
            fields["keys"] = tuple(fields["keys"].items())
        entries.append(kind(**fields))
    return tuple(entries)


SETTINGS = _entries(Setting, "settings")
"""The paper's values."""

SETTING_OF_TASK: Mapping[tuple[str, str], Any] = {
    (task, key): value for task, values in _PAPER["settings_of_task"].items() for key, value in values.items()
}
"""Values of one task that differ from those of `SETTINGS`."""

RATES: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    recipe: {arm: tuple(rates) for arm, rates in arms.items()} for recipe, arms in _PAPER["rates"].items()
}
"""Learning rates of the paper's figures that vary them: recipe, arm, rates."""

DEVIATIONS = _entries(Deviation, "deviations")
"""Settings that are ours at scale ``node``, in every recipe; those of data and evaluation at every scale."""

SCALE_DEVIATIONS = _entries(ScaleDeviation, "scale_deviations")
"""Deviations of the other scales, beside those in `DEVIATIONS`."""


def deviations_of(recipe: Recipe) -> list[tuple[str, str, str, str]]:
    """Deviations of a composed recipe from the paper: what, the paper's, ours, and the reason.

    Empty for recipes that are not of the paper.
    """
    if PAPER not in recipe.source:
        return []
    task, scale = recipe.task.name, recipe.scale.name
    rows = [
        (entry.what, entry.paper, entry.ours, entry.why)
        for entry in recipe.deviations
        if not entry.scales or scale in entry.scales
    ]
    for each in SCALE_DEVIATIONS:
        if scale in each.scales and task in each.tasks:
            rows.append((each.what, "that of `node`", each.ours, each.reason))
    for deviation in DEVIATIONS:
        stages = deviation.stage.split()
        if task in deviation.tasks and (scale in PAPER_SCALES or {"data", "eval"} & set(stages)):
            rows.append((deviation.what, deviation.paper, deviation.ours, deviation.reason))
    return rows


def stage_kind(arm: str | None, kind: str) -> str:
    """The `Setting.stage` of a stage of a plan; ``base`` and ``dialogues`` have none of the paper."""
    if kind == "sft":
        return arm if arm in ("init", "base", "dialogues") else "sft"
    return kind


def settings_of(task: str, stage: str) -> Iterator[Setting]:
    """The paper's settings for a stage of a task."""
    for setting in SETTINGS:
        if stage in setting.stage.split() and task in setting.tasks:
            value = SETTING_OF_TASK.get((task, setting.key), setting.value)
            yield Setting(setting.stage, setting.key, value, setting.source, setting.varied_by, setting.tasks)


def varied_keys(recipe: Recipe, arm: str) -> set[str]:
    """Keys of the budget that an arm of a recipe changes."""
    config = recipe.arms.get(arm)
    if config is None:
        return set()
    by_rows = recipe.budget.sft_by_rows.get(config.rows, {}) if config.kind == "sft" else {}
    return {*by_rows, *config.budget, *config.times, *(["lr"] if config.lrs or config.lr_times else [])}


def varied_settings(recipe: Recipe) -> dict[str, list[str]]:
    """Per arm, the keys by which a recipe leaves the paper's settings on purpose."""
    allowed = {key for setting in SETTINGS for key in setting.varied_by}
    allowed |= {key for deviation in DEVIATIONS for key in deviation.varied_by}
    varied = {arm: sorted(varied_keys(recipe, arm) & allowed) for arm in recipe.arms}
    return {arm: keys for arm, keys in varied.items() if keys}


def derived_values(config: DictConfig) -> dict[str, float]:
    """Values of the paper that follow from several keys of a PPO config."""
    optim = config.actor_rollout_ref.actor.optim
    last = _last_rate(optim, int(config.trainer.total_training_steps))
    batches = int(config.data.train_batch_size) // int(config.actor_rollout_ref.actor.ppo_mini_batch_size)
    return {"lr of the last update / lr": last, "optimizer batches per epoch": batches}


def _last_rate(optim: DictConfig, updates: int) -> float:
    """The share of ``lr`` that verl's schedule has at the last update."""
    import torch
    from verl.utils.torch_functional import get_cosine_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = get_cosine_schedule_with_warmup(
        optimizer,
        num_warmup_steps=max(0, optim.lr_warmup_steps),
        num_training_steps=updates,
        min_lr_ratio=optim.min_lr_ratio,
        num_cycles=optim.num_cycles,
        zero_indexed_step=optim.zero_indexed_step,
    )
    return float(schedule.lr_lambdas[0](updates - 1))


def mismatches(recipe: Recipe, arm: str | None, kind: str, config: DictConfig) -> list[str]:
    """Values of a composed config of verl that are neither the paper's, nor listed, nor varied by the recipe.

    Args:
        recipe: The recipe.
        arm: The arm of the stage, or ``init``.
        kind: ``sft`` or ``rl``.
        config: verl's whole config of the stage.

    Returns:
        One line for each: key, expected value, and the one that was found.
    """
    stage = stage_kind(arm, kind)
    varied = varied_keys(recipe, arm or "")
    derived = derived_values(config) if kind == "rl" else {}
    expected = [(s.key, s.value, s.varied_by) for s in settings_of(recipe.task.name, stage)]
    for deviation in DEVIATIONS:
        if stage in deviation.stage.split() and recipe.task.name in deviation.tasks:
            expected += [(key, value, deviation.varied_by) for key, value in deviation.keys]
    lines = []
    for key, value, varied_by in expected:
        composed = derived[key] if key in derived else OmegaConf.select(config, key)
        if not varied & set(varied_by) and not _same(composed, value):
            lines.append(f"{arm}: {key} is {composed!r}; the paper's settings have {value!r}")
    return lines


def _same(composed: Any, value: Any) -> bool:
    if isinstance(value, float) and isinstance(composed, int | float) and not isinstance(composed, bool):
        return abs(composed - value) <= 1e-4 * abs(value)
    return (list(composed) if isinstance(value, list) and composed is not None else composed) == value

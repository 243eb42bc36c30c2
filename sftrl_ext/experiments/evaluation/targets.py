"""Inputs of an evaluation: checkpoints of a run, what they started from, and the instances of splits."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from data_prep.schema import read_schema
from data_prep.task_rows import find_rows
from sftrl_ext.envs.base import facts_text, parse_facts
from sftrl_ext.errors import SftrlError
from sftrl_ext.experiments.recipe.schema import Recipe
from sftrl_ext.files import parquet_errors
from sftrl_ext.runs.checkpoints import list_checkpoints
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.state import RunState


@dataclass(frozen=True)
class Target:
    """One checkpoint to evaluate."""

    stage: str
    arm: str
    seed: int
    lr: float
    step: int
    folder: Path


@dataclass(frozen=True)
class EvalSet:
    """The instances of one split.

    Attributes:
        split: Its name.
        data_source: ``<task>/<split>``.
        facts: What rebuilds each episode.
        under_trained: Facts of each episode under the rule that was trained, None where that is its own;
            empty if no episode has such.
    """

    split: str
    data_source: str
    facts: Sequence[Mapping[str, Any]]
    under_trained: Sequence[Mapping[str, Any] | None] = ()

    @cached_property
    def digest(self) -> str:
        """Digest of the instances and their order."""
        return hashlib.sha256("\n".join(map(facts_text, self.facts)).encode()).hexdigest()[:16]

    def times(self, samples: int) -> EvalSet:
        """The set with every instance as often as it is sampled, one after the other."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        repeated: dict[str, Any] = {
            name: [item for item in items for _ in range(samples)]
            for name, items in values.items()
            if not isinstance(items, str)
        }
        return replace(self, **repeated)


def targets_of(
    state: RunState, layout: RunLayout, arms_from_base: bool = False, given_init: bool = False
) -> list[Target]:
    """Every checkpoint of a run worth evaluating: the end of base and init, all of every arm.

    Args:
        state: The run.
        layout: Its folder.
        arms_from_base: True if arms start from the base model; one that came trained is then evaluated too.
        given_init: The start model is the init of the arms.
    """
    targets = []
    base = [stage.name for stage in state.stages if stage.arm == "base"]
    if given_init:
        targets.append(Target("model", "init", 0, 0.0, 0, layout.start_model))
    elif arms_from_base and not base:
        targets.append(Target("model", "base", 0, 0.0, 0, layout.start_model))
    for stage in state.stages:
        if stage.kind not in ("sft", "rl") or stage.arm is None or stage.name in base[:-1]:
            continue
        checkpoints = list_checkpoints(layout.checkpoints(stage.name))
        if stage.arm in ("base", "init"):
            checkpoints = checkpoints[-1:]
        for checkpoint in checkpoints:
            targets.append(
                Target(
                    stage.name,
                    stage.arm,
                    stage.seed or 0,
                    stage.lr or 0.0,
                    checkpoint.step,
                    checkpoint.folder,
                )
            )
    return targets


def start_of(target: Target, state: RunState, layout: RunLayout) -> tuple[str, Path | None] | None:
    """Start of a checkpoint's stage.

    Args:
        target: The checkpoint.
        state: The run.
        layout: Its folder.

    Returns:
        ``<stage>@<step>`` and the model's folder, None if that is gone; None for a start model that was
        given, and for a base model, which starts from nothing that was trained.
    """
    if target.arm == "base" or target.stage == "model":
        return None
    origin = state.stage(target.stage).start
    if origin is None:  # the init, and arms of run folders older than the key
        before = "base" if target.arm == "init" else "init"
        stages = [stage.name for stage in state.stages if stage.arm == before and stage.name != target.stage]
        saved = list_checkpoints(layout.checkpoints(stages[-1])) if stages else []
        origin = f"{stages[-1]}@{saved[-1].step}" if saved else "model@0"
    stage, _, step = origin.rpartition("@")
    folders = {str(c.step): c.folder for c in list_checkpoints(layout.checkpoints(stage))}
    folder = layout.start_model if stage == "model" else folders.get(step)
    return origin, folder if folder is not None and folder.is_dir() else None


def eval_set_of(recipe: Recipe, layout: RunLayout, split: str) -> EvalSet:
    """The instances of one split of a run, and the same under the rule that its arms train on."""
    chosen = load_eval_set(layout.eval_rows(split))
    task = recipe.task
    rebuilt = find_rows(task.kind).under_trained_rule
    under = [rebuilt(facts, task.train_split) for facts in chosen.facts]
    return replace(chosen, under_trained=under if any(under) else ())


def load_eval_set(path: Path) -> EvalSet:
    """Read the instances of one split from its parquet file.

    Raises:
        SftrlError: if the file has another schema, or rows of several splits.
    """
    read_schema(path)
    with parquet_errors(path):
        table = pq.read_table(path, columns=["data_source", "extra_info"])
        sources = set(table["data_source"].to_pylist())
        infos = table["extra_info"].to_pylist()
    if len(sources) != 1:
        raise SftrlError(
            f"{path}: rows of {len(sources)} data sources ({', '.join(sorted(map(repr, sources)))}); "
            "expected exactly one."
        )
    splits = {info and info["split"] for info in infos}
    if len(splits) != 1 or None in splits:
        names = ", ".join(sorted(map(repr, splits)))
        raise SftrlError(f"{path}: column extra_info.split: found {names}; expected exactly one split.")
    facts = [parse_facts(info["facts"], f"{path}, row {row}: facts") for row, info in enumerate(infos)]
    return EvalSet(infos[0]["split"], sources.pop(), facts)

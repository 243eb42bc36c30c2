"""The recipe of a run as ``recipe.yaml`` stores it: the keys that a report reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from sftrl_ext.errors import SftrlError
from sftrl_ext.runs.typed_json import from_json


@dataclass(frozen=True)
class StoredArm:
    """An arm; ``title`` is what figures and tables call it."""

    title: str | None = None


@dataclass(frozen=True, kw_only=True)
class StoredExpected:
    """Numbers of the paper for one split, in percent; `ExpectedConfig` of the recipe schema has the keys."""

    source: str = "the paper"
    model: str = "Llama-3.2-11B"
    metric: str = "success"
    says: str = "level"
    split: str
    sft: float | None = None
    init: float | None = None
    rl: float | None = None
    arms: dict[str, float] = field(default_factory=dict)
    previous_best: float | None = None


@dataclass(frozen=True)
class StoredEval:
    """Settings of the evaluation."""

    temperature: float | None = None


@dataclass(frozen=True)
class StoredBudget:
    """Budgets of the stages."""

    eval: StoredEval = field(default_factory=StoredEval)


@dataclass(frozen=True)
class StoredRecipe:
    """A composed recipe; a key that is absent has the schema's default.

    Attributes:
        task: Settings of the task.
        rl_tokens: Reading of the paper's D_RL, a name of `sftrl_ext.runs.compute.RL_TOKENS`.
    """

    name: str = ""
    also: tuple[str, ...] = ()
    arms: dict[str, StoredArm] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    budget: StoredBudget = field(default_factory=StoredBudget)
    expected: tuple[StoredExpected, ...] = ()
    rl_tokens: str = "per_epoch"


def read_recipe(path: Path) -> StoredRecipe:
    """Read ``recipe.yaml``.

    Raises:
        SftrlError: naming the file, and the key, if it is no recipe.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise SftrlError(f"{path}: cannot be read: {error}") from None
    return from_json(StoredRecipe, value, str(path))

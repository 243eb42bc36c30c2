"""The recipe of a run as ``recipe.yaml`` stores it: the keys that a report reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sftrl_ext.files import read_yaml
from sftrl_ext.runs.typed_json import from_json


@dataclass(frozen=True)
class StoredArm:
    """An arm; `ArmConfig` of the recipe schema has the keys. ``title`` is its name in figures and tables."""

    title: str | None = None
    budget: dict[str, Any] = field(default_factory=dict)
    times: dict[str, float] = field(default_factory=dict)
    splits: tuple[str, ...] = ()
    max_attempts: int | None = None
    rows: str = "expert"


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
    """Budgets of the stages; those of the arms as plain mappings."""

    eval: StoredEval = field(default_factory=StoredEval)
    sft: dict[str, Any] = field(default_factory=dict)
    sft_by_rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    rl: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredRecipe:
    """A composed recipe; a key that is absent has the schema's default.

    Attributes:
        task: Settings of the task.
        rl_tokens: Reading of the paper's D_RL, a name of `sftrl_ext.runs.compute.RL_TOKENS`.
    """

    name: str = ""
    also: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    arms: dict[str, StoredArm] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)
    budget: StoredBudget = field(default_factory=StoredBudget)
    expected: tuple[StoredExpected, ...] = ()
    rl_tokens: str = "per_epoch"

    def arm_budget(self, name: str, kind: str) -> dict[str, Any]:
        """Budget of an arm with what it changes; empty where the recipe was not stored.

        Args:
            name: The arm.
            kind: ``sft`` or ``rl``.
        """
        arm = self.arms.get(name, StoredArm())
        by_rows = self.budget.sft_by_rows.get(arm.rows, {}) if kind == "sft" else {}
        budget = {**(self.budget.sft if kind == "sft" else self.budget.rl), **by_rows, **arm.budget}
        for key, factor in arm.times.items():
            value = budget.get(key, 0)
            if value > 0:  # 0 and -1 switch something off
                budget[key] = max(1, round(value * factor)) if isinstance(value, int) else value * factor
        return budget


def read_recipe(path: Path) -> StoredRecipe:
    """Read ``recipe.yaml``.

    Raises:
        SftrlError: naming the file, and the key, if it is no recipe.
    """
    return from_json(StoredRecipe, read_yaml(path), str(path))

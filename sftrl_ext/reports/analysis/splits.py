"""Order, titles and marks of splits and arms in figures and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sftrl_ext.envs.task import TASKS, task_of_source
from sftrl_ext.runs.recipe import StoredExpected, StoredRecipe

_SPLITS = {
    "id": "In distribution",
    "id_unseen": "In distribution, held out",
    "rule_ood": "OOD: other rule",
    "rule_ood_unseen": "OOD: other rule, held out",
    "visual_ood": "OOD: other look",
    "visual_ood_unseen": "OOD: other look, held out",
    "visual_ood_rotated": "OOD: turned cards",
    "visual_ood_overlap": "OOD: overlapping cards",
    "visual_ood_deck": "OOD: plain deck",
    "visual_ood_table": "OOD: blue table",
}
SYNTHETIC = "synthetic cities"
"""Mark of splits that walk cities which are made up; the paper's numbers are of the authors' routes."""

KINDS = ("rule", "visual")
"""Types of distribution shift: ``visual`` (rendering) or ``rule`` (meaning of inputs, any other split).

Each type gets a separate verdict."""


def split_order(splits: Iterable[str]) -> list[str]:
    """Distinct splits: the known ones in their usual order, then others by name, `all_5` before `all_12`."""
    listed = list(_SPLITS)

    def position(split: str) -> tuple[int, list[tuple[int, str]]]:
        parts = [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", split)]
        return (listed.index(split) if split in listed else len(listed), parts)

    return sorted(set(splits), key=position)


def split_title(split: str, task: str = "") -> str:
    """A split in words for a panel's title; an unknown name stands for itself.

    Args:
        split: Its name.
        task: Name of the task, the first part of its data source.
    """
    other = f"OOD: {split}" if is_ood(split) else f"In distribution: {split}"
    spec = task_of_source(task)
    titles = {} if spec is None else spec.split_titles
    return titles.get(split) or _SPLITS.get(split, other)


def is_ood(split: str) -> bool:
    """True if a split is out of distribution, by its name."""
    return split != "id" and not split.startswith("id_")


def ood_kind(split: str) -> str:
    """Type of distribution shift of a split, a name of `KINDS`; "" in distribution."""
    if not is_ood(split):
        return ""
    return "visual" if split.startswith("visual") else "rule"


def in_rows(splits: Sequence[str], columns: int) -> list[list[str]]:
    """Break panels into rows so that the splits of one kind stand together where they fit.

    Without visual splits there is one kind only, and rows are filled one after the other.

    Args:
        splits: In the order of `split_order`.
        columns: Panels to a row, at most.
    """
    if not any(ood_kind(split) == "visual" for split in splits):
        return [list(splits[i : i + columns]) for i in range(0, len(splits), columns)]
    rows: list[list[str]] = []
    for kind in dict.fromkeys(ood_kind(split) for split in splits):
        group = [split for split in splits if ood_kind(split) == kind]
        if rows and len(rows[-1]) + len(group) <= columns:
            rows[-1] += group
            continue
        # As many rows as needed, as even as possible: 4 panels in 3 columns are 2 and 2.
        size = -(-len(group) // -(-len(group) // columns))
        rows += [group[i : i + size] for i in range(0, len(group), size)]
    return rows


def arm_label(arm: str) -> str:
    """An arm's name as words: ``sft_frozen_vision`` is ``SFT frozen vision``."""
    names = {"sft": "SFT", "rl": "RL", "init": "Init", "base": "Base"}
    first, _, rest = arm.partition("_")
    return f"{names.get(first, first)} {rest.replace('_', ' ')}".strip()


def lr_label(lr: float | None) -> str:
    """A learning rate in few characters: ``5e-5``, ``1.5e-6``, ``0.02``."""
    if lr is None:
        return "–"
    if lr == 0 or abs(lr) >= 0.01:
        return f"{lr:g}"
    mantissa, _, exponent = f"{lr:.2e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}"


@dataclass(frozen=True)
class Expected:
    """Numbers of the paper for one split, in percent, from ``recipe.yaml: expected``; never a result.

    Attributes:
        label: How a figure names them.
        values: Arm to percent.
        says: What they are: the "level" reached, a bound it stays below ("at_most"), or the "change" from
            the start in points.
        previous_best: Best result before the paper, which its figure marks; None if it marks none.
    """

    label: str
    source: str
    metric: str
    split: str
    values: Mapping[str, float]
    says: str = "level"
    previous_best: float | None = None

    def text(self, arm: str) -> str:
        """The number of an arm, as written in a table."""
        signs = {"at_most": "≤ {:.1f}", "change": "{:+.2f}"}
        return signs.get(self.says, "{:.1f}").format(self.values[arm])

    @property
    def measures(self) -> str:
        """Measured quantity: a name of `curves.METRICS`."""
        return {"recognition": "recognition", "per_step": "steps"}.get(self.metric, "success")

    @property
    def of_recognition(self) -> bool:
        """True if the numbers are recognition of cards rather than success."""
        return self.metric == "recognition"


def expected_numbers(recipe: StoredRecipe) -> list[Expected]:
    """The paper's numbers that a recipe carries."""
    return [_expected(entry) for entry in recipe.expected]


def _expected(entry: StoredExpected) -> Expected:
    kinds = {"sft": entry.sft, "init": entry.init, "rl": entry.rl}
    model = re.sub(r"(-Vision)?-Instruct$", "", entry.model.split("/")[-1])
    return Expected(
        label=f"paper, {model}",
        source=entry.source,
        metric=entry.metric,
        split=entry.split,
        values={arm: value for arm, value in kinds.items() if value is not None} | entry.arms,
        says=entry.says,
        previous_best=entry.previous_best,
    )


def is_synthetic(recipe: StoredRecipe, split: str) -> bool:
    """True if a split walks synthetic cities, or tests in other cities what was trained in synthetic ones.

    Args:
        recipe: The recipe of the run.
        split: Name of the split.
    """
    task = recipe.task
    if not task:
        return False
    if task.get("synthetic") or task.get("kind") not in TASKS:
        return bool(task.get("synthetic"))
    return bool(TASKS[task["kind"]].made_up(task, ood_kind(split) == "visual"))


def synthetic_note(recipe: StoredRecipe, splits: list[str]) -> str | None:
    """The note on top of a report; None where no split walks synthetic cities."""
    marked = [split for split in splits if is_synthetic(recipe, split)]
    if not marked:
        return None
    names = "" if marked == splits else f" of {', '.join(f'`{split}`' for split in marked)}"
    key = "away" if names else "home.path"
    return (
        f"Synthetic cities: the routes{names} are made up, so these numbers cannot be compared with the "
        f"paper's, which are left out. The authors' routes are read with `task.routes.{key}`."
    )

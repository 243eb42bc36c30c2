"""How splits and arms are ordered and named in figures and tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from sftrl_ext.errors import SftrlError

_SPLITS = {
    "id": "In distribution",
    "id_unseen": "In distribution, held out",
    "rule_ood": "OOD: other rule",
    "rule_ood_unseen": "OOD: other rule, held out",
    "visual_ood": "OOD: other look",
}
_ARM_ORDER = ("base", "sft", "init", "rl")


def split_order(splits: Iterable[str]) -> list[str]:
    """Distinct splits: the known ones in their usual order, then others by name, `all_5` before `all_12`."""
    known = list(_SPLITS)

    def place(split: str) -> tuple[int, list[tuple[int, str]]]:
        parts = [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", split)]
        return (known.index(split) if split in known else len(known), parts)

    return sorted(set(splits), key=place)


def split_title(split: str) -> str:
    """A split in words for a panel's title; an unknown name stands for itself."""
    return _SPLITS.get(split, f"OOD: {split}")


def is_ood(split: str) -> bool:
    """Whether a split is out of distribution, told by its name."""
    return split != "id" and not split.startswith("id_")


def arm_order(arms: Iterable[str]) -> list[str]:
    """Arms as the bars of the paper stand: SFT, start, RL; further arms after their first part's place."""

    def place(arm: str) -> tuple[int, str]:
        family = arm.split("_")[0]
        return (_ARM_ORDER.index(family) if family in _ARM_ORDER else len(_ARM_ORDER), arm)

    return sorted(set(arms), key=place)


def arm_label(arm: str) -> str:
    """An arm as it is written in a figure."""
    known = {"sft": "SFT", "rl": "RL", "init": "Init", "base": "Base"}
    return known.get(arm, known.get(arm.split("_")[0], "") + " " + arm.partition("_")[2]).strip() or arm


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
    """

    label: str
    source: str
    metric: str
    split: str
    values: Mapping[str, float]


def expected_numbers(recipe: Mapping[str, Any]) -> list[Expected]:
    """The paper's numbers that a recipe carries: one mapping, a list of them, or none.

    Raises:
        SftrlError: if ``expected`` has another form.
    """
    entries = recipe.get("expected") or []
    entries = [entries] if isinstance(entries, Mapping) else entries
    found = []
    for entry in entries:
        if not isinstance(entry, Mapping) or "split" not in entry:
            raise SftrlError(f"recipe.yaml: expected: every entry needs a `split`, found {entry!r}.")
        numbers = {
            str(arm): float(value)
            for arm, value in entry.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        }
        model = re.sub(r"(-Vision)?-Instruct$", "", str(entry.get("model", "Llama-3.2-11B")).split("/")[-1])
        found.append(
            Expected(
                label=f"paper, {model}",
                source=str(entry.get("source", "the paper")),
                metric=str(entry.get("metric", "success")),
                split=str(entry["split"]),
                values=numbers,
            )
        )
    return found

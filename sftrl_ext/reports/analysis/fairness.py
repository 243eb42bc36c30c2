"""Settings and costs of the compared arms side by side, with a mark where they differ.

An arm is shown at the learning rate of the verdict and at its compared checkpoints, means over seeds. Steps,
prompts and tokens are those since the arm's start; compute is counted from the base model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sftrl_ext.reports.analysis.curves import Checkpoint, Curve, mean_cost, mean_over_seeds
from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.analysis.splits import lr_label
from sftrl_ext.runs.compute import readable
from sftrl_ext.runs.recipe import StoredArm
from sftrl_ext.runs.token_counts import TokenCount

TOLERANCE = 0.05
"""Share by which numbers of two arms may differ before they are marked: compute ends between checkpoints."""

Value = float | str | None


@dataclass(frozen=True)
class FairnessLine:
    """One setting of every arm.

    Attributes:
        values: Arm to its value as text; "–" where the setting does not apply or is not stored.
        differs: True if arms that have the setting differ in it.
    """

    name: str
    values: dict[str, str]
    differs: bool


@dataclass(frozen=True)
class _ArmView:
    """An arm at its compared checkpoints.

    Attributes:
        budget: Its budget, from the stored recipe.
    """

    analysis: Analysis
    curve: Curve
    checkpoints: Sequence[Checkpoint]
    settings: StoredArm
    kind: str
    budget: dict[str, Any]

    @property
    def step(self) -> float:
        """Mean step of its compared checkpoints."""
        return sum(c.step for c in self.checkpoints) / len(self.checkpoints)

    def times_steps(self, *keys: str, of_kind: str) -> float | None:
        """Product of budget keys and the steps; None for another kind of arm or without one of the keys."""
        product: float = self.step
        for key in keys:
            value = self.budget.get(key)
            if not isinstance(value, int | float):
                return None
            product *= value
        return product if self.kind == of_kind else None

    def tokens(self, pick: Callable[[TokenCount], float]) -> float | None:
        """Mean token count of its stages up to the compared checkpoints; None if one was not stored."""
        counts = [self.analysis.run.tokens.get(c.stage, {}).get(c.step) for c in self.checkpoints]
        stored = [pick(count) for count in counts if count is not None]
        return sum(stored) / len(stored) if len(stored) == len(counts) else None


def _start(arm: _ArmView) -> Value:
    keys = {stage.name: stage.key for stage in arm.analysis.run.stages}
    names = {(c.stage, c.step) for c in arm.curve.start}
    texts = [
        f"{stage}@{step}" + (f" ({key[:8]})" if (key := keys.get(stage)) else "") for stage, step in names
    ]
    return ", ".join(sorted(texts)) or None


def _best_rates(arm: _ArmView) -> Value:
    chosen = arm.analysis.equal.chosen
    rates = {curve.lr: chosen[curve.key] for curve in _curves(arm) if curve.key in chosen}
    if len(rates) < 2:
        return None
    best = []
    for split in arm.analysis.curves.splits:
        scores = {lr: measure.p for lr, c in rates.items() if (measure := mean_over_seeds(c, split))}
        if scores:
            best.append(f"{split} {lr_label(max(scores, key=scores.__getitem__))}")
    return "; ".join(best)


def _curves(arm: _ArmView) -> list[Curve]:
    return [curve for curve in arm.analysis.curves.arms if curve.arm == arm.curve.arm]


def _prompts(arm: _ArmView) -> Value:
    rows = arm.times_steps("batch_size", of_kind="sft")
    episodes, group = _episodes(arm), arm.budget.get("group")
    return rows if rows is not None else episodes / group if episodes and group else None


def _episodes(arm: _ArmView) -> float | None:
    if arm.budget.get("responses") is not None:  # as many episodes as give so many responses
        return None
    return arm.times_steps("episodes", of_kind="rl")


def _optimizer_steps(arm: _ArmView) -> Value:
    return arm.step if arm.kind == "sft" else arm.times_steps("epochs", "minibatches", of_kind="rl")


def _attempts(arm: _ArmView) -> Value:
    if arm.kind == "sft":
        return f"rows: {arm.settings.rows}"
    attempts = arm.settings.max_attempts or arm.analysis.run.recipe.task.get("max_attempts")
    return None if attempts is None else str(attempts)


def _temperature(arm: _ArmView) -> Value:
    value = arm.budget.get("temperature") if arm.kind == "rl" else None
    return None if value is None else f"{value:g}"


def _evaluation_temperature(arm: _ArmView) -> Value:
    records = [record for c in arm.checkpoints for record in c.results.values()]
    values = sorted({record.temperature for record in records if record.temperature is not None})
    return ", ".join(f"{value:g}" for value in values) or None


def _splits(arm: _ArmView) -> Value:
    split = arm.analysis.run.recipe.task.get("train_split")
    return ", ".join(arm.settings.splits) or (str(split) if split else None)


def _plain(value: float) -> str:
    return f"{value:,.0f}"


def _tokens(value: float) -> str:
    return readable(value, "tokens").removesuffix(" tokens")


_LINES: tuple[tuple[str, Callable[[_ArmView], Value], Callable[[float], str]], ...] = (
    ("Start (digest of its stage)", _start, _plain),
    ("Seeds", lambda arm: ", ".join(map(str, sorted(arm.curve.seeds))), _plain),
    ("Trained on", _splits, _plain),
    ("Learning rates tried", lambda arm: ", ".join(lr_label(c.lr) for c in _curves(arm)), _plain),
    ("Number of rates tried", lambda arm: float(len(_curves(arm))), _plain),
    ("Rate of the verdict (best in distribution)", lambda arm: lr_label(arm.curve.lr), _plain),
    ("Best rate by split", _best_rates, _plain),
    ("Updates (SFT: steps)", lambda arm: arm.step, _plain),
    ("Optimizer steps", _optimizer_steps, _plain),
    ("Prompts seen (SFT: rows)", _prompts, _plain),
    ("Episodes generated", _episodes, _plain),
    ("Tokens trained on", lambda arm: arm.tokens(lambda count: count.trained), _tokens),
    ("Tokens generated and read", lambda arm: arm.tokens(lambda c: c.generated + c.prefill), _tokens),
    (
        "Compute, counted",
        lambda arm: mean_cost(arm.checkpoints, "counted"),
        lambda flops: readable(flops, "counted"),
    ),
    ("Attempts in training", _attempts, _plain),
    ("Temperature in training", _temperature, _plain),
    ("Temperature in evaluation", _evaluation_temperature, _plain),
)
"""Name of a setting, its value, and how a number is written."""


def fairness_card(analysis: Analysis) -> list[FairnessLine]:
    """Settings of the compared arms, one line each; settings that no arm has are left out."""
    views = [
        _ArmView(
            analysis,
            curve,
            checkpoints,
            analysis.run.recipe.arms.get(arm, StoredArm()),
            kind := analysis.arms.kind(arm),
            analysis.run.recipe.arm_budget(arm, kind),
        )
        for arm, curve in analysis.picked.items()
        if (checkpoints := analysis.equal.chosen[curve.key])
    ]
    lines = []
    for name, read, write in _LINES:
        values = {view.curve.arm: read(view) for view in views}
        texts = {
            arm: write(value) if isinstance(value, float | int) else value or "–"
            for arm, value in values.items()
        }
        if any(value is not None for value in values.values()):
            lines.append(FairnessLine(name, texts, _differ([v for v in values.values() if v is not None])))
    return lines


def _differ(values: Sequence[float | str]) -> bool:
    """True if texts are unlike, or numbers differ by more than `TOLERANCE`."""
    numbers = [value for value in values if isinstance(value, float | int)]
    if len(numbers) == len(values):
        return max(numbers) - min(numbers) > TOLERANCE * max(numbers)
    return len(set(values)) > 1

"""Logged training metrics by quantity and stage."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sftrl_ext.reports.analysis.run_analysis import Analysis


@dataclass(frozen=True)
class Quantity:
    """A logged quantity: its title, and regular expressions of its metric names, best first."""

    title: str
    patterns: tuple[str, ...]
    rl: bool = True


QUANTITIES = (
    Quantity("Loss", (r"^train/loss$", r"(^|/)loss(/mean)?$"), rl=False),
    Quantity("Validation loss", (r"^val/loss$", r"^val.*/loss(/mean)?$"), rl=False),
    Quantity(
        "Reward per episode",
        (r"episode/(reward|return)", r"^critic/score/mean$", r"^critic/rewards?/mean$", r"reward/mean"),
    ),
    Quantity("Solved", (r"^(?!val).*(^|/)solved(_rate)?(/mean)?$", r"^(?!val).*solved")),
    Quantity(
        "KL to the start model",
        (r"kl_start_k3$", r"kl_(to_)?(start|init|base|ref)", r"(start|init|ref)_?kl", r"^actor/kl_loss$"),
    ),
    Quantity("Entropy", (r"^actor/entropy$", r"entropy(?!_(loss|coeff))")),
    Quantity("Clip fraction", (r"^actor/pg_clipfrac$", r"clip_?frac(tion)?(/mean)?$")),
    Quantity("Sampler and trainer: mean |log p difference|", (r"^mismatch/logp_abs_mean$",)),
    Quantity("Staleness of turns (updates)", (r"^turns/staleness_mean$",)),
    Quantity("Prompts with unlike episodes", (r"^groups/informative$",)),
    Quantity("Value error", (r"value_(rmse|error)", r"^critic/vf_loss$", r"v(alue|f)_(loss|mse)")),
)  # fmt: skip


def find_metric(names: Sequence[str], quantity: Quantity) -> str | None:
    """The logged name that stands for a quantity; None if none does."""
    for pattern in quantity.patterns:
        matches = sorted((name for name in names if re.search(pattern, name)), key=lambda n: (len(n), n))
        if matches:
            return matches[0]
    return None


def series(analysis: Analysis, stage: str, quantity: Quantity) -> list[tuple[int, float]]:
    """(step, value) of a quantity in a stage; empty if it was not logged."""
    rows = analysis.run.training.get(stage, [])
    name = find_metric(sorted({key for _, data in rows for key in data}), quantity)
    return [(step, data[name]) for step, data in rows if name in data] if name else []


@dataclass(frozen=True)
class LoggedStage:
    """A training stage with logged metrics."""

    name: str
    arm: str
    lr: float | None


def logged_stages(analysis: Analysis) -> list[LoggedStage]:
    """Stages with logged metrics; one that ``state.json`` does not list has the arm of its folder's name."""
    listed = {stage.name: stage for stage in analysis.run.stages if stage.arm}
    recorded = {record.stage: record for record in analysis.run.records}
    stages = []
    for name in analysis.run.training:
        stage, record = listed.get(name), recorded.get(name)
        source = record or stage
        arm = source.arm if source else re.split(r"[-_]", name)[0]
        rates = [entry.lr for entry in (stage, record) if entry]
        stages.append(LoggedStage(name, str(arm), rates[0] if rates else None))
    return stages

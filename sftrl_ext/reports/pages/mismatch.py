"""Table: how far sampler and trainer disagree about the samples that RL trains on, one row per RL stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.pages.tables import Table

MISMATCH = "Sampler and trainer"
"""Title of `mismatch_table`."""

NOTE = (
    "Sampler and trainer: d is the log-probability of a sampled token under the trainer before an update, "
    "minus that under the engine that sampled it; abs(d) per token, and of its sum over a turn, which is one "
    "ratio. KL(sampler || trainer) is the mean of exp(d) - 1 - d. With a synchronous trainer both hold the "
    "same weights, and what is left is rounding; with an asynchronous one the updates in between are in it. "
    "Clipped at first: share of ratios clipped in the first optimizer step of an update, before the policy "
    "has moved: 0 unless the trainer's own passes disagree. Staleness: updates between the policy that wrote "
    "a turn and the one trained on it. All are over the steps of a stage that "
    "measured them (`sftrl.check_every`)."
)
"""Definitions of the table's numbers."""

_Steps = Sequence[tuple[int, Mapping[str, float]]]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


_COLUMNS: tuple[tuple[str, tuple[str, ...], Callable[[Sequence[float]], float]], ...] = (
    ("mean abs(d)", ("mismatch/logp_abs_mean",), _mean),
    ("max abs(d)", ("mismatch/logp_abs_max",), max),
    ("KL", ("mismatch/k3", "rollout_corr/k3_kl"), _mean),
    ("off by 2x", ("mismatch/ratio_outliers",), _mean),
    ("turn: mean abs(d)", ("mismatch/turn_logp_abs_mean",), _mean),
    ("turn: max abs(d)", ("mismatch/turn_logp_abs_max",), max),
    ("clipped at first", ("actor/pg_clipfrac_first",), _mean),
    ("mean staleness", ("turns/staleness_mean",), _mean),
    (
        "max staleness",
        ("turns/staleness_max", "training/off_policy/trajectory_staleness_worst/max"),
        max,
    ),
)
"""Header, metric names (the first that was logged counts), and how the steps are put together."""


def mismatch_table(analysis: Analysis) -> Table | None:
    """The table; None if no stage logged any of it."""
    rows = []
    for stage, steps in sorted(analysis.run.training.items()):
        cells = [_cell(steps, names, reduce) for _, names, reduce in _COLUMNS]
        if any(cell != "–" for cell in cells):
            rows.append([stage, *cells])
    return Table(["Stage", *(header for header, _, _ in _COLUMNS)], rows) if rows else None


def _cell(steps: _Steps, names: Sequence[str], reduce: Callable[[Sequence[float]], float]) -> str:
    for name in names:
        values = [float(data[name]) for _, data in steps if name in data]
        if values:
            return f"{reduce(values):.2g}"
    return "–"

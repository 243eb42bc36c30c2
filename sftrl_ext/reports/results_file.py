"""A results file: the measurements of a finished run, small enough to be kept beside the code.

``results/<recipe>-<scale>.json`` of this repository are such files; the table of recipes is made from them.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_json, write_json
from sftrl_ext.plain_text import safe_name
from sftrl_ext.reports.analysis.curves import change_between, divergence_over_seeds
from sftrl_ext.reports.analysis.run_analysis import Analysis, analyse
from sftrl_ext.reports.pages.tables import Row, all_rows, compared_rows
from sftrl_ext.runs.compute import TERA
from sftrl_ext.runs.machine import hardware_line
from sftrl_ext.runs.records import DIRECTIONS
from sftrl_ext.runs.typed_json import from_json

CHECKPOINTS = "checkpoints"
"""Name of the measurement with a row for every evaluated checkpoint."""

_AXES = {"counted": " (counted tokens)", "paper": " (paper's formula)"}


@dataclass(frozen=True)
class SplitNumbers:
    """Percent and standard error of a measure, by split."""

    percent: dict[str, float]
    se: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class ResultsDifference:
    """Difference of a row from another one over the same instances.

    Attributes:
        arm, lr, step: The row that is subtracted.
        points, se: The difference in points, and its standard error.
        method, p_value: As of `sftrl_ext.runs.stats.Change`.
    """

    arm: str
    lr: float | None
    step: int
    split: str
    points: float
    se: float
    method: str
    p_value: float | None = None


@dataclass(frozen=True, kw_only=True)
class ResultsRow:
    """One checkpoint, seeds pooled.

    Attributes:
        tflop_counted, tflop_paper: Compute on both axes; None where an axis does not apply.
        percent, se: The main measure.
        se_unit: ``route`` or ``response``, the independent unit of a per-step accuracy's error.
        recognized: Recognition of cards in pictures.
        routes: Success of whole routes.
        divergence: Direction to ``nats`` and ``se``.
        differences: From the row's start, and of the verdict's RL from its SFT, at equal compute; only where
            the records hold the results of each instance.
    """

    arm: str
    lr: float | None
    seeds: int
    step: int
    tflop_counted: float | None = None
    tflop_paper: float | None = None
    percent: dict[str, float]
    se: dict[str, float]
    se_unit: str | None = None
    recognized: SplitNumbers | None = None
    routes: SplitNumbers | None = None
    divergence: dict[str, dict[str, float | None]] | None = None
    differences: tuple[ResultsDifference, ...] | None = None


@dataclass(frozen=True)
class Measurement:
    """Named rows, with a sentence on what they are."""

    name: str
    what: str
    rows: tuple[ResultsRow, ...]


@dataclass(frozen=True)
class ResultsArm:
    """Kind and title of an arm."""

    kind: str
    title: str | None = None


@dataclass(frozen=True, kw_only=True)
class ResultsFile:
    """The content of a results file.

    Attributes:
        overrides: Overrides under which the recipe of today repeats a run of an older commit.
        paper_formula_absent: The reason why the paper's formula does not apply; None if it does.
        synthetic_cities: True where routes are made up.
        stages: Stage to ``wall_s`` and ``peak_rss_mb``.
    """

    recipe: str
    scale: str
    task: str
    arms: dict[str, ResultsArm]
    date: str
    commit: str
    overrides: tuple[str, ...] | None = None
    hardware: str
    model: dict[str, Any]
    measure: str
    max_attempts: int | None = None
    temperature: float | None = None
    paper_formula_absent: str | None = None
    synthetic_cities: bool | None = None
    measurements: tuple[Measurement, ...]
    stages: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def checkpoints(self) -> tuple[ResultsRow, ...]:
        """A row for every evaluated checkpoint."""
        return next((m.rows for m in self.measurements if m.name == CHECKPOINTS), ())


_LEFT_OUT = (
    *("title", "synthetic_cities", "se_unit", "recognized", "routes", "divergence", "overrides"),
    *("differences", "p_value"),
)
"""Keys that a file does not have where they have no value."""


def results_json(results: ResultsFile) -> dict[str, Any]:
    """The content of a results file as JSON."""
    return asdict(
        results, dict_factory=lambda items: {k: v for k, v in items if v is not None or k not in _LEFT_OUT}
    )


def read_results(path: Path) -> ResultsFile:
    """Read a results file.

    Raises:
        SftrlError: naming file and key, if it is none, or has no row for each checkpoint.
    """
    content = read_json(path)
    measurements = content.get("measurements") if isinstance(content, dict) else None
    if not isinstance(measurements, list):
        raise SftrlError(f"{path}: no measurements; expected a results file of a run.")
    rows = [m for m in measurements if isinstance(m, dict) and m.get("name") == CHECKPOINTS]
    if not rows or not rows[0].get("rows"):
        raise SftrlError(f"{path}: no measurement {CHECKPOINTS!r}, so its arms cannot be compared again.")
    return from_json(ResultsFile, {**content, "measurements": rows}, str(path))


def write_results(run_dir: Path, folder: Path) -> Path:
    """Write the results file of a run.

    Costs by the paper's formula count D_RL in every epoch, whatever the recipe, as every results file does.

    Args:
        run_dir: A run folder with evaluated checkpoints.
        folder: Where the file goes; one of the same recipe and scale is replaced.

    Raises:
        SftrlError: if the run has no evaluated arm.
    """
    results = results_of(analyse(Path(run_dir), rl_tokens="per_epoch"))
    path = Path(folder) / f"{safe_name(results.recipe)}-{safe_name(results.scale)}.json"
    write_json(path, results_json(results))
    return path


def results_of(analysis: Analysis) -> ResultsFile:
    """The measurements of a run, in percent with standard errors.

    Raises:
        SftrlError: if the run has no evaluated arm.
    """
    state, recipe, arms = analysis.run.state, analysis.run.recipe, analysis.arms
    compared = _rows(analysis, compared_rows(analysis))
    if not compared:
        raise SftrlError(f"{analysis.run.folder}: no evaluated checkpoint of an arm; evaluate the run first.")
    seeds, budget = max(row.seeds for row in compared), analysis.equal.budget
    at = f", at the largest compute every arm reached: {budget / TERA:.3g} TFLOP" if budget else ""
    at += _AXES.get(analysis.equal.axis, "") if budget else ""
    changed = (analysis.run.folder / "state.json").stat().st_mtime
    return ResultsFile(
        recipe=str(state.recipe),
        scale=str(state.scale),
        task=analysis.task,
        arms={arm: ResultsArm(arms.kind(arm), arms.titles.get(arm)) for arm in analysis.curves.arm_names()},
        date=datetime.date.fromtimestamp(changed).isoformat(),
        commit=(state.commit or "unknown")[:7],
        hardware=hardware_line(state.hardware),
        model={key: value for key, value in asdict(state.model).items() if value},
        measure="per-step accuracy" if analysis.metric == "steps" else "success per episode",
        max_attempts=recipe.task.get("max_attempts"),
        temperature=recipe.budget.eval.temperature,
        paper_formula_absent=analysis.curves.paper_absent,
        synthetic_cities=analysis.synthetic or None,
        measurements=(
            Measurement("compared", f"{seeds} seed{'s' if seeds > 1 else ''}{at}", compared),
            Measurement(CHECKPOINTS, "every evaluated one", _rows(analysis, all_rows(analysis))),
        ),
        stages={s.name: {"wall_s": s.wall_s, "peak_rss_mb": s.peak_rss_mb} for s in analysis.run.stages},
    )


def _rows(analysis: Analysis, rows: Iterable[Row]) -> tuple[ResultsRow, ...]:
    converted = (_row(analysis, row) for row in rows if row.checkpoints)
    return tuple(row for row in converted if row is not None)


def _row(analysis: Analysis, row: Row) -> ResultsRow | None:
    """None for a checkpoint that was evaluated on no split."""
    checkpoints, splits = row.checkpoints, analysis.curves.splits
    main = _numbers(row, splits, "main")
    if main is None:
        return None
    per_response = any((m := row.measure(split)) and m.per_response for split in splits)
    divergence = {
        direction: {"nats": _round(kl.nats, 5), "se": _round(kl.se, 5)}
        for direction in DIRECTIONS
        if (kl := divergence_over_seeds(checkpoints, direction))
    }
    return ResultsRow(
        arm=row.arm,
        lr=row.lr,
        seeds=len(checkpoints),
        step=checkpoints[0].step,
        tflop_counted=_tflop(row.cost("counted")),
        tflop_paper=_tflop(row.cost("paper")),
        percent=main.percent,
        se=main.se,
        se_unit=("response" if per_response else "route") if analysis.metric == "steps" else None,
        recognized=_numbers(row, splits, "recognition"),
        routes=_numbers(row, splits, "success") if analysis.metric == "steps" else None,
        divergence=divergence or None,
        differences=tuple(_differences(analysis, row)) or None,
    )


def _differences(analysis: Analysis, row: Row) -> Iterator[ResultsDifference]:
    """Differences of a compared row over the same instances; none for other rows."""
    curve = next((c for c in analysis.curves.arms if c.key == (row.arm, row.lr)), None)
    chosen = analysis.equal.chosen.get((row.arm, row.lr), [])
    if curve is None or {(c.seed, c.step) for c in chosen} != {(c.seed, c.step) for c in row.checkpoints}:
        return
    others = [curve.start]
    sft, rl = (analysis.compared.arm_standing_for(kind) for kind in ("sft", "rl"))
    if sft is not None and rl is not None and analysis.picked[rl] is curve:
        others.append(analysis.equal.chosen[analysis.picked[sft].key])
    for other, split in product(filter(None, others), analysis.curves.splits):
        moved = change_between(chosen, other, split)
        if moved is not None and moved.method != "unpaired":
            arm, lr, step = other[0].key
            points, se = round(100 * moved.delta, 2), round(100 * moved.se, 2)
            yield ResultsDifference(
                arm=arm, lr=lr, step=step, split=split, points=points, se=se,
                method=moved.method, p_value=moved.p_value and float(f"{moved.p_value:.4g}"),
            )  # fmt: skip


def _numbers(row: Row, splits: Iterable[str], metric: str) -> SplitNumbers | None:
    """A measure of a row by split; None if it was measured on none."""
    measures = {split: m for split in splits if (m := row.measure(split, metric))}
    if not measures:
        return None
    percent = {split: round(100 * m.p, 1) for split, m in measures.items()}
    return SplitNumbers(percent, {split: round(100 * m.se, 1) for split, m in measures.items()})


def _tflop(flops: float | None) -> float | None:
    return _round(None if flops is None else flops / TERA, 2)


def _round(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)

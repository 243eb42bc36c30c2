"""Numbers of the interactive charts: every curve by split, measure, seed and compute axis."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from sftrl_ext.reports.analysis.curves import METRICS, Checkpoint, Curve, mean_cost, mean_over_seeds
from sftrl_ext.reports.analysis.run_analysis import MEASURES, Analysis
from sftrl_ext.reports.analysis.splits import lr_label
from sftrl_ext.reports.analysis.training import QUANTITIES, logged_stages, series
from sftrl_ext.reports.analysis.verdict import ID_SPLIT
from sftrl_ext.runs.compute import AXES, AXIS_TITLES, scaled

_METRIC_TITLES = {
    **MEASURES,
    "recognition": "Recognition",
    "numbers": "Right numbers in the first response",
    "first": "Solved by the first response",
    "trained_rule": "First response solves by the trained rule",
}
"""Measure to its name, in the order of the page; those of `METRICS` that are measured in a run are shown."""

_MOST_STEPS = 300
"""Points of a training curve."""


def chart_data(analysis: Analysis) -> dict[str, Any]:
    """Everything the charts draw, JSON-like; percent, and compute in the unit of its axis.

    Each point is a checkpoint on a split by one measure: of one seed, or pooled over seeds (``seed`` None),
    with ``at`` naming the evaluated checkpoints behind it as ``<stage>@<step>``.
    """
    arms = analysis.arms
    axes = _axes(analysis)
    points = list(_points(analysis, {axis["name"]: axis["divisor"] for axis in axes}))
    measured = {point["metric"] for point in points}
    metrics = [analysis.metric, *(name for name in _METRIC_TITLES if name != analysis.metric)]
    return {
        "axes": [
            *axes,
            {"name": "step", "title": "Training step of the stage"},
            {"name": "id", "title": f"Same measure on {ID_SPLIT} (%)"},
        ],
        "metrics": [{"name": name, "title": _METRIC_TITLES[name]} for name in metrics if name in measured],
        "arms": [
            {"name": arm, "label": arms.label(arm), "colour": arms.colour(arm)}
            for arm in arms.order(
                [*analysis.curves.arm_names(), "init", "base", *(e.arm for e in analysis.run.episodes)]
            )
        ],
        "splits": [{"name": split, "title": analysis.split_title(split)} for split in analysis.curves.splits],
        "main_splits": [ID_SPLIT, *analysis.main_splits],
        "points": points,
        "paper": [
            {"metric": entry.measures, "split": entry.split, "arm": arm, "percent": value, "says": entry.says}
            for entry in analysis.expected
            if entry.says != "change"
            for arm, value in entry.values.items()
        ],
        "budget": _budget(analysis, axes),
        "training": list(_training(analysis)),
        "compared": sorted(_compared(analysis)),
    }


def _training(analysis: Analysis) -> Iterator[dict[str, Any]]:
    """One line for each quantity that a stage logged, thinned to `_MOST_STEPS` points."""
    for stage in logged_stages(analysis):
        for quantity in QUANTITIES:
            points = series(analysis, stage.name, quantity)
            if quantity.rl != (analysis.arms.kind(stage.arm) == "rl"):
                continue
            thin = points[:: -(-len(points) // _MOST_STEPS) or 1]
            if points and thin[-1] != points[-1]:
                thin.append(points[-1])
            for step, value in thin:
                if not math.isfinite(value):
                    continue
                yield {
                    "stage": stage.name,
                    "arm": stage.arm,
                    "lr": lr_label(stage.lr),
                    "quantity": quantity.title,
                    "step": step,
                    "value": float(f"{value:.5g}"),
                }


def _axes(analysis: Analysis) -> list[dict[str, Any]]:
    """The known compute axes with their units."""
    axes = []
    for axis in (name for name in AXES if name in analysis.axes):
        reach = max(r for c in analysis.curves.arms if (r := c.reach(axis)) is not None)
        divisor, unit = scaled(reach, axis)
        axes.append({"name": axis, "title": f"{AXIS_TITLES[axis]} ({unit})", "divisor": divisor})
    return axes


def _budget(analysis: Analysis, axes: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The equal compute that the verdict is read at, on its axis."""
    equal = analysis.equal
    divisor = next((axis["divisor"] for axis in axes if axis["name"] == equal.axis), None)
    if divisor is None or equal.budget is None:
        return None
    return {"axis": equal.axis, "value": float(f"{equal.budget / divisor:.6g}")}


def checkpoint_name(checkpoint: Checkpoint) -> str:
    """Name of an evaluated checkpoint in a page: ``<stage>@<step>``."""
    return f"{checkpoint.stage}@{checkpoint.step}"


def _compared(analysis: Analysis) -> set[str]:
    """The checkpoints that the verdicts compare, with their start."""
    chosen = [c for curve in analysis.picked.values() for c in analysis.equal.chosen.get(curve.key, ())]
    return {checkpoint_name(c) for c in (*chosen, *analysis.curves.start, *analysis.curves.base)}


def _points(analysis: Analysis, divisors: dict[str, float]) -> Iterator[dict[str, Any]]:
    curves = analysis.curves
    for curve in curves.arms:
        rate = {"arm": curve.arm, "lr": lr_label(curve.lr)}
        for group, seed in _groups(curve):
            yield from _group_points(curves.splits, group, divisors, {**rate, "seed": seed})
        if curve.start:
            for seed in (None, *_single(curve)):
                labels = {**rate, "seed": seed, "start": True}
                yield from _group_points(curves.splits, curve.start, divisors, labels)
    if curves.path:
        for group, seed in _groups(curves.path):
            labels = {"arm": "init", "lr": "–", "seed": seed}
            yield from _group_points(curves.splits, group, divisors, labels)
    if curves.base:
        labels = {"arm": "base", "lr": "–", "seed": None}
        yield from _group_points(curves.splits, curves.base, divisors, labels)


def _groups(curve: Curve) -> Iterator[tuple[list[Checkpoint], int | None]]:
    """The checkpoints of every point of a curve: of all seeds together, then of each of several."""
    for group in curve.steps():
        yield group, None
    for seed in _single(curve):
        for checkpoint in curve.seeds[seed]:
            yield [checkpoint], seed


def _single(curve: Curve) -> list[int]:
    """Seeds that have lines of their own beside the pooled one."""
    return list(curve.seeds) if len(curve.seeds) > 1 else []


def _group_points(
    splits: Sequence[str], group: list[Checkpoint], divisors: dict[str, float], labels: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    """One point for each measure and split of some checkpoints, which stand for one."""
    costs = {axis: mean_cost(group, axis) for axis in divisors}
    axes = {axis: float(f"{cost / divisors[axis]:.6g}") for axis, cost in costs.items() if cost is not None}
    position = {**axes, "step": 0 if "start" in labels else group[0].step}
    identity = {"at": [checkpoint_name(c) for c in group], "at_step": group[0].step}
    for metric in (name for name in _METRIC_TITLES if name in METRICS):
        within = mean_over_seeds(group, ID_SPLIT, metric)
        for split in splits:
            measure = mean_over_seeds(group, split, metric)
            if measure is None:
                continue
            numbers = {
                "percent": round(100 * measure.p, 3),
                "se": round(100 * measure.se, 3),
                "n": measure.episodes,
                "seeds": measure.seeds,
            }
            if within is not None:
                numbers["id"] = round(100 * within.p, 3)
            yield {**labels, **identity, **position, "metric": metric, "split": split, **numbers}

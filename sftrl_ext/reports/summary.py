"""The numbers of a report as JSON, for other programs and for results files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from sftrl_ext.reports.analysis.curves import divergence_over_seeds
from sftrl_ext.reports.analysis.equal_id import EqualSuccess, at_equal_id
from sftrl_ext.reports.analysis.fairness import fairness_card
from sftrl_ext.reports.analysis.forgetting import Correlation, correlations
from sftrl_ext.reports.analysis.recognition import RecognitionChange
from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.analysis.samples import distinct_solutions, ks_of, pass_at_k, samples_of
from sftrl_ext.reports.analysis.verdict import Comparison, Finding
from sftrl_ext.reports.pages.cities import city_lines
from sftrl_ext.reports.pages.tables import Row, all_rows, compared_rows
from sftrl_ext.runs.compute import AXES
from sftrl_ext.runs.records import DIRECTIONS
from sftrl_ext.runs.stats import Change


def _change(value: Change | None) -> dict[str, Any] | None:
    if value is None:
        return None
    test: dict[str, Any] = {} if value.method == "unpaired" else {"method": value.method}
    if value.p_value is not None:
        test["p_value"] = value.p_value
    return {"points": 100 * value.delta, "se": 100 * value.se, "direction": value.direction, **test}


def _finding(value: Finding) -> dict[str, Any]:
    return {
        "arm": value.key[0],
        "lr": value.key[1],
        "steps": list(value.steps),
        "ood_change": _change(value.ood_change),
        "id_change": _change(value.id_change),
    }


def _verdict(value: Comparison | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {
        "pattern": value.pattern,
        "headline": value.headline,
        "split": value.split,
        "rl_minus_sft": _change(value.difference),
        "findings": [_finding(finding) for finding in value.findings],
    }


def _equal_id(entry: EqualSuccess) -> dict[str, Any]:
    """Two curves at equal ID success, or the reason why they have none in common."""
    curves: list[dict[str, Any]] = [{"arm": arm, "lr": lr} for arm, lr in entry.keys]
    for curve, arrival in zip(curves, entry.arrivals, strict=False):
        ood = arrival.ood
        curve |= {"step": round(arrival.step, 1), "percent": 100 * ood.p, "se": 100 * ood.se}
    if entry.level is None:
        return {"split": entry.split, "curves": curves, "absent": entry.absent}
    difference = _change(entry.difference)
    return {
        "split": entry.split,
        "id_percent": 100 * entry.level,
        "curves": curves,
        "second_minus_first": difference,
    }


def _axes(analysis: Analysis) -> dict[str, Any]:
    """The headline axis, the paper's formula or the reason why it is left out, and the verdicts that flip."""
    compared = [verdict.between_axes for verdict in analysis.verdicts if verdict.between_axes is not None]
    return {
        "headline": analysis.equal.axis or None,
        "paper_formula_absent": analysis.curves.paper_absent,
        "rl_tokens": analysis.run.recipe.rl_tokens,
        "flips": [comparison.split for comparison in compared if comparison.flips],
        "comparisons": [
            asdict(comparison) | {"differences": list(comparison.differences)} for comparison in compared
        ],
    }


def _of_pictures(row: Row, split: str) -> dict[str, Any]:
    """Recognition and correctness of first responses to pictures; empty for text."""
    if row.measure(split, "recognition") is None:
        return {}
    names = {
        "recognized": "recognition",
        "numbers_right": "numbers",
        "first_correct": "first",
        "first_correct_if_recognized": "first_if_read",
    }
    measures = {name: row.measure(split, metric) for name, metric in names.items()}
    return {n: {"percent": 100 * m.p, "se": 100 * m.se} if m else None for n, m in measures.items()}


def _of_routes(analysis: Analysis, row: Row, split: str) -> dict[str, Any]:
    """Success of whole routes, where the percentage of a line is of responses; empty elsewhere."""
    routes = row.measure(split, "success") if analysis.metric == "steps" else None
    if routes is None:
        return {}
    return {"routes": {"percent": 100 * routes.p, "se": 100 * routes.se, "episodes": routes.episodes}}


def _of_samples(row: Row, split: str) -> dict[str, Any]:
    """pass@k and distinct solutions, where instances were sampled several times; empty elsewhere."""
    ks = ks_of(samples_of(row.checkpoints, split))
    measures = {k: measure for k in ks if (measure := pass_at_k(row.checkpoints, split, k))}
    if not measures:
        return {}
    numbers: dict[str, Any] = {
        "pass_at_k": {str(k): {"percent": 100 * m.p, "se": 100 * m.se} for k, m in measures.items()}
    }
    if (distinct := distinct_solutions(row.checkpoints, split)) is not None:
        numbers["distinct_solutions"] = asdict(distinct)
    return numbers


def _of_divergence(row: Row, split: str) -> dict[str, Any]:
    """Nats per token from the start, on the line of the split they were measured on; empty elsewhere."""
    records = [c.results[split] for c in row.checkpoints if split in c.results]
    if not any(record.divergence and not record.divergence.absent for record in records):
        return {}
    estimates = {direction: divergence_over_seeds(row.checkpoints, direction) for direction in DIRECTIONS}
    return {"divergence": {name: {"nats": kl.nats, "se": kl.se} for name, kl in estimates.items() if kl}}


def _correlation(value: Correlation) -> dict[str, Any]:
    return {
        "split": value.split,
        "arm": value.arm,
        "checkpoints": value.checkpoints,
        "spearman": value.values,
    }


def _reading(value: RecognitionChange) -> dict[str, Any]:
    changes = {
        "success": value.success,
        "recognized": value.read,
        "numbers_right": value.numbers,
        "first_correct": value.first,
        "first_correct_if_recognized": value.first_if_read,
    }
    measured = {name: _change(measure.change) if measure else None for name, measure in changes.items()}
    return {"arm": value.arm, "split": value.split, "change": measured, "reason": value.reason}


def _rows(analysis: Analysis, rows: Iterable[Row]) -> list[dict[str, Any]]:
    lines = []
    for row in rows:
        costs = {axis: row.cost(axis) for axis in AXES}
        for split in analysis.curves.splits:
            measure = row.measure(split)
            if measure is not None:
                line: dict[str, Any] = {
                    "arm": row.arm, "lr": row.lr, "seeds": [c.seed for c in row.checkpoints],
                    "steps": [c.step for c in row.checkpoints], "split": split, "percent": 100 * measure.p,
                    "se": 100 * measure.se, "episodes": measure.episodes, "flops_counted": costs["counted"],
                    "flops_paper": costs["paper"], "tokens": costs["tokens"],
                }  # fmt: skip
                if analysis.metric == "steps":
                    line["se_unit"] = "response" if measure.per_response else "route"
                routes = _of_routes(analysis, row, split)
                further = _of_pictures(row, split) | _of_samples(row, split) | _of_divergence(row, split)
                lines.append(line | routes | further)
    return lines


def summarize(analysis: Analysis) -> dict[str, Any]:
    """Everything a report says in numbers; percent, FLOPs, tokens, seconds and MB."""
    state = analysis.run.state
    further: dict[str, Any] = {}
    if len(analysis.verdicts) > 1:
        further["verdicts"] = [_verdict(entry.verdict) for entry in analysis.verdicts]
        further["verdicts_by_paper_formula"] = [_verdict(entry.other_axis) for entry in analysis.verdicts]
    if analysis.metric == "steps":
        further["measure"] = "per-step accuracy; `episodes` of a line counts responses"
    if forgetting := correlations(analysis):
        further["divergence_and_change"] = [_correlation(entry) for entry in forgetting]
    if analysis.recognition_changes:
        further["reading"] = [_reading(reading) for reading in analysis.recognition_changes]
    return {
        "recipe": state.recipe,
        "scale": state.scale,
        "commit": state.commit or None,
        "model": {key: value for key, value in asdict(state.model).items() if value},
        "hardware": state.hardware,
        "verdict": _verdict(analysis.verdict),
        "verdict_by_paper_formula": _verdict(analysis.verdicts[0].other_axis),
        "compute_axes": _axes(analysis),
        **further,
        **({"synthetic_cities": True} if analysis.synthetic else {}),
        **({"by_city": lines} if (lines := city_lines(analysis)) else {}),
        "fairness": [
            {"setting": line.name, "arms": line.values, "differs": line.differs}
            for line in fairness_card(analysis)
        ],
        "equal_compute": {"axis": analysis.equal.axis or None, "budget": analysis.equal.budget},
        "equal_id_success": [_equal_id(entry) for entry in at_equal_id(analysis)],
        "compared": _rows(analysis, compared_rows(analysis)),
        "checkpoints": _rows(analysis, all_rows(analysis)),
        "paper": [asdict(entry) | {"values": dict(entry.values)} for entry in analysis.expected],
        "stages": [
            {
                "name": s.name, "kind": s.kind, "arm": s.arm, "seed": s.seed or 0, "lr": s.lr,
                "status": s.status, "wall_s": s.wall_s, "peak_rss_mb": s.peak_rss_mb,
            }
            for s in analysis.run.stages
        ],
        "notes": analysis.notes,
    }  # fmt: skip

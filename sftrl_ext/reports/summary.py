"""The numbers of a report as JSON, for other programs and for results files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from sftrl_ext.reports.analysis.curves import mean_cost, pooled, pooled_divergence
from sftrl_ext.reports.analysis.forgetting import Correlation, correlations
from sftrl_ext.reports.analysis.recognition import Reading
from sftrl_ext.reports.analysis.run_analysis import Analysis
from sftrl_ext.reports.analysis.verdict import Finding, Verdict
from sftrl_ext.reports.pages.cities import city_lines
from sftrl_ext.reports.pages.tables import Row, all_rows, compared_rows
from sftrl_ext.runs.compute import AXES
from sftrl_ext.runs.records import DIRECTIONS
from sftrl_ext.runs.stats import Change


def _change(value: Change | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {"points": 100 * value.delta, "se": 100 * value.se, "direction": value.direction}


def _finding(value: Finding) -> dict[str, Any]:
    return {
        "arm": value.key[0],
        "lr": value.key[1],
        "steps": list(value.steps),
        "ood_change": _change(value.ood_change),
        "id_change": _change(value.id_change),
    }


def _verdict(value: Verdict | None) -> dict[str, Any] | None:
    if value is None:
        return None
    return {
        "pattern": value.pattern,
        "headline": value.headline,
        "split": value.split,
        "rl_minus_sft": _change(value.difference),
        "findings": [_finding(finding) for finding in value.findings],
    }


def _axes(found: Analysis) -> dict[str, Any]:
    """The headline axis, the paper's formula or the reason why it is left out, and the verdicts that flip."""
    compared = [one.comparison for one in found.judged if one.comparison is not None]
    return {
        "headline": found.equal.axis or None,
        "paper_formula_absent": found.curves.paper_absent,
        "rl_tokens": found.run.recipe.rl_tokens,
        "flips": [one.split for one in compared if one.flips],
        "comparisons": [asdict(one) | {"differences": list(one.differences)} for one in compared],
    }


def _of_pictures(row: Row, split: str) -> dict[str, Any]:
    """What first responses made of pictures; empty for text."""
    if pooled(row.checkpoints, split, "recognition") is None:
        return {}
    names = {
        "recognized": "recognition",
        "numbers_right": "numbers",
        "first_correct": "first",
        "first_correct_if_recognized": "first_if_read",
    }
    measures = {name: pooled(row.checkpoints, split, metric) for name, metric in names.items()}
    return {n: {"percent": 100 * m.p, "se": 100 * m.se} if m else None for n, m in measures.items()}


def _of_routes(found: Analysis, row: Row, split: str) -> dict[str, Any]:
    """Success of whole routes, where the percentage of a line is of responses; empty elsewhere."""
    whole = pooled(row.checkpoints, split, "success") if found.metric == "steps" else None
    if whole is None:
        return {}
    return {"routes": {"percent": 100 * whole.p, "se": 100 * whole.se, "episodes": whole.episodes}}


def _of_divergence(row: Row, split: str) -> dict[str, Any]:
    """Nats per token from the start, on the line of the split they were measured on; empty elsewhere."""
    records = [c.results[split] for c in row.checkpoints if split in c.results]
    if not any(record.divergence and not record.divergence.absent for record in records):
        return {}
    pooled = {direction: pooled_divergence(row.checkpoints, direction) for direction in DIRECTIONS}
    return {"divergence": {name: {"nats": kl.nats, "se": kl.se} for name, kl in pooled.items() if kl}}


def _correlation(value: Correlation) -> dict[str, Any]:
    return {
        "split": value.split,
        "arm": value.arm,
        "checkpoints": value.checkpoints,
        "spearman": value.values,
    }


def _reading(value: Reading) -> dict[str, Any]:
    changes = {
        "success": value.success,
        "recognized": value.read,
        "numbers_right": value.numbers,
        "first_correct": value.first,
        "first_correct_if_recognized": value.first_if_read,
    }
    told = {name: _change(one.change) if one else None for name, one in changes.items()}
    return {"arm": value.arm, "split": value.split, "change": told, "reason": value.reason}


def _rows(found: Analysis, rows: Iterable[Row]) -> list[dict[str, Any]]:
    lines = []
    for row in rows:
        costs = {axis: mean_cost(row.checkpoints, axis) for axis in AXES}
        for split in found.curves.splits:
            measure = pooled(row.checkpoints, split)
            if measure is not None:
                line: dict[str, Any] = {
                    "arm": row.arm, "lr": row.lr, "seeds": [c.seed for c in row.checkpoints],
                    "steps": [c.step for c in row.checkpoints], "split": split, "percent": 100 * measure.p,
                    "se": 100 * measure.se, "episodes": measure.episodes, "flops_counted": costs["counted"],
                    "flops_paper": costs["paper"], "tokens": costs["tokens"],
                }  # fmt: skip
                if found.metric == "steps":
                    line["se_unit"] = "response" if measure.per_response else "route"
                routes = _of_routes(found, row, split)
                lines.append(line | routes | _of_pictures(row, split) | _of_divergence(row, split))
    return lines


def summarize(found: Analysis) -> dict[str, Any]:
    """Everything a report says in numbers; percent, FLOPs, tokens, seconds and MB."""
    state = found.run.state
    further: dict[str, Any] = {}
    if len(found.judged) > 1:
        further["verdicts"] = [_verdict(one.verdict) for one in found.judged]
        further["verdicts_by_paper_formula"] = [_verdict(one.other_axis) for one in found.judged]
    if found.metric == "steps":
        further["measure"] = "per-step accuracy; `episodes` of a line counts responses"
    if forgetting := correlations(found):
        further["divergence_and_change"] = [_correlation(one) for one in forgetting]
    if found.readings:
        further["reading"] = [_reading(reading) for reading in found.readings]
    return {
        "recipe": state.recipe,
        "scale": state.scale,
        "commit": state.commit or None,
        "model": {key: value for key, value in asdict(state.model).items() if value},
        "hardware": state.hardware,
        "verdict": _verdict(found.verdict),
        "verdict_by_paper_formula": _verdict(found.judged[0].other_axis),
        "compute_axes": _axes(found),
        **further,
        **({"synthetic_cities": True} if found.synthetic else {}),
        **({"by_city": lines} if (lines := city_lines(found)) else {}),
        "equal_compute": {"axis": found.equal.axis or None, "budget": found.equal.budget},
        "compared": _rows(found, compared_rows(found)),
        "checkpoints": _rows(found, all_rows(found)),
        "paper": [asdict(entry) | {"values": dict(entry.values)} for entry in found.expected],
        "stages": [
            {
                "name": s.name, "kind": s.kind, "arm": s.arm, "seed": s.seed or 0, "lr": s.lr,
                "status": s.status, "wall_s": s.wall_s, "peak_rss_mb": s.peak_rss_mb,
            }
            for s in found.run.stages
        ],
        "notes": found.notes,
    }  # fmt: skip

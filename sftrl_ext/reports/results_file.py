"""A results file: what a finished run measured, small enough to be kept beside the code.

``results/<recipe>-<scale>.json`` of this repository are such files; the table of recipes is made from them.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import write_json
from sftrl_ext.reports.analysis import Analysis, analyse
from sftrl_ext.reports.summary import summarize
from sftrl_ext.runs.machine import hardware_line

FURTHER = ("recognized", "routes")
"""Second measures of a line of the summary: recognition of pictures, whole routes."""


def write_results(run_dir: Path, folder: Path) -> Path:
    """Write the results file of a run.

    Costs by the paper's formula count D_RL in every epoch, whatever the recipe, as every results file does.

    Args:
        run_dir: A run folder with evaluated checkpoints.
        folder: Where the file goes; one of the same recipe and scale is replaced.

    Raises:
        SftrlError: if the run has no evaluated arm.
    """
    found = analyse(Path(run_dir), rl_tokens="per_epoch")
    told = results_of(found)
    path = Path(folder) / f"{told['recipe']}-{told['scale']}.json"
    write_json(path, told)
    return path


def results_of(found: Analysis) -> dict[str, Any]:
    """What a run measured, in percent with standard errors.

    Raises:
        SftrlError: if the run has no evaluated arm.
    """
    summary = summarize(found)
    if not summary["compared"]:
        raise SftrlError(f"{found.run.folder}: no evaluated checkpoint of an arm; evaluate the run first.")
    recipe = found.run.recipe
    equal = summary["equal_compute"]["budget"]
    seeds = max(len(line["seeds"]) for line in summary["compared"])
    axis = {"counted": " (counted tokens)", "paper": " (paper's formula)"}
    at = f", at the largest compute every arm reached: {equal / 1e12:.3g} TFLOP" if equal else ""
    at += axis.get(summary["equal_compute"]["axis"], "") if equal else ""
    arms = found.arms
    kinds: dict[str, dict[str, str]] = {arm: {"kind": arms.kind(arm)} for arm in found.curves.arm_names()}
    for arm, named in kinds.items():
        named |= {"title": arms.titles[arm]} if arm in arms.titles else {}
    return {
        "recipe": summary["recipe"],
        "scale": summary["scale"],
        "task": found.task,
        "arms": kinds,
        "date": datetime.date.fromtimestamp((found.run.folder / "state.json").stat().st_mtime).isoformat(),
        "commit": str(summary["commit"] or "unknown")[:7],
        "hardware": hardware_line(summary["hardware"]),
        "model": summary["model"],
        "measure": str(summary.get("measure", "success per episode")).partition(";")[0],
        "max_attempts": recipe.task.get("max_attempts"),
        "temperature": recipe.budget.eval.temperature,
        "paper_formula_absent": found.curves.paper_absent,
        **({"synthetic_cities": True} if found.synthetic else {}),
        "measurements": [
            {
                "name": "compared",
                "what": f"{seeds} seed{'s' if seeds > 1 else ''}{at}",
                "rows": _rows(summary["compared"]),
            },
            {"name": "checkpoints", "what": "every evaluated one", "rows": _rows(summary["checkpoints"])},
        ],
        "stages": {
            stage["name"]: {"wall_s": stage["wall_s"], "peak_rss_mb": stage["peak_rss_mb"]}
            for stage in summary["stages"]
        },
    }


def _rows(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each arm, rate and step, with a number for each split."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in lines:
        key = (line["arm"], line["lr"], *line["steps"])
        row = rows.setdefault(
            key,
            {
                "arm": line["arm"],
                "lr": line["lr"],
                "seeds": len(line["seeds"]),
                "step": line["steps"][0],
                "tflop_counted": _tflop(line["flops_counted"]),
                "tflop_paper": _tflop(line["flops_paper"]),
                "percent": {},
                "se": {},
            },
        )
        row["percent"][line["split"]] = _short(line["percent"])
        row["se"][line["split"]] = _short(line["se"])
        if "se_unit" in line:
            row["se_unit"] = line["se_unit"]
        for name in FURTHER:
            if line.get(name):
                row.setdefault(name, {"percent": {}, "se": {}})
                for part in ("percent", "se"):
                    row[name][part][line["split"]] = _short(line[name][part])
        if "divergence" in line:
            row["divergence"] = {
                direction: {part: value and _short(value, 5) for part, value in one.items()}
                for direction, one in line["divergence"].items()
            }
    return list(rows.values())


def _tflop(flops: float | None) -> float | None:
    return None if flops is None else _short(flops / 1e12, 2)


def _short(value: float, digits: int = 1) -> float:
    return round(value, digits)

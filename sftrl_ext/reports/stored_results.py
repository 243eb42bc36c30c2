"""Verdicts and figures again from a results file, without the run folder it was written from.

A results file holds one line for each evaluated checkpoint: percent and standard error over all seeds, and
compute. Files of earlier versions have compute by the paper's formula only. Their ``compute`` block names
the passes of each arm, from which the counted compute of a checkpoint follows: with D tokens of the sequences
trained on, each once, the formula gives N D epochs (6 + 2 lambda), and the counts are

    N D (6 epochs + 2 forward + 2)

for an arm that rolls out, where the last 2 is the rollout, which reads or writes every token of a sequence
once, and N D epochs (6 + 2 forward) for one that does not.

``python -m sftrl_ext.reports.stored_results results/*.json [--figures FOLDER] [--write]``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_json, write_json
from sftrl_ext.reports.analysis import Analysis, Judged
from sftrl_ext.reports.arms import arms_of
from sftrl_ext.reports.axis_flips import AxisComparison, compare_axes
from sftrl_ext.reports.curves import Checkpoint, Curve, Curves, at_equal_compute
from sftrl_ext.reports.splits import is_ood, split_order
from sftrl_ext.reports.verdict import headline_curves, judge, main_splits, shown_curves
from sftrl_ext.runs.compute import PAPER_EPOCHS, Cost
from sftrl_ext.runs.recipe import StoredArm, StoredRecipe
from sftrl_ext.runs.run_folder import RunFolder
from sftrl_ext.runs.state import RunState, StageState
from sftrl_ext.runs.stats import Measure

TERA = 1e12


@dataclass(frozen=True)
class ArmPasses:
    """Passes of an arm without a critic over its sequences.

    Attributes:
        kind: ``sft`` or ``rl``.
        forward: Forward-only passes of the policy's size.
        epochs: Epochs over each of RL's buffers.
    """

    kind: str
    forward: int = 0
    epochs: int = 1

    def counted_of_paper(self, ratio: float) -> float:
        """Counted compute over that of the paper's formula, with its lambda as ``ratio``."""
        if self.kind == "sft":
            return (6.0 + 2.0 * self.forward) / 6.0
        return (6.0 * self.epochs + 2.0 * self.forward + 2.0) / (self.epochs * (6.0 + 2.0 * ratio))


@dataclass(frozen=True)
class StoredResults:
    """A results file with what is needed to compare its arms.

    Attributes:
        path: The file.
        content: What it holds.
        passes: Arm to its passes; empty where every line stores its counted compute.
        ratio: lambda of the paper's formula.
    """

    path: Path
    content: Mapping[str, Any]
    passes: Mapping[str, ArmPasses]
    ratio: float

    @property
    def rows(self) -> list[Mapping[str, Any]]:
        """One line for each evaluated checkpoint."""
        named = (m for m in self.content["measurements"] if m["name"] == "checkpoints")
        return list(next(named, {"rows": []})["rows"])

    def counted(self, row: Mapping[str, Any]) -> float | None:
        """Counted compute of a line in TFLOP; None if it is neither stored nor follows from what is."""
        start = next((r["tflop_paper"] for r in self.rows if r["arm"] == "init"), None)
        passes = self.passes.get(row["arm"])
        if passes is None:
            stored = row.get("tflop_counted")
            # The init and the base are trained without any further pass.
            return row.get("tflop_paper") if stored is None and row["arm"] in ("init", "base") else stored
        if start is None or row.get("tflop_paper") is None:
            return None
        return float(start + (row["tflop_paper"] - start) * passes.counted_of_paper(self.ratio))


def load_results(path: Path) -> StoredResults:
    """Read a results file.

    Raises:
        SftrlError: if it has no line for each checkpoint, or no compute for them.
    """
    content = read_json(path)
    if not isinstance(content, dict) or "measurements" not in content:
        raise SftrlError(f"{path}: no measurements; expected a results file of a run.")
    block = content.get("compute", {})
    kinds = {arm: named["kind"] for arm, named in content.get("arms", {}).items()}
    passes = {arm: ArmPasses(kinds[arm], **named) for arm, named in block.get("passes", {}).items()}
    results = StoredResults(Path(path), content, passes, float(block.get("paper_ratio", 0.0)))
    if not results.rows:
        raise SftrlError(f"{path}: no measurement 'checkpoints', so its arms cannot be compared again.")
    missing = sorted({row["arm"] for row in results.rows if results.counted(row) is None})
    if missing:
        raise SftrlError(
            f"{path}: arm {missing[0]!r} has no tflop_counted, and compute.passes does not name it; "
            "expected one of the two."
        )
    return results


def analyse_results(results: StoredResults) -> Analysis:
    """Work out verdicts and everything figures need from a results file."""
    curves = _curves(results)
    run = _run(results)
    arms = arms_of(run)
    equal = at_equal_compute(curves, "counted")
    picked = headline_curves(curves, equal)
    judged = [
        Judged(split, judge(arms, curves, equal, picked, split), None)
        for split in main_splits(curves.splits, [])
    ]
    return Analysis(
        run=run,
        curves=curves,
        expected=[],
        axes=["counted"],
        equal=equal,
        picked=picked,
        shown=shown_curves(arms, curves, equal, picked),
        judged=judged,
        readings=[],
        notes=list(equal.notes),
    )


def comparisons(found: Analysis) -> list[AxisComparison]:
    """Every out-of-distribution split at equal counted compute and as published by the paper's formula."""
    curves, arms = found.curves, found.arms
    paper = at_equal_compute(curves, "paper")
    compared = []
    for split in (split for split in curves.splits if is_ood(split)):
        verdicts = (judge(arms, curves, equal, found.picked, split) for equal in (found.equal, paper))
        compared.append(compare_axes(*verdicts))
    return [one for one in compared if one is not None]


def _run(results: StoredResults) -> RunFolder:
    content = results.content
    arms = content.get("arms", {})
    stages = [StageState(name=arm, kind=named["kind"], arm=arm) for arm, named in arms.items()]
    state = RunState(content["recipe"], content["scale"], commit=str(content["commit"]), stages=stages)
    task = {"kind": "virl", "routes": {}} if content.get("synthetic_cities") else {}
    titles = {arm: StoredArm(named.get("title")) for arm, named in arms.items()}
    recipe = StoredRecipe(arms=titles, task=task)
    return RunFolder(results.path.parent, state, recipe, data_source=content.get("task", ""))


def _curves(results: StoredResults) -> Curves:
    steps = results.content.get("measure") == "per-step accuracy"
    by_arm: dict[tuple[str, float | None], list[Checkpoint]] = {}
    for row in results.rows:
        point = _checkpoint(row, results.counted(row), steps)
        by_arm.setdefault((row["arm"], row["lr"]), []).append(point)
    start, base = by_arm.pop(("init", None), []), by_arm.pop(("base", None), [])
    arms = [Curve(arm, lr, {0: points}, start[-1:]) for (arm, lr), points in by_arm.items()]
    splits = split_order(split for row in results.rows for split in row["percent"])
    path = Curve("init", None, {0: start}) if start else None
    return Curves(start[-1:], path, base, arms, splits, _paper_absent(results))


def _paper_absent(results: StoredResults) -> str | None:
    """The stored reason why the paper's formula does not apply, or the one that the passes of RL give."""
    if "paper_formula_absent" in results.content:
        return results.content["paper_formula_absent"]
    for name, passes in results.passes.items():
        if passes.kind == "rl" and passes.epochs != PAPER_EPOCHS:
            epochs = f"{PAPER_EPOCHS} epochs over each buffer, and arm `{name}` makes {passes.epochs}"
            return f"its lambda belongs to {epochs}"
    return None


def _checkpoint(row: Mapping[str, Any], counted: float | None, steps: bool) -> Checkpoint:
    measures: dict[tuple[str, str], Measure] = {}

    def put(names: Sequence[str], numbers: Mapping[str, Any], per_response: bool = False) -> None:
        for split, percent in numbers["percent"].items():
            measure = Measure(percent / 100, numbers["se"][split] / 100, row["seeds"], 0, per_response)
            measures.update({(name, split): measure for name in names})

    per_response = steps and row.get("se_unit") != "route"
    put(("main", "steps") if steps else ("main", "success"), row, per_response)
    if "routes" in row:
        put(("success",), row["routes"])
    if "recognized" in row:
        put(("recognition",), row["recognized"])
    paper = row.get("tflop_paper")
    cost = Cost(None if counted is None else TERA * counted, None if paper is None else TERA * paper, 0.0)
    return Checkpoint(row["arm"], row["lr"], 0, row["arm"], row["step"], cost, {}, measures)


def rewritten(results: StoredResults, found: Analysis) -> dict[str, Any]:
    """The file with counted compute on every line, and its arms compared on that axis.

    The comparison by the paper's formula stays under a name of its own.
    """
    content = dict(results.content)
    rows = []
    for row in results.rows:
        counted = results.counted(row)
        rows.append(_with_counted(row, counted))
    equal = found.equal
    chosen = {(c.arm, c.lr, c.step) for points in equal.chosen.values() for c in points}
    ends = {(c.arm, c.lr, c.step) for c in (*found.curves.start, *found.curves.base)}
    order = found.arms.order(row["arm"] for row in rows)
    compared = [row for row in rows if (row["arm"], row["lr"], row["step"]) in chosen | ends]
    compared.sort(key=lambda row: order.index(row["arm"]))
    seeds = max(row["seeds"] for row in compared)
    budget = f"{(equal.budget or 0.0) / TERA:.3g} TFLOP (counted tokens)"
    what = f"{seeds} seed{'s' if seeds > 1 else ''}, at the largest compute every arm reached: {budget}"
    others = []
    for measurement in content["measurements"]:
        if measurement["name"] == "compared" and "counted tokens" not in measurement["what"]:
            others.append({**measurement, "name": "compared by the paper's formula"})
        elif measurement["name"] == "checkpoints":
            others.append({**measurement, "rows": rows})
        elif measurement["name"] != "compared":
            others.append(measurement)
    content["measurements"] = [{"name": "compared", "what": what, "rows": compared}, *others]
    return content


def _with_counted(row: Mapping[str, Any], counted: float | None) -> dict[str, Any]:
    """A line with its counted compute before that of the formula."""
    made: dict[str, Any] = {}
    for key, value in row.items():
        if key == "tflop_paper":
            made["tflop_counted"] = None if counted is None else round(counted, 2)
        if key != "tflop_counted":
            made[key] = value
    return made


def draw_compute(found: Analysis, folder: Path) -> Path:
    """Draw the main measure against counted compute as ``<recipe>-<scale>-compute.png``."""
    from sftrl_ext.reports.figure_success import success_against_compute
    from sftrl_ext.reports.style import look, mark_figure, write_figure

    path = folder / f"{found.run.state.recipe}-{found.run.state.scale}-compute.png"
    with look():
        figure = success_against_compute(found, "counted")
        if figure is None:
            raise SftrlError(f"{found.run.folder}: no curve with a compute; nothing to draw.")
        if found.mark:
            mark_figure(figure, found.mark)
        write_figure(figure, path)
    return path


def report_lines(found: Analysis) -> list[str]:
    """Verdicts at equal counted compute, and what they were by the paper's formula."""
    lines = [f"# {found.name}"]
    for one in found.judged:
        lines += [one.verdict.headline, *(f"- {f.sentence}" for f in one.verdict.findings)]
    if found.curves.paper_absent:
        lines.append(f"The paper's formula does not apply: {found.curves.paper_absent}.")
    return [*lines, *(one.sentence for one in comparisons(found))]


def main(argv: Sequence[str] | None = None) -> int:
    """Compare the arms of results files at equal counted compute."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--figures", type=Path, help="draw the compute figure of each file into this folder")
    parser.add_argument("--write", action="store_true", help="store counted compute and the comparison")
    args = parser.parse_args(argv)
    try:
        for path in args.files:
            results = load_results(path)
            found = analyse_results(results)
            sys.stdout.write("\n".join(report_lines(found)) + "\n\n")
            if args.figures is not None:
                sys.stdout.write(f"{draw_compute(found, args.figures)}\n\n")
            if args.write:
                write_json(path, rewritten(results, found))
    except SftrlError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

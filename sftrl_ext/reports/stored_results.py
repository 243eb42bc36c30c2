"""Verdicts and figures again from a results file, without the run folder it was written from.

``python -m sftrl_ext.reports.stored_results results/*.json [--figures FOLDER]``
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sftrl_ext.errors import SftrlError
from sftrl_ext.plain_text import safe_name
from sftrl_ext.reports.analysis.arms import arms_of
from sftrl_ext.reports.analysis.axis_flips import AxisComparison, compare_axes
from sftrl_ext.reports.analysis.curves import Checkpoint, Curve, Curves, at_equal_compute
from sftrl_ext.reports.analysis.equal_id import equal_id_sentences
from sftrl_ext.reports.analysis.run_analysis import Analysis, SplitVerdict
from sftrl_ext.reports.analysis.splits import is_ood, split_order
from sftrl_ext.reports.analysis.verdict import ComparedArms, compare_arms, headline_curves, main_splits
from sftrl_ext.reports.results_file import ResultsFile, ResultsRow, SplitNumbers, read_results
from sftrl_ext.runs.compute import TERA, Cost
from sftrl_ext.runs.recipe import StoredArm, StoredRecipe
from sftrl_ext.runs.run_folder import RunFolder
from sftrl_ext.runs.state import RunState, StageState
from sftrl_ext.runs.stats import Change, Measure


def analyse_results(path: Path) -> Analysis:
    """Work out verdicts and everything figures need from a results file.

    Raises:
        SftrlError: if it is no results file with a row for each checkpoint.
    """
    results = read_results(path)
    curves, run = _curves(results), _run(path, results)
    arms = arms_of(run)
    equal = at_equal_compute(curves, "counted")
    picked = headline_curves(curves, equal)
    compared = ComparedArms(arms, curves, equal, picked)
    verdicts = [
        SplitVerdict(split, compare_arms(compared, split), None) for split in main_splits(curves.splits, [])
    ]
    return Analysis(
        run=run,
        curves=curves,
        expected=[],
        axes=["counted"],
        equal=equal,
        picked=picked,
        shown=compared.shown_curves(),
        verdicts=verdicts,
        recognition_changes=[],
        notes=list(equal.notes),
    )


def comparisons(analysis: Analysis) -> list[AxisComparison]:
    """Every out-of-distribution split at equal counted compute and as published by the paper's formula."""
    curves, arms = analysis.curves, analysis.arms
    paper = at_equal_compute(curves, "paper")
    compared = []
    for split in (split for split in curves.splits if is_ood(split)):
        verdicts = (
            compare_arms(ComparedArms(arms, curves, equal, analysis.picked), split)
            for equal in (analysis.equal, paper)
        )
        compared.append(compare_axes(*verdicts))
    return [comparison for comparison in compared if comparison is not None]


def _run(path: Path, results: ResultsFile) -> RunFolder:
    stages = [StageState(name, arm.kind, name) for name, arm in results.arms.items()]
    state = RunState(results.recipe, results.scale, commit=results.commit, stages=stages)
    task = {"synthetic": True} if results.synthetic_cities else {}
    titles = {name: StoredArm(arm.title) for name, arm in results.arms.items()}
    return RunFolder(path.parent, state, StoredRecipe(arms=titles, task=task), data_source=results.task)


def _curves(results: ResultsFile) -> Curves:
    by_steps = results.measure == "per-step accuracy"
    by_arm: dict[tuple[str, float | None], list[Checkpoint]] = {}
    for row in results.checkpoints:
        by_arm.setdefault((row.arm, row.lr), []).append(_checkpoint(row, by_steps))
    start, base = by_arm.pop(("init", None), []), by_arm.pop(("base", None), [])
    arms = [Curve(arm, lr, {0: points}, start[-1:]) for (arm, lr), points in by_arm.items()]
    splits = split_order(split for row in results.checkpoints for split in row.percent)
    path = Curve("init", None, {0: start}) if start else None
    return Curves(start[-1:], path, base, arms, splits, results.paper_formula_absent)


def _checkpoint(row: ResultsRow, by_steps: bool) -> Checkpoint:
    measures: dict[tuple[str, str], Measure] = {}

    def put(metrics: Sequence[str], numbers: SplitNumbers, per_response: bool = False) -> None:
        for split, percent in numbers.percent.items():
            # The file has the mean over seeds and its error: one checkpoint, under seed 0, stands for all of
            # them.
            measure = Measure(percent / 100, numbers.se[split] / 100, row.seeds, 0, per_response)
            measures.update({(metric, split): measure for metric in metrics})

    main = ("main", "steps") if by_steps else ("main", "success")
    put(main, SplitNumbers(row.percent, row.se), by_steps and row.se_unit != "route")
    for metric, numbers in (("success", row.routes), ("recognition", row.recognized)):
        if numbers is not None:
            put((metric,), numbers)
    counted, paper = (
        None if tflop is None else TERA * tflop for tflop in (row.tflop_counted, row.tflop_paper)
    )
    changes = {
        ((d.arm, d.lr, d.step), d.split): Change(d.points / 100, d.se / 100, d.method, d.p_value)
        for d in row.differences or ()
    }
    return Checkpoint(row.arm, row.lr, 0, row.arm, row.step, Cost(counted, paper, 0.0), {}, measures, changes)


def draw_figures(analysis: Analysis, folder: Path) -> list[Path]:
    """Draw success against counted compute, and out of distribution against in distribution where it can be.

    Returns:
        ``<recipe>-<scale>-compute.png`` and ``<recipe>-<scale>-ood-vs-id.png``, each with a ``-dark.png``
        for pages with a dark background.

    Raises:
        SftrlError: if the file has no curve with a compute.
    """
    from sftrl_ext.reports.figures.dark import darken
    from sftrl_ext.reports.figures.style import look, mark_figure, write_figure
    from sftrl_ext.reports.figures.success_figure import success_against_compute
    from sftrl_ext.reports.figures.tradeoff_figure import ood_against_id

    paths = []
    state = analysis.run.state
    folder.mkdir(parents=True, exist_ok=True)
    with look():
        figures = {
            "compute": success_against_compute(analysis, "counted"),
            "ood-vs-id": ood_against_id(analysis),
        }
        if figures["compute"] is None:
            raise SftrlError(f"{analysis.run.folder}: no curve with a compute; nothing to draw.")
        for name, figure in figures.items():
            if figure is not None:
                if analysis.mark:
                    mark_figure(figure, analysis.mark)
                stem = f"{safe_name(str(state.recipe))}-{safe_name(str(state.scale))}-{name}"
                light, dark = folder / f"{stem}.png", folder / f"{stem}-dark.png"
                write_figure(figure, light)
                figure.set_layout_engine("none")  # laid out once, for both files
                darken(figure)
                write_figure(figure, dark)
                paths += [light, dark]
    return paths


def report_lines(analysis: Analysis) -> list[str]:
    """Verdicts at equal counted compute, and their comparison with those by the paper's formula."""
    lines = [f"# {analysis.name}"]
    if (reason := analysis.no_claim) is not None:
        return [*lines, reason]
    for split_verdict in analysis.verdicts:
        lines += [
            split_verdict.verdict.headline,
            *(f"- {f.sentence}" for f in split_verdict.verdict.findings),
            *(f"- {text}" for text in equal_id_sentences(analysis, split_verdict.split or "")),
        ]
    if analysis.curves.paper_absent:
        lines.append(f"The paper's formula does not apply: {analysis.curves.paper_absent}.")
    return [*lines, *(comparison.sentence for comparison in comparisons(analysis))]


def main(argv: Sequence[str] | None = None) -> int:
    """Compare the arms of results files at equal counted compute."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--figures", type=Path, help="draw the figures of each file into this folder")
    args = parser.parse_args(argv)
    try:
        for path in args.files:
            analysis = analyse_results(path)
            sys.stdout.write("\n".join(report_lines(analysis)) + "\n\n")
            if args.figures is not None:
                sys.stdout.write("\n".join(map(str, draw_figures(analysis, args.figures))) + "\n\n")
    except SftrlError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

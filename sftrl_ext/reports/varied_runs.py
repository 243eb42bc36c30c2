"""Several runs of one recipe, in the order of the key that sets them apart.

Each run is read where its own arms are compared, at the most compute that all of them reached.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_yaml
from sftrl_ext.plain_text import one_line
from sftrl_ext.reports.analysis.arms import Arms
from sftrl_ext.reports.analysis.curves import Checkpoint, change_between, mean_over_seeds
from sftrl_ext.reports.analysis.run_analysis import Analysis, analyse
from sftrl_ext.runs.compute import readable
from sftrl_ext.runs.layout import RunLayout
from sftrl_ext.runs.stats import Change, Measure


@dataclass(frozen=True)
class VariedRun:
    """One run.

    Attributes:
        value: The key's value in its recipe.
        analysis: Its stored metrics.
        compared: The start and every arm, in the order of the recipe, to the checkpoints that are compared.
    """

    value: Any
    analysis: Analysis
    compared: Mapping[str, Sequence[Checkpoint]]

    def measure(self, arm: str, split: str) -> Measure | None:
        """Main measure of an arm; None if it was not evaluated."""
        return mean_over_seeds(self.compared.get(arm, ()), split)

    def change(self, arm: str, split: str) -> Change | None:
        """Difference of an arm from the start; None if either was not evaluated, and of the start itself."""
        start = self.compared.get(self.analysis.curves.start_arm, ())
        after = self.compared.get(arm, ())
        return change_between(after, start, split) if start and after and after is not start else None

    @property
    def compute(self) -> str:
        """Compute at which the arms are compared."""
        equal = self.analysis.equal
        return "" if equal.budget is None else readable(equal.budget, equal.axis)


@dataclass(frozen=True)
class VariedRuns:
    """Runs in the order of their values.

    Attributes:
        key: The recipe's key.
        arms: Names and colours of the arms.
    """

    key: str
    runs: Sequence[VariedRun]
    arms: Arms

    @property
    def splits(self) -> list[str]:
        """Splits that all runs were evaluated on."""
        first, *others = self.runs
        return [s for s in first.analysis.curves.splits if all(s in r.analysis.curves.splits for r in others)]

    @property
    def arm_names(self) -> list[str]:
        """The start, then the arms of any run."""
        return list(dict.fromkeys(arm for run in self.runs for arm in run.compared))

    @property
    def no_claim(self) -> str | None:
        """Reason why the numbers of a run support no claim; None where all do."""
        return next((run.analysis.no_claim for run in self.runs if run.analysis.no_claim), None)

    @property
    def caption(self) -> str:
        """Caption of figure and table, after the reason if the numbers support no claim."""
        text = (
            f"{self.runs[0].analysis.axis_label(self.runs[0].analysis.metric)} against {self.key}, one run "
            "for each value, each at the most compute that its own arms reached."
        )
        return text if self.no_claim is None else f"{self.no_claim}\n\n{text}"

    def numbers(self) -> dict[str, Any]:
        """The same for other programs; success in percent."""

        def of_arm(run: VariedRun, arm: str, split: str) -> dict[str, Any] | None:
            measure, moved = run.measure(arm, split), run.change(arm, split)
            if measure is None:
                return None
            numbers = {"percent": 100 * measure.p, "se": 100 * measure.se, "seeds": measure.seeds}
            change = {"change": 100 * moved.delta, "change_se": 100 * moved.se} if moved else {}
            return {**numbers, "episodes": measure.episodes, **change}

        runs = [
            {
                "value": run.value,
                "run": run.analysis.run.folder.name,
                "compute": run.analysis.equal.budget,
                "axis": run.analysis.equal.axis,
                "splits": {s: {arm: of_arm(run, arm, s) for arm in self.arm_names} for s in self.splits},
            }
            for run in self.runs
        ]
        return {"key": self.key, "runs": runs}


def value_text(value: Any) -> str:
    """A value of a recipe's key in few characters."""
    return f"{value:g}" if isinstance(value, float) else one_line(str(value))


def read_varied_runs(run_dirs: Sequence[Path], key: str) -> VariedRuns:
    """Read the stored metrics of runs and put them in the order of a key of their recipes.

    Args:
        run_dirs: The run folders; the arms of each must have been evaluated.
        key: A key of the recipe: ``task.exposure.rule_ood``.

    Raises:
        SftrlError: naming the run, if a recipe has no such key, two runs have the same value, or nothing was
            evaluated in one.
    """
    runs: list[VariedRun] = []
    for run_dir in run_dirs:
        value, path = _value_of(run_dir, key), RunLayout(run_dir).recipe
        if same := [run for run in runs if run.value == value]:
            raise SftrlError(
                f"{path}: {key}: {value_text(value)}, as in {same[0].analysis.run.folder}; expected a value "
                "for each run."
            )
        analysis = analyse(run_dir)
        if not analysis.curves.arms:
            raise SftrlError(f"{run_dir}: no arm has been evaluated; expected a run that has ended.")
        curves = analysis.curves
        chosen = {arm: analysis.equal.chosen[curve.key] for arm, curve in analysis.picked.items()}
        order = [curves.start_arm, *analysis.arms.order(chosen)]
        compared = {arm: curves.start if arm == curves.start_arm else chosen[arm] for arm in order}
        runs.append(VariedRun(value, analysis, compared))
    if len(runs) < 2:
        raise SftrlError(f"found {len(runs)} run to draw against {key}; expected two or more.")
    numeric = all(isinstance(run.value, (int, float)) for run in runs)
    runs.sort(key=lambda run: run.value if numeric else str(run.value))
    varied = VariedRuns(key, runs, runs[0].analysis.arms)
    if not varied.splits:
        raise SftrlError(f"{run_dirs[0]}: no split was evaluated in all {len(runs)} runs.")
    return varied


def _value_of(run_dir: Path, key: str) -> Any:
    path = RunLayout(run_dir).recipe
    value: Any = read_yaml(path)
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise SftrlError(f"{path}: {key}: there is no such key; expected one that all runs have.")
        value = value[part]
    return value

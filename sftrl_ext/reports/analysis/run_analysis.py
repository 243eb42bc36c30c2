"""Analysis of a run from its stored metrics, shared by figures, pages and the summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sftrl_ext.envs.task import task_of_source
from sftrl_ext.plain_text import one_line
from sftrl_ext.reports.analysis.arms import Arms, arms_of
from sftrl_ext.reports.analysis.axis_flips import AxisComparison, compare_axes
from sftrl_ext.reports.analysis.claims import WITHHELD, no_claim, withheld
from sftrl_ext.reports.analysis.curves import (
    Curve,
    Curves,
    EqualCompute,
    at_equal_compute,
    build_curves,
    mean_over_seeds,
)
from sftrl_ext.reports.analysis.recognition import RecognitionChange, has_recognition, recognition_changes
from sftrl_ext.reports.analysis.splits import (
    SYNTHETIC,
    Expected,
    expected_numbers,
    is_synthetic,
    lr_label,
    ood_kind,
    split_title,
    synthetic_note,
)
from sftrl_ext.reports.analysis.verdict import (
    ID_SPLIT,
    ComparedArms,
    Comparison,
    compare_arms,
    headline_curves,
    main_splits,
)
from sftrl_ext.runs.compute import AXES
from sftrl_ext.runs.run_folder import RunFolder, load_run

MEASURES = {"success": "Success", "steps": "Per-step accuracy"}
"""Main measure to its name in texts."""

_AXIS_LABELS = {"success": "Success per episode", "steps": "Right actions of all responses"}
"""Main measure to its label on an axis."""


@dataclass(frozen=True)
class SplitVerdict:
    """Comparison of the arms on the split that stands for one type of distribution shift.

    Attributes:
        split: The split; None if no such split was evaluated.
        verdict: The comparison at equal compute on the headline axis.
        other_axis: The comparison at equal compute by the paper's formula, where that applies.
    """

    split: str | None
    verdict: Comparison
    other_axis: Comparison | None

    @property
    def between_axes(self) -> AxisComparison | None:
        """The verdict on both compute axes; None without a second one, and where no verdict is given."""
        if self.other_axis is None or self.verdict.pattern == WITHHELD:
            return None
        return compare_axes(self.verdict, self.other_axis)

    def withheld(self, reason: str) -> SplitVerdict:
        """The numbers without a verdict, for a reason."""
        other = None if self.other_axis is None else withheld(self.other_axis, reason)
        return SplitVerdict(self.split, withheld(self.verdict, reason), other)


@dataclass
class Analysis:
    """Results of a run, as all parts of a report need them.

    Attributes:
        axes: The compute axes that are known for this run.
        equal: The compared checkpoints on the first known axis.
        picked: Arm to its headline curve.
        shown: The curves that get a bar.
        verdicts: One verdict per type of distribution shift that was evaluated, the main one first; if none
            was, one that says so.
        recognition_changes: Recognition of cards by every arm, on `id` and on the verdicts' splits; empty for
            text.
        notes: Remarks for the reader: missing parts, choices made.

    Where the numbers support no claim (`no_claim`) the verdicts hold the numbers and the reason.
    """

    run: RunFolder
    curves: Curves
    expected: list[Expected]
    axes: list[str]
    equal: EqualCompute
    picked: Mapping[str, Curve]
    shown: list[Curve]
    verdicts: list[SplitVerdict]
    recognition_changes: list[RecognitionChange]
    notes: list[str]

    def __post_init__(self) -> None:
        if (reason := self.no_claim) is not None:
            self.verdicts = [verdict.withheld(reason) for verdict in self.verdicts]

    @property
    def no_claim(self) -> str | None:
        """Reason why there is no verdict; None where the numbers may be compared."""
        return no_claim(self.run.state.scale, self.curves)

    @property
    def arms(self) -> Arms:
        """The arms: their kinds, names, order and colours."""
        return arms_of(self.run)

    @property
    def compared(self) -> ComparedArms:
        """The arms at equal compute on the headline axis."""
        return ComparedArms(self.arms, self.curves, self.equal, self.picked)

    @property
    def contest(self) -> str:
        """The compared models, as in a heading."""
        kinds = {self.arms.kind(arm) for arm in self.curves.arm_names()}
        start = "the base model" if self.curves.start_arm == "base" else "start"
        return f"SFT, {start} and RL" if {"sft", "rl"} <= kinds else f"{start[0].upper()}{start[1:]} and arms"

    @property
    def split(self) -> str | None:
        """The split of the main verdict."""
        return self.verdicts[0].split

    @property
    def verdict(self) -> Comparison:
        """The main verdict."""
        return self.verdicts[0].verdict

    @property
    def main_splits(self) -> list[str]:
        """The splits of all verdicts."""
        return [verdict.split for verdict in self.verdicts if verdict.split is not None]

    @property
    def metric(self) -> str:
        """The main measure, a name of `curves.METRICS`: "steps" on routes, else "success"."""
        return "steps" if self.curves.counts_steps else "success"

    @property
    def measure(self) -> str:
        """Name of the main measure in texts."""
        return MEASURES[self.metric]

    @property
    def per_response(self) -> bool:
        """True if errors of per-step accuracy take responses as independent, for lack of counts per route."""
        measures = (
            mean_over_seeds([checkpoint], split)
            for checkpoint in self.curves.checkpoints()
            for split in self.curves.splits
        )
        return any(measure is not None and measure.per_response for measure in measures)

    def axis_label(self, metric: str) -> str:
        """Label of the axis of a main measure, with what its error bars are."""
        error = "SE per response" if metric == "steps" and self.per_response else "SE"
        return f"{_AXIS_LABELS[metric]} (± {error})"

    def paper(self, metric: str) -> list[Expected]:
        """The paper's numbers for a measure: levels and bounds, not changes."""
        return [entry for entry in self.expected if entry.measures == metric and entry.says != "change"]

    def paper_changes(self) -> list[Expected]:
        """The paper's changes from the start, of the main measure."""
        return [entry for entry in self.expected if entry.measures == self.metric and entry.says == "change"]

    @property
    def recognizes(self) -> bool:
        """True if the records count recognized cards."""
        return has_recognition(self.curves)

    @property
    def task(self) -> str:
        """Name of the task: the first part of the data sources."""
        return self.run.data_source.partition("/")[0]

    def split_title(self, split: str) -> str:
        """A split in words for a panel's title."""
        return split_title(split, self.task)

    @property
    def mark(self) -> str:
        """Remark for figures that splits walk synthetic cities, naming them if not all do; else empty."""
        marked = [split for split in self.curves.splits if is_synthetic(self.run.recipe, split)]
        if not marked:
            return ""
        return SYNTHETIC if marked == self.curves.splits else f"{', '.join(marked)}: {SYNTHETIC}"

    @property
    def synthetic(self) -> bool:
        """True if a split walks synthetic cities."""
        return bool(self.mark)

    def column(self, name: str, split: str) -> str:
        """Heading of a table's column of a split, with a mark where the split walks synthetic cities."""
        return f"{name} ({SYNTHETIC})" if is_synthetic(self.run.recipe, split) else name

    @property
    def title(self) -> str:
        """Heading of the report: the recipe's title and the scale, else the run's name."""
        state = self.run.state
        heading = f"{state.title} (scale {state.scale})" if state.title else self.name
        return one_line(f"{heading}, {self.mark}" if self.synthetic else heading)

    @property
    def name(self) -> str:
        """Short name of the run: recipe and scale."""
        state = self.run.state
        return " at scale ".join(part for part in (state.recipe, state.scale) if part) or self.run.folder.name


def pretraining_note(run: RunFolder) -> str | None:
    """Returns the note for a run whose recipe pre-trained the model on both rules; None for others."""
    if not run.state.pretrained_on_both_rules:
        return None
    splits = [str(split) for split in run.recipe.task.get("pretrain_splits") or []]
    if any(ood_kind(split) == "visual" for split in splits):
        names = ", ".join(f"`{split}`" for split in splits)
        return (
            f"The base model of this run was trained by the recipe itself, on {names}. A gain or loss on "
            "these is therefore retention (or loss) of what was seen in pre-training, not a discovery."
        )
    return (
        "The base model of this run was trained by the recipe itself, on both rules. A gain or loss under "
        "the other rule is therefore retention (or loss) of a rule seen in pre-training, not the discovery "
        "of a new one."
    )


def held_out_note(run: RunFolder) -> str | None:
    """Returns the note for a run whose own base has not read some bindings of cards; None for others."""
    held_out = [str(entry) for entry in run.recipe.task.get("held_out") or []]
    if not held_out or not any(stage.arm == "base" for stage in run.stages):
        return None
    names = ", ".join(f"`{entry}`" for entry in held_out)
    shares = {split: share for split, share in (run.recipe.task.get("exposure") or {}).items() if share}
    if shares:
        exposed = ", ".join(f"`{split}` ({100 * share:g} %)" for split, share in shares.items())
        return (
            f"Of the rows of this run's pre-training only those of {exposed} state a binding that "
            f"`task.held_out` names ({names}): the data stage read every row back and counted them."
        )
    return (
        f"No row of this run's pre-training states a binding that `task.held_out` names ({names}): the data "
        "stage read every row back. What is gained or lost under these rules was not learnt in pre-training."
    )


def trained_look_note(run: RunFolder) -> str | None:
    """Returns the note for a run whose training shows the look of `visual_ood` already; None for others."""
    tested = {record.data_source for record in run.records}
    for task in filter(None, map(task_of_source, sorted(tested))):
        if f"{task.data_sources['image']}/visual_ood" in tested:
            return task.trained_look(run.recipe.task)
    return None


def _notes(run: RunFolder, compared: ComparedArms) -> list[str]:
    """Remarks of a report: origin of the data, missing parts, and the choices behind the verdicts."""
    arms, curves = compared.arms, compared.curves
    remarks = (pretraining_note(run), held_out_note(run), trained_look_note(run))
    first = (synthetic_note(run.recipe, curves.splits), *remarks)
    notes = [*filter(None, first), *run.notes, *compared.equal.notes]
    names = curves.arm_names()
    if run.records and len(names) < 2:
        only = arms.label(names[0]) if names else "the start"
        notes.append(f"Only {only} has been evaluated so far: no comparison of arms.")
    for arm in names:
        rates = curves.rates(arm)
        chosen = compared.picked.get(arm)
        if len(rates) > 1 and chosen is not None:
            used = f"{lr_label(chosen.lr)} (best in distribution)"
            text = f"{arms.label(arm)} ran at {len(rates)} learning rates; the verdict uses {used}"
            if len(rates) > compared.most_rates_shown():
                text += ", and so do the bars"
            notes.append(text + ".")
    for family in ("sft", "rl"):
        stands = compared.arm_standing_for(family)
        several = len(arms.of_kind(family, names)) > 1 and len({arms.kind(arm) for arm in names}) > 1
        if stands is not None and stands != family and several:
            notes.append(
                f"Several arms are {arms.label(family)}; the verdict is about the one that is best in "
                f"distribution: {arms.label(stands)}."
            )
    if curves.arms and all(len(c.seeds) == 1 for c in curves.arms):
        notes.append(
            "One seed per curve: the error bars hold the chance of the evaluation episodes, not the spread "
            "between training runs."
        )
    elif len({len(c.seeds) for c in curves.arms}) > 1 or any(
        len({len(group) for group in c.steps()}) > 1 for c in curves.arms
    ):
        notes.append(
            "Not every curve or step has the same number of seeds; each point pools the seeds it has."
        )
    return notes


def analyse(run_dir: Path, rl_tokens: str | None = None) -> Analysis:
    """Load a run folder and compute everything its report shows.

    Args:
        run_dir: The run folder.
        rl_tokens: Reading of the paper's D_RL; None takes the recipe's.

    Raises:
        SftrlError: if the folder is no run folder or a file in it is malformed.
    """
    run = load_run(run_dir)
    if rl_tokens is not None:
        run.recipe = replace(run.recipe, rl_tokens=rl_tokens)
    curves = build_curves(run)
    stated = expected_numbers(run.recipe)
    expected = [entry for entry in stated if not is_synthetic(run.recipe, entry.split)]
    axes = [axis for axis in AXES if curves.arms and any(c.reach(axis) is not None for c in curves.arms)]
    # An axis that is known for some curves only is drawn, but nothing is compared on it.
    usable = [axis for axis in axes if all(c.reach(axis) is not None for c in curves.arms)]
    equal = at_equal_compute(curves, usable[0] if usable else "counted")
    arms = arms_of(run)
    picked = headline_curves(curves, equal)
    compared = ComparedArms(arms, curves, equal, picked)
    main = main_splits(curves.splits, stated)
    by_paper = None
    if equal.axis == "counted" and "paper" in usable:
        by_paper = replace(compared, equal=at_equal_compute(curves, "paper"))
    verdicts = [
        SplitVerdict(
            split,
            compare_arms(compared, split),
            compare_arms(by_paper, split) if by_paper else None,
        )
        for split in (main or (None,))
    ]
    reported = [split for split in (ID_SPLIT, *main) if split in curves.splits]

    return Analysis(
        run=run,
        curves=curves,
        expected=expected,
        axes=axes,
        equal=equal,
        picked=picked,
        shown=compared.shown_curves(),
        verdicts=verdicts,
        recognition_changes=recognition_changes(compared, reported),
        notes=_notes(run, compared),
    )

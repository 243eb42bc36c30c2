"""What a report shows, worked out once from the stored metrics for figures, pages and the summary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sftrl_ext.reports.compute import AXES
from sftrl_ext.reports.curves import Curve, Curves, EqualCompute, at_equal_compute, build_curves
from sftrl_ext.reports.runfiles import RunMetrics, load_run
from sftrl_ext.reports.splits import Expected, arm_label, expected_numbers, lr_label
from sftrl_ext.reports.verdict import (
    MAX_RATES_SHOWN,
    Verdict,
    headline_curves,
    judge,
    main_split,
    shown_curves,
)


@dataclass
class Analysis:
    """A run, analysed.

    Attributes:
        axes: The compute axes that are known for this run.
        equal: The compared checkpoints on the first known axis.
        picked: Arm to its headline curve.
        shown: The curves that get a bar.
        other_axis: The same verdict at equal measured compute, if that axis is known too.
        notes: What a reader has to know: missing parts, choices made.
    """

    run: RunMetrics
    curves: Curves
    expected: list[Expected]
    axes: list[str]
    equal: EqualCompute
    picked: Mapping[str, Curve]
    shown: list[Curve]
    split: str | None
    verdict: Verdict
    other_axis: Verdict | None
    notes: list[str]

    @property
    def title(self) -> str:
        """Heading of the report: the recipe's title and the scale, else the run's name."""
        title, scale = self.run.state.get("title"), self.run.state.get("scale")
        return f"{title} (scale {scale})" if title else self.name

    @property
    def name(self) -> str:
        """Short name of the run: recipe and scale."""
        recipe, scale = self.run.state.get("recipe"), self.run.state.get("scale")
        return " at scale ".join(str(part) for part in (recipe, scale) if part) or self.run.folder.name


def pretraining_note(run: RunMetrics) -> str | None:
    """What has to be said where the recipe itself pre-trained the model on both rules; None elsewhere."""
    base: Any = run.recipe.get("base")
    model: Any = run.state.get("model")
    parts = (base, model, run.state)
    told = [part.get("pretrained_on_both_rules") for part in parts if isinstance(part, Mapping)]
    if not any(told):
        return None
    return (
        "The base model of this run was trained by the recipe itself, on both rules. A gain or loss under "
        "the other rule is therefore retention (or loss) of a rule seen in pre-training, not the discovery "
        "of a new one."
    )


def analyse(run_dir: Path) -> Analysis:
    """Load a run folder and work out everything its report shows.

    Raises:
        SftrlError: if the folder is no run folder or a file in it is malformed.
    """
    run = load_run(run_dir)
    curves = build_curves(run)
    expected = expected_numbers(run.recipe)
    axes = [axis for axis in AXES if curves.arms and any(c.reach(axis) is not None for c in curves.arms)]
    usable = [axis for axis in axes if all(c.reach(axis) is not None for c in curves.arms)]
    equal = at_equal_compute(curves, usable[0] if usable else "paper")
    picked = headline_curves(curves, equal, run.recipe)
    split = main_split(curves.splits, expected)
    verdict = judge(curves, equal, picked, split)
    other = None
    if equal.axis == "paper" and "measured" in usable:
        measured = at_equal_compute(curves, "measured")
        other = judge(curves, measured, picked, split)

    notes = [*run.notes, *equal.notes]
    names = curves.arm_names()
    if run.records and len(names) < 2:
        only = arm_label(names[0]) if names else "the start"
        notes.append(f"Only {only} has been evaluated so far: no comparison of arms.")
    for arm in names:
        rates = curves.rates(arm)
        chosen = picked.get(arm)
        if len(rates) > 1 and chosen is not None:
            text = (
                f"{arm_label(arm)} ran at {len(rates)} learning rates; the verdict uses {lr_label(chosen.lr)}"
            )
            stated = run.recipe.get("chosen_lr")
            how = "the recipe's" if isinstance(stated, Mapping) and arm in stated else "best in distribution"
            text += f" ({how})"
            if len(rates) > MAX_RATES_SHOWN:
                text += ", and so do the bars"
            notes.append(text + ".")
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
    if (said := pretraining_note(run)) is not None:
        notes.insert(0, said)
    return Analysis(
        run=run,
        curves=curves,
        expected=expected,
        axes=axes,
        equal=equal,
        picked=picked,
        shown=shown_curves(curves, equal, picked),
        split=split,
        verdict=verdict,
        other_axis=other,
        notes=notes,
    )

"""Runs whose numbers support no claim: a banner stands in place of their verdict."""

from __future__ import annotations

from dataclasses import replace

from sftrl_ext.reports.analysis.curves import Curves, mean_over_seeds
from sftrl_ext.reports.analysis.verdict import Comparison

WITHHELD = "none"
"""Pattern of a verdict that is not given."""


def no_claim(scale: str | None, curves: Curves) -> str | None:
    """Reason why a run has no verdict; None where its numbers may be compared.

    Args:
        scale: Scale of the run.
        curves: Its curves.
    """
    if scale == "smoke":
        return (
            "No verdict at scale smoke: every stage ran for a few steps, to test that it runs, and the "
            "numbers mean nothing."
        )
    measures = [
        measure.p
        for curve in curves.arms
        for checkpoints in curve.steps()
        for split in curves.splits
        if (measure := mean_over_seeds(checkpoints, split)) is not None
    ]
    if measures and not any(measures):
        what = "takes a single right action" if curves.counts_steps else "solves a single episode"
        return f"No verdict: no arm {what} on any split, so there is nothing to compare."
    return None


def withheld(verdict: Comparison, reason: str) -> Comparison:
    """The numbers of a verdict that is not given, with the reason as its headline."""
    return replace(verdict, pattern=WITHHELD, headline=reason)

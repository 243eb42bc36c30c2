"""Seconds of the steps of a finished RL stage, read from its metrics, for the scripts in this folder."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sftrl_ext.files import read_jsonl

MODEL = ("gen", "old_log_prob", "ref", "values", "update_critic", "update_actor")
"""verl's timers around model compute."""


def timed_steps(metrics: Path, skip: int = 1) -> list[Mapping[str, Any]]:
    """The metrics of every step that has timings, without the first ``skip``, which hold warm-up.

    Raises:
        SystemExit: if none is left.
    """
    steps = [line["data"] for line in read_jsonl(metrics)]
    steps = [data for data in steps if "timing_s/step" in data][skip:]
    if not steps:
        raise SystemExit(f"{metrics}: no more than {skip} steps with timings.")
    return steps


def median(steps: Sequence[Mapping[str, Any]], key: str) -> float:
    """Median of a metric; a step without it counts as zero."""
    return statistics.median(data.get(key, 0.0) for data in steps)


def phases(steps: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Median seconds of a step and of each of its phases of model compute."""
    return {
        "step_s": median(steps, "timing_s/step"),
        **{f"{name}_s": median(steps, f"timing_s/{name}") for name in MODEL},
    }

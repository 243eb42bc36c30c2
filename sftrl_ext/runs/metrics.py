"""Metrics files of training stages: one per launch, followed while it runs, merged when the stage is done."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from sftrl_ext.files import jsonl, read_jsonl, write_text
from sftrl_ext.runs.typed_json import Count, read_records

_SHOWN = {
    "episode/solved": "solved {:.0%}",
    "train/loss": "loss {:.3g}",
    "turns/mean": "turns {:.3g}",
    "policy/kl_start_k3": "kl {:.3g}",
}
"""Metrics that progress shows."""


class Follower:
    """Reads a growing metrics file without reading it twice."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._step = 0
        self._text = ""

    def look(self) -> tuple[int, str]:
        """The last logged step, and a few of its numbers as text."""
        if self.path.is_file():
            with self.path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    # Still being written: the offset stays before it, and the next look reads it whole.
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    entry = json.loads(line)
                    self._step = max(self._step, int(entry["step"]))
                    numbers = [
                        text.format(entry["data"][key]).replace("%", " %")
                        for key, text in _SHOWN.items()
                        if isinstance(entry["data"].get(key), (int, float))
                    ]
                    self._text = ", ".join(numbers) or self._text
        return self._step, self._text


def merge_launches(folder: Path) -> None:
    """Write ``metrics.jsonl`` from the files of all launches; a step run twice counts as run last.

    A metric that verl's SFT trainer does not know it logs as a list over ranks: here that is their mean.
    """
    steps: dict[int, dict[str, Any]] = {}
    for path in _launches(folder):
        seen: set[int] = set()
        for entry in read_jsonl(path, torn_tail=True):
            step = int(entry["step"])
            # The first line of a step in a later launch discards the step of earlier launches; further lines
            # of the same launch add to it.
            if step not in seen:
                steps[step] = {}
                seen.add(step)
            steps[step].update({name: _number(value) for name, value in entry["data"].items()})
    write_text(folder / "metrics.jsonl", jsonl({"step": step, "data": steps[step]} for step in sorted(steps)))


def read_training(
    folder: Path, on_torn_tail: Callable[[Path], None] | None = None
) -> list[tuple[int, dict[str, float]]]:
    """Logged metrics of a stage by step; while there is no ``metrics.jsonl``, those of its launches.

    Args:
        folder: Folder of the stage.
        on_torn_tail: Called with a file whose last line a writer left incomplete.

    Raises:
        SftrlError: naming file, line and key, if a line is malformed.
    """
    merged_file = folder / "metrics.jsonl"
    merged: dict[int, dict[str, float]] = {}
    for path in [merged_file] if merged_file.is_file() else _launches(folder):
        torn = None if on_torn_tail is None else partial(on_torn_tail, path)
        for _, line in read_records(_MetricsLine, path, torn):
            numbers = {k: v for k, v in line.data.items() if isinstance(v, int | float)}
            # Neither infinite, nor a whole number beyond all floats.
            finite = {k: float(v) for k, v in numbers.items() if abs(v) <= sys.float_info.max}
            merged.setdefault(line.step, {}).update(finite)
    return sorted(merged.items())


@dataclass(frozen=True)
class _MetricsLine:
    step: Count
    data: dict[str, Any]


def _launches(folder: Path) -> list[Path]:
    """Files of the launches of a stage, in order."""
    return sorted(folder.glob("metrics-*.jsonl"), key=lambda path: int(re.findall(r"\d+", path.stem)[-1]))


def _number(value: Any) -> Any:
    numbers = isinstance(value, list) and value and all(isinstance(entry, int | float) for entry in value)
    return sum(value) / len(value) if numbers else value

"""The metrics files verl writes: one a launch, followed while it runs, merged when the stage is done."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from sftrl_ext.files import read_jsonl, write_text

_SHOWN = (
    ("train/loss", "loss"),
    ("episode/solved", "solved"),
    ("turns/mean", "turns"),
    ("policy/kl_start_k3", "kl"),
)


class Follower:
    """Reads a growing metrics file without reading it twice."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._step = 0
        self._words = ""

    def look(self) -> tuple[int, str]:
        """The last step logged and a few of its numbers in words."""
        if self.path.is_file():
            with self.path.open("rb") as file:
                file.seek(self._offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._offset += len(line)
                    entry = json.loads(line)
                    self._step = max(self._step, int(entry["step"]))
                    words = [
                        f"{name} {entry['data'][key]:.3g}"
                        for key, name in _SHOWN
                        if isinstance(entry["data"].get(key), (int, float))
                    ]
                    self._words = entry.get("text") or " ".join(words) or self._words
        return self._step, self._words


def merge_launches(folder: Path) -> None:
    """Write ``metrics.jsonl`` from the files of all launches; a step run twice counts as run last.

    A metric that verl's SFT trainer does not know it logs as a list over ranks: here that is their mean.
    """
    steps: dict[int, dict[str, Any]] = {}
    launches = sorted(folder.glob("metrics-*.jsonl"), key=lambda p: int(re.findall(r"\d+", p.stem)[-1]))
    for path in launches:
        seen: set[int] = set()
        for entry in read_jsonl(path, torn_tail=True):
            step = int(entry["step"])
            if step not in seen:
                steps[step] = {}
                seen.add(step)
            steps[step].update({name: _number(value) for name, value in entry["data"].items()})
    lines = [json.dumps({"step": step, "data": steps[step]}) for step in sorted(steps)]
    write_text(folder / "metrics.jsonl", "".join(line + "\n" for line in lines))


def _number(value: Any) -> Any:
    numbers = isinstance(value, list) and value and all(isinstance(one, int | float) for one in value)
    return sum(value) / len(value) if numbers else value

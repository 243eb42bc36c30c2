"""Saved steps of a training stage, and the model folder of each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

LATEST = "latest_checkpointed_iteration.txt"
"""The file in which verl names the newest checkpoint that is whole."""

_STEP = re.compile(r"global_step_(\d+)$")


@dataclass(frozen=True)
class Checkpoint:
    """One saved step of a stage.

    Attributes:
        step: Optimizer steps (SFT) or updates (RL) so far.
        folder: The Hugging Face folder (config, weights, tokenizer).
    """

    step: int
    folder: Path


def step_folder(checkpoints: Path, step: int) -> Path:
    """Folder in which verl saves a step."""
    return checkpoints / f"global_step_{step}"


def model_folder(step_dir: Path) -> Path:
    """Folder in which verl puts the Hugging Face model of a saved step, for SFT and for an RL actor."""
    actor = step_dir / "actor"
    return (actor if actor.is_dir() else step_dir) / "huggingface"


def latest_step(checkpoints: Path) -> int:
    """The newest whole checkpoint; 0 if there is none."""
    try:
        return int((checkpoints / LATEST).read_text().strip())
    except (FileNotFoundError, ValueError):
        return 0


def list_checkpoints(checkpoints: Path) -> list[Checkpoint]:
    """Every whole checkpoint of a stage, oldest first."""
    last = latest_step(checkpoints)
    checkpoints_on_disk = []
    for entry in checkpoints.glob("global_step_*"):
        match = _STEP.search(entry.name)
        if match and int(match.group(1)) <= last:
            checkpoints_on_disk.append(Checkpoint(int(match.group(1)), model_folder(entry)))
    return sorted(checkpoints_on_disk, key=lambda c: c.step)

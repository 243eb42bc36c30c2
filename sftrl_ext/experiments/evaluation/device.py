"""The device behind a GPU of the scale: the card, or the CPU where it stands for one."""

from __future__ import annotations

import os


def cpu_stands_for_gpus() -> bool:
    """True if verl's platform is set to the CPU, as a rehearsal of a GPU scale does."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def device_of(gpus: int) -> str:
    """Torch device of an engine that has so many GPUs of the scale."""
    return "cuda" if gpus and not cpu_stands_for_gpus() else "cpu"

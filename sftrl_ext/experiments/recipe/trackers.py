"""Trackers beside the console and the metrics file: verl's own and those of plug-ins, chosen by one option.

``--tracker tensorboard`` or ``trackers: [wandb]`` in a recipe. What they write goes into the run folder,
unless their own variables say otherwise; ``WANDB_MODE=offline`` keeps Weights & Biases from calling out.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from pathlib import Path

from sftrl_ext.errors import SftrlError, unknown_name
from sftrl_ext.training.plugin_trackers import PLUGIN_TRACKERS

TRACKERS = ("wandb", "tensorboard", "mlflow", "swanlab", "trackio")
"""Trackers verl knows, each named as the package it needs."""


def check_names(names: Sequence[str]) -> None:
    """Refuse a tracker that neither verl nor a plug-in knows.

    Raises:
        SftrlError: with the nearest known name.
    """
    for name in names:
        if name not in TRACKERS and name not in PLUGIN_TRACKERS:
            raise unknown_name("tracker", name, (*TRACKERS, *PLUGIN_TRACKERS))


def require_packages(names: Sequence[str]) -> None:
    """Refuse a tracker whose package is not installed: verl would stop at its first step.

    Raises:
        SftrlError: naming the packages.
    """
    missing = [name for name in names if name in TRACKERS and importlib.util.find_spec(name) is None]
    if missing:
        raise SftrlError(
            f"trackers: {', '.join(missing)} not installed in this environment; install "
            f"`{' '.join(missing)}`, or leave it out."
        )


def tracker_overrides(names: Sequence[str]) -> list[str]:
    """Overrides of a training command; none for console and file alone, which the configs have."""
    return [f"trainer.logger=[console,file,{','.join(names)}]"] if names else []


def tracker_env(names: Sequence[str], stage: Path, group: str) -> dict[str, str]:
    """Variables that send what trackers write into the run folder; those the user set stay.

    Args:
        names: The trackers.
        stage: Folder of the stage.
        group: What the stages of one run have in common.
    """
    places = {
        "wandb": {"WANDB_DIR": str(stage), "WANDB_RUN_GROUP": group},
        "tensorboard": {"TENSORBOARD_DIR": str(stage / "tensorboard")},
        "mlflow": {"MLFLOW_TRACKING_URI": f"sqlite:///{stage / 'mlflow.db'}"},
        "swanlab": {"SWANLAB_LOG_DIR": str(stage / "swanlab")},
        "trackio": {"TRACKIO_DIR": str(stage / "trackio")},
    }
    wanted = {key: value for name in names for key, value in places.get(name, {}).items()}
    return {key: value for key, value in wanted.items() if key not in os.environ}

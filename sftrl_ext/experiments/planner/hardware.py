"""Accelerators and hosts that the planner knows: memory, peak FLOP/s and bandwidths, with their sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sftrl_ext.errors import Registry, SftrlError

if TYPE_CHECKING:
    from sftrl_ext.experiments.recipe.schema import Recipe

GIB = 2**30
_MIB = 2**20


@dataclass(frozen=True)
class Hardware:
    """One accelerator and its share of the host.

    Attributes:
        name: Key of `HARDWARE`, the value of ``scale.hardware``.
        memory: Device memory in bytes, as ``nvidia-smi`` reports it; 0 where the host's memory is used.
        flops: Peak dense FLOP/s in the type that training computes in.
        bandwidth: Device memory bandwidth, bytes/s.
        interconnect: Bytes/s of one device to the others of its node, one direction.
        host_link: Bytes/s between device and host memory.
        host_memory: Host memory per device, bytes.
        disk_write: Bytes/s of a node to its disk.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    interconnect: float
    host_link: float
    host_memory: float
    disk_write: float = 2e9


HARDWARE: Registry[Hardware] = Registry("hardware")

# NVIDIA H100 SXM5 datasheet: 989 TFLOP/s bf16 dense, 3.35 TB/s, NVLink 900 GB/s both ways, PCIe gen 5.
# DGX H100 user guide: 2 TB of host memory for eight cards.
HARDWARE.add("H100-80GB", Hardware("H100-80GB", 81_559 * _MIB, 989e12, 3.35e12, 450e9, 50e9, 256e9))
# NVIDIA H200 SXM datasheet: 141 GB, 4.8 TB/s, otherwise as H100. DGX H200: 2 TB of host memory.
HARDWARE.add("H200", Hardware("H200", 143_771 * _MIB, 989e12, 4.8e12, 450e9, 50e9, 256e9))
# NVIDIA A100 80GB SXM datasheet: 312 TFLOP/s bf16 dense, 2.04 TB/s, NVLink 600 GB/s both ways, PCIe gen 4.
# DGX A100 640GB: 2 TB of host memory for eight cards.
HARDWARE.add("A100-80GB", Hardware("A100-80GB", 81_920 * _MIB, 312e12, 2.04e12, 300e9, 25e9, 256e9))
# One core of a server CPU in float32. 1.2e11: SmolLM2-sized and smaller Llamas train at 20,000 tokens/s and
# a million parameters; twelve channels of DDR5 shared by 64 cores.
HARDWARE.add("cpu", Hardware("cpu", 0, 1.2e11, 8e9, 4e9, 8e9, 0, 0.3e9))

DEFAULTS = {"gpu": "H100-80GB", "node": "H100-80GB", "cluster": "H100-80GB"}
"""Hardware of a scale whose ``scale.hardware`` is null; a CPU backend always has ``cpu``."""


def hardware_of(recipe: Recipe) -> Hardware:
    """Hardware of a recipe's scale.

    Raises:
        SftrlError: if ``scale.hardware`` names an unknown one, or one of another backend.
    """
    scale = recipe.scale
    name = scale.hardware or ("cpu" if scale.backend == "cpu" else DEFAULTS.get(scale.name, "H100-80GB"))
    hardware = HARDWARE[name]
    if (scale.backend == "cpu") != (name == "cpu"):
        names = "cpu" if scale.backend == "cpu" else ", ".join(key for key in HARDWARE if key != "cpu")
        raise SftrlError(
            f"scale.hardware: {name!r} with scale.backend={scale.backend}; expected one of: {names}."
        )
    return hardware


def host_memory(recipe: Recipe) -> float | None:
    """Bytes of host memory of one node: ``scale.host_memory_gb``, or the hardware's share of each device.

    Returns:
        None on a CPU where no size is configured: the machine that plans need not be the one that runs.
    """
    if recipe.scale.host_memory_gb is not None:
        return recipe.scale.host_memory_gb * 1e9
    return hardware_of(recipe).host_memory * recipe.scale.n_gpus_per_node or None

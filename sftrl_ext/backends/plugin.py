"""Entry point of the group ``verl.plugins``: ``import verl`` loads this module in every process.

It imports nothing heavy. It makes our trainer, agent loop, policy loss and rollout engine known to verl,
replaces its loader of critics (`sftrl_ext.training.value_model`), and changes how padded rows become
micro-batches (`sftrl_ext.training.padded_batches`). With ``VERL_PLATFORM=cpu`` it registers the CPU platform
and arranges for its patches.
"""

from __future__ import annotations

import os

from sftrl_ext.backends.hf_in_verl.registration import register_rollout
from sftrl_ext.training.register import register_with_verl


def register_cpu() -> None:
    """Register the platform ``cpu`` with verl and schedule the patches of a CPU run."""
    from verl.plugin.platform.platform_manager import PlatformRegistry

    from sftrl_ext.backends.cpu.patches import apply_when_imported
    from sftrl_ext.backends.cpu.platform import CpuPlatform
    from sftrl_ext.hf_folder import allow_no_torchvision

    PlatformRegistry.register(platform="cpu")(CpuPlatform)
    # The FSDP engines are filed under the device name "cuda"; they run on any device.
    os.environ.setdefault("VERL_ENGINE_DEVICE", "cuda")
    apply_when_imported()
    allow_no_torchvision()


register_with_verl()
register_rollout()
if os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu":
    register_cpu()

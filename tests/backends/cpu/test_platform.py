"""The CPU platform is there with VERL_PLATFORM=cpu, and verl is untouched without it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("verl")

REPORT = """
import verl
from verl.plugin.platform import PlatformRegistry
import verl.utils.distributed as distributed, verl.utils.model as model
import verl.workers.engine.fsdp.transformer_impl as fsdp
from verl.workers.rollout.base import _ROLLOUT_REGISTRY
from verl.workers.rollout.replica import RolloutReplicaRegistry
import os
print("platform", "cpu" in PlatformRegistry.registered_names())
print("group", "functools" in str(type(distributed.initialize_global_process_group_ray)))
print("critic", model.load_valuehead_model.__module__)
print("offload", fsdp.CPUOffloadPolicy.__module__)
print("worker", ("hf", "async") in _ROLLOUT_REGISTRY)
print("replica", "hf" in RolloutReplicaRegistry._registry)
print("engines", os.environ.get("VERL_ENGINE_DEVICE"))
"""


def report(**env: str) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("VERL_")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", REPORT],
        env={**clean, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return dict(line.split(maxsplit=1) for line in done.stdout.splitlines())


@pytest.mark.slow
def test_every_patch_is_applied_for_the_cpu():
    assert report(VERL_PLATFORM="cpu") == {
        "platform": "True",
        "group": "True",
        "critic": "sftrl_ext.training.value_model",
        "offload": "sftrl_ext.backends.cpu.patches",
        "worker": "True",
        "replica": "True",
        "engines": "cuda",
    }


@pytest.mark.slow
def test_no_patch_is_applied_otherwise():
    found = report(VERL_PLATFORM="nvidia")
    assert found["offload"].startswith("torch.")
    # What was wrong with the critic's loader was wrong on a GPU too.
    assert found["critic"] == "sftrl_ext.training.value_model"
    # The transformers engine can be chosen on any platform.
    assert found["worker"] == found["replica"] == "True"
    assert {found[key] for key in ("platform", "group")} == {"False"}
    assert found["engines"] == "None"


def test_another_verl_is_refused(monkeypatch):
    import importlib.metadata

    from sftrl_ext.backends.cpu.platform import CpuPlatform
    from sftrl_ext.errors import SftrlError

    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.10.0")
    with pytest.raises(SftrlError, match=r"verl 0\.9\.1.*verl 0\.10\.0"):
        CpuPlatform()


def test_the_platform_answers_everything_verl_asks():
    import torch

    from sftrl_ext.backends.cpu.platform import CpuPlatform

    platform = CpuPlatform()
    assert torch.ones(1).to(platform.current_device()).device.type == platform.device_name == "cpu"
    assert not platform.is_platform_available() and not platform.is_ipc_supported()
    module = platform.device_module
    calls = "synchronize empty_cache ipc_collect mem_get_info memory_allocated memory_reserved "
    calls += "max_memory_allocated max_memory_reserved current_stream"
    for name in calls.split():
        getattr(module, name)()
    assert module.is_available() and module.device_count() == 1 and module.get_device_name() == "cpu"
    module.set_device(0)
    module.set_rng_state(module.get_rng_state())
    assert platform.ray_resource_options(1) == {"num_gpus": 1}

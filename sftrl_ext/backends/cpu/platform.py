"""CPU as a verl platform: verl's device interface for a machine without an accelerator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from verl.plugin.platform.platform_base import PlatformBase

from sftrl_ext.verl_version import check_verl_version


class CpuModule(ModuleType):
    """``torch.cpu``, with the further functions of ``torch.cuda`` that verl calls; most do nothing here."""

    def __init__(self) -> None:
        super().__init__("torch_cpu_device")

    def __getattr__(self, name: str) -> Any:
        return getattr(torch.cpu, name)

    def device_count(self) -> int:
        """One CPU, whatever the number of its cores."""
        return 1

    def current_device(self) -> str:
        """The device every tensor lives on."""
        return "cpu"

    def set_device(self, device: object) -> None:
        """Do nothing: there is one device."""

    def empty_cache(self) -> None:
        """Do nothing: the CPU allocator keeps no cache."""

    def ipc_collect(self) -> None:
        """Do nothing: there are no shared device blocks."""

    def get_device_name(self, device: object = None) -> str:
        """Name for logs; it matches no GPU in verl's table of peak speeds."""
        return "cpu"

    def mem_get_info(self, device: object = None) -> tuple[int, int]:
        """(free, total) device memory in bytes: none."""
        return 0, 0

    def memory_allocated(self, device: object = None) -> int:
        """Device memory in use, in bytes: none."""
        return 0

    # A CPU has no statistics of device memory.
    max_memory_allocated = memory_reserved = max_memory_reserved = memory_allocated

    def get_rng_state(self, device: object = None) -> torch.Tensor:
        """State of torch's generator."""
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: object = None) -> None:
        """Restore the generator's state; verl does so when it loads a checkpoint."""
        torch.set_rng_state(state)


class CpuPlatform(PlatformBase):
    """verl's device interface on a CPU: gloo, shared memory, and one Ray ``GPU`` declared per rank.

    The Ray resource keeps the name ``GPU`` because verl asks Ray for accelerator ids under it; a CPU run
    declares as many with ``ray_kwargs.ray_init.num_gpus`` as it has ranks.

    Raises:
        SftrlError: if the installed verl is not the one the CPU patches were written for.
    """

    def __init__(self) -> None:
        check_verl_version("training on the CPU", ", or unset VERL_PLATFORM to train on a GPU")
        self._module = CpuModule()

    @property
    def device_name(self) -> str:  # noqa: D102
        return "cpu"

    @property
    def vendor_name(self) -> str:  # noqa: D102
        return "cpu"

    @property
    def device_module(self) -> ModuleType:  # noqa: D102
        return self._module

    def is_available(self) -> bool:  # noqa: D102
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        """False, so that verl never detects this platform: ``VERL_PLATFORM=cpu`` selects it."""
        return False

    def current_device(self) -> Any:
        """``"cpu"``: verl passes this to ``Tensor.to``, which takes an index for a GPU only."""
        return "cpu"

    def device_count(self) -> int:  # noqa: D102
        return 1

    def set_device(self, device_index: int) -> None:  # noqa: D102
        pass

    def synchronize(self, device_index: int | None = None) -> None:  # noqa: D102
        pass

    def manual_seed(self, seed: int) -> None:  # noqa: D102
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:  # noqa: D102
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:  # noqa: D102
        pass

    def empty_cache(self) -> None:  # noqa: D102
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[int | None, int | None]:  # noqa: D102
        return None, None

    def communication_backend_name(self) -> str:  # noqa: D102
        return "gloo"

    def visible_devices_envvar(self) -> str:  # noqa: D102
        return "CUDA_VISIBLE_DEVICES"

    def ray_resource_name(self) -> str:  # noqa: D102
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:  # noqa: D102
        return []

    def is_ipc_supported(self) -> bool:
        """No device memory to share: weights travel through verl's shared-memory buckets."""
        return False

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:  # noqa: D102
        yield

    def profiler_start(self) -> None:  # noqa: D102
        pass

    def profiler_stop(self) -> None:  # noqa: D102
        pass

    def cudart(self) -> Any:  # noqa: D102
        return None

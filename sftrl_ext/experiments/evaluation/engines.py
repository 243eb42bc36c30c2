"""Evaluation engines: their protocol, how they are opened, and their device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from sftrl_ext.errors import unknown_name
from sftrl_ext.rollout.player import Generation, Segment
from sftrl_ext.rollout.tokens import ChatTokens

if TYPE_CHECKING:
    from PIL.Image import Image

    from sftrl_ext.backends.hf.local_engine import LocalEngine
    from sftrl_ext.backends.vllm.engine import VllmEngine


class EvalEngine(Protocol):
    """Engine of an evaluation: generates, and switches between checkpoints of one model."""

    name: str

    async def generate(
        self, prompt_ids: list[int], sampling_params: dict[str, Any], images: Sequence[Image] = ()
    ) -> Generation:
        """Continue one prompt, which may show images."""
        ...

    async def load_weights(self, folder: Path) -> None:
        """Switch to the weights of another checkpoint of the same model."""
        ...

    def chat_tokens(self) -> ChatTokens:
        """Tokens of the model's chat template."""
        ...


@runtime_checkable
class ComparesWeights(Protocol):
    """An engine that can compare whole distributions of the loaded checkpoint and another one."""

    async def divergence(
        self, segments: Sequence[Segment], other: Path, temperature: float, *, to_other: bool
    ) -> list[float]:
        """Nats of each segment: KL(loaded || other) if ``to_other``, else KL(other || loaded)."""
        ...


def open_engine(
    name: str, folder: Path, *, dtype: str, rows: int, tensor_parallel: int = 1, device: str = "cpu"
) -> LocalEngine | VllmEngine:
    """Start an evaluation engine on a model folder.

    Args:
        name: ``hf`` or ``vllm``.
        folder: A Hugging Face folder with a tokenizer.
        dtype: Type of the weights.
        rows: Requests decoded at the same time (``hf``).
        tensor_parallel: GPUs one model is spread over (``vllm``).
        device: Where the model is (``hf``).

    Raises:
        SftrlError: for an unknown engine or type.
    """
    if name == "vllm":
        from sftrl_ext.backends.vllm.engine import VllmEngine

        return VllmEngine(folder, dtype=dtype, tensor_parallel=tensor_parallel)
    if name != "hf":
        raise unknown_name("engine", name, ("hf", "vllm"))
    import torch

    from sftrl_ext.backends.hf.local_engine import LocalEngine

    weights = getattr(torch, dtype, None)
    if not isinstance(weights, torch.dtype) or not weights.is_floating_point:
        raise unknown_name("dtype", dtype, ("float32", "bfloat16", "float16"))
    return LocalEngine(folder, dtype=weights, max_rows=rows, device=device)


def cpu_stands_for_gpus() -> bool:
    """True if verl's platform is set to the CPU, as a rehearsal of a GPU scale does."""
    return os.environ.get("VERL_PLATFORM", "").strip().lower() == "cpu"


def device_of(gpus: int) -> str:
    """Torch device of an engine that has so many GPUs of the scale."""
    return "cuda" if gpus and not cpu_stands_for_gpus() else "cpu"

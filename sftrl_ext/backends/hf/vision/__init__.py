"""Vision adapters of the transformers engine, one module per model family."""

from __future__ import annotations

from typing import Any

from sftrl_ext.backends.hf.vision.adapter import VisionAdapter, VisionInputs
from sftrl_ext.backends.hf.vision.mllama import MllamaAdapter
from sftrl_ext.backends.hf.vision.qwen3_vl import Qwen3VLAdapter
from sftrl_ext.backends.hf.vision.qwen_vl import QwenVLAdapter
from sftrl_ext.errors import SftrlError

__all__ = ["VisionAdapter", "VisionInputs", "make_adapter"]

ADAPTERS: dict[str, type[VisionAdapter[Any]]] = {
    "qwen2_vl": QwenVLAdapter,
    "qwen2_5_vl": QwenVLAdapter,
    "qwen3_vl": Qwen3VLAdapter,
    "mllama": MllamaAdapter,
}
"""Model type, as in ``config.json`` -> adapter."""


def make_adapter(model: Any, processor: Any) -> VisionAdapter[Any]:
    """Create the vision adapter of a model.

    Args:
        model: A vision-language model.
        processor: Its processor.

    Raises:
        SftrlError: if there is no adapter for models of its type.
    """
    kind = model.config.model_type
    if kind not in ADAPTERS:
        raise SftrlError(
            f"{kind}: rollout.name=hf sees images with models of type {', '.join(ADAPTERS)} only."
        )
    return ADAPTERS[kind](model, processor)

"""What an engine needs to continue prompts that show images: one file for each way in which models see."""

from __future__ import annotations

from typing import Any

from sftrl_ext.backends.hf.vision.adapter import Eyes, Seen
from sftrl_ext.backends.hf.vision.mllama import MllamaEyes
from sftrl_ext.backends.hf.vision.qwen3_vl import Qwen3VLEyes
from sftrl_ext.backends.hf.vision.qwen_vl import QwenVLEyes
from sftrl_ext.errors import SftrlError

__all__ = ["Eyes", "Seen", "open_eyes"]

EYES: dict[str, type[Eyes[Any]]] = {
    "qwen2_vl": QwenVLEyes,
    "qwen2_5_vl": QwenVLEyes,
    "qwen3_vl": Qwen3VLEyes,
    "mllama": MllamaEyes,
}
"""Model type, as in ``config.json`` -> how such models see images."""


def open_eyes(model: Any, processor: Any) -> Eyes[Any]:
    """Eyes for a model.

    Args:
        model: A language model that sees images.
        processor: Its processor.

    Raises:
        SftrlError: if there are none for models of its type.
    """
    kind = model.config.model_type
    if kind not in EYES:
        raise SftrlError(f"{kind}: rollout.name=hf sees images with models of type {', '.join(EYES)} only.")
    return EYES[kind](model, processor)

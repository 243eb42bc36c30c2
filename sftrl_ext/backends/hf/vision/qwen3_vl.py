"""Images in Qwen3-VL: as in Qwen2.5-VL, and seen again in the first layers of the language model."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sftrl_ext.backends.hf.vision.qwen_vl import QwenVLEyes


class Qwen3VLEyes(QwenVLEyes):
    """Eyes of a model whose encoder gives features for several layers.

    Meng et al., "DeepStack: Deeply Stacking Visual Tokens is Surprisingly Simple and Effective for LMMs"
    (2024): what the vision encoder has half way is added to the states of the placeholders after the first
    layers.
    """

    def _deeper(self, shown: Tensor, features: Tensor) -> dict[str, Any]:
        return {"visual_pos_masks": shown, "deepstack_visual_embeds": list(features)}

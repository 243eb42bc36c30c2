"""Vision adapter of Qwen3-VL: as Qwen2.5-VL, with image features in further layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sftrl_ext.backends.hf.vision.qwen_vl import QwenVLAdapter


class Qwen3VLAdapter(QwenVLAdapter):
    """Adapter of a model whose encoder gives features for several layers.

    Meng et al., "DeepStack: Deeply Stacking Visual Tokens is Surprisingly Simple and Effective for LMMs"
    (2024): intermediate features of the vision encoder are added to the states of the placeholders after the
    first layers.
    """

    def _layer_arguments(self, is_image: Tensor, features: Tensor) -> dict[str, Any]:
        return {"visual_pos_masks": is_image, "deepstack_visual_embeds": list(features)}

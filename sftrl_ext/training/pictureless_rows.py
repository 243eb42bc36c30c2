"""Micro-batches of Qwen2-VL and Qwen2.5-VL in which no row has a picture, such as a row of padding alone.

Every rank must run the vision encoder in every micro-batch, or the others wait for its shards forever. verl
0.9.1 shows it an empty picture then and adds 0 times the mean of what it returns. With transformers 5 that is
an output object, which has no mean; verl unpacks it everywhere else.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any


def verl_models_transformers_qwen2_vl_get_input_embeds(module: ModuleType) -> None:
    """``image_embeds = model.visual(pixel_values, ..)`` of the empty picture: unpacked, as the others are."""
    original = module._get_input_embeds

    def get_input_embeds(
        model: Any,
        input_ids: Any,
        attention_mask: Any = None,
        pixel_values: Any = None,
        pixel_values_videos: Any = None,
        image_grid_thw: Any = None,
        video_grid_thw: Any = None,
    ) -> tuple[Any, Any]:
        if pixel_values is not None or pixel_values_videos is not None:
            pictures = (pixel_values, pixel_values_videos, image_grid_thw, video_grid_thw)
            shown: tuple[Any, Any] = original(model, input_ids, attention_mask, *pictures)
            return shown
        # 0 times the features keeps the encoder in the graph, so that its shards are gathered on every rank.
        embeds = model.get_input_embeddings()(input_ids)
        features, _ = module.unpack_visual_output(_of_empty_picture(model, embeds))
        mask = None if attention_mask is None else attention_mask.to(embeds.device)
        return embeds + 0.0 * features.mean(), mask

    module._get_input_embeds = get_input_embeds  # type: ignore[attr-defined]


def _of_empty_picture(model: Any, like: Any) -> Any:
    """Output of the vision encoder for a black picture of four tokens."""
    import torch

    vision = model.config.vision_config
    size = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
    patches = torch.zeros((16, size), dtype=like.dtype, device=like.device)
    return model.visual(patches, grid_thw=torch.tensor([[1, 4, 4]], device=like.device))

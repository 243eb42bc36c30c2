"""The trainer's tensors of an episode's images, and the processor arguments that make them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from sftrl_ext.rollout.packed_pictures import pack

if TYPE_CHECKING:
    from PIL.Image import Image


def is_mllama(processor: Any) -> bool:
    """True for the processor of a Llama-3.2-Vision model."""
    return type(processor).__name__ == "MllamaProcessor"


def one_by_one(images: Sequence[Image]) -> list[list[Image]]:
    """Nest images so that such a processor gives one entry for each, independent of rows."""
    return [[image] for image in images]


def processor_arguments(processor: Any, images: Sequence[Image]) -> dict[str, Any] | None:
    """Arguments that verl's agent loop adds to its call of the processor.

    verl calls it with the row's text as it decodes it, which is without placeholders, and a processor of a
    Llama-3.2-Vision model refuses more images than placeholders. The encoded text is discarded.

    Args:
        processor: The model's processor, or None.
        images: The row's images, in order.

    Returns:
        The arguments; None for none.
    """
    if not images or not is_mllama(processor):
        return None
    # One placeholder for each image; the text's tokens are not used.
    return {"text": [processor.image_token] * len(images), "images": one_by_one(images)}


def trainer_features(processor: Any, inputs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Convert the tensors made of a prompt to the trainer's, which verl would make by encoding it again.

    Args:
        processor: The model's processor.
        inputs: Its tensors of the prompt, without the tokens.

    Returns:
        verl's ``multi_modal_inputs``, packed; None for models whose tensors depend on the whole text.
    """
    grid = inputs.get("image_grid_thw")
    # Positions from grids alone: the Qwen-VL families.
    if grid is None or not hasattr(processor, "get_rope_index"):
        return None
    features = {name: value for name, value in inputs.items() if name != "attention_mask"}
    lengths = torch.repeat_interleave(grid[:, 1] * grid[:, 2], grid[:, 0])
    return pack({**features, "images_seqlens": lengths}, processor.image_processor)

"""Processor arguments that make the trainer's tensors of an episode's images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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

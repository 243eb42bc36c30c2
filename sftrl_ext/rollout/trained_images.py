"""How the images of an episode are given to a processor for the trainer's tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image


def is_mllama(processor: Any) -> bool:
    """Whether a processor is that of a Llama-3.2-Vision model."""
    return type(processor).__name__ == "MllamaProcessor"


def one_by_one(images: Sequence[Image]) -> list[list[Image]]:
    """Images as such a processor takes them to give one entry for each, whatever row they belong to."""
    return [[image] for image in images]


def processor_arguments(processor: Any, images: Sequence[Image]) -> dict[str, Any] | None:
    """Arguments with which verl's agent loop calls the processor, beside or in place of its own.

    verl calls it with the row's text as it decodes it, which is without placeholders, and a processor of a
    Llama-3.2-Vision model refuses more images than placeholders. What becomes of the text is not used.

    Args:
        processor: The model's processor, or None.
        images: The row's images, in order.

    Returns:
        The arguments; None for none.
    """
    if not images or not is_mllama(processor):
        return None
    return {"text": [processor.image_token] * len(images), "images": one_by_one(images)}

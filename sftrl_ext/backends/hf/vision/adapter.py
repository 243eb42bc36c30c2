"""Base class of vision adapters: encodes every image once, and gives prompts with images their cache keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Generic, TypeVar

import torch
from PIL.Image import Image
from torch import Tensor

from sftrl_ext.errors import SftrlError

Features = Any
"""Output of the vision encoder for one image, in the layout of each adapter."""


@dataclass
class CachedImage:
    """An image, processed and, once a prompt needs it, encoded.

    Attributes:
        number: Unique; distinguishes prompts that differ in nothing but their images.
        inputs: Tensors of the image processor; without the pixels once `features` are computed.
        tokens: Placeholder tokens of the image in a prompt.
        features: Output of the vision encoder, or None.
    """

    number: int
    inputs: dict[str, Tensor]
    tokens: int
    features: Features = None


@dataclass(frozen=True)
class VisionInputs:
    """A prompt with its images.

    Attributes:
        keys: Cache keys of the prompt: its tokens, some replaced by negative numbers of images, so that two
            prompts have a common prefix only as far as the model's states are the same.
        placeholders: Indices of the placeholder tokens. Shape (placeholders,).
        images: The images, in order.
    """

    keys: list[int]
    placeholders: Tensor
    images: list[CachedImage]

    def needs_images(self, start: int) -> bool:
        """True if the tokens from ``start`` on depend on an image's features."""
        return bool((self.placeholders >= start).any())


InputsT = TypeVar("InputsT", bound=VisionInputs)


class VisionAdapter(ABC, Generic[InputsT]):
    """Runs a vision-language model on prompts with images.

    Args:
        model: A vision-language model of transformers.
        processor: Its processor.
    """

    capacity = 2048
    """Images whose features are kept, so that no image is encoded twice under the same weights."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.token = int(model.config.image_token_id)
        self._images: OrderedDict[bytes, CachedImage] = OrderedDict()
        self._image_count = 0
        self.encoded_count = 0
        """Images that went through the vision encoder."""

    @property
    def banned(self) -> list[int]:
        """Tokens that must never be sampled: they stand for pixels, or around them."""
        return [self.token]

    @abstractmethod
    def prepare(self, prompt_ids: Sequence[int], images: Sequence[Image]) -> InputsT:
        """Match a prompt with its images.

        Raises:
            SftrlError: if the prompt has not as many placeholders as the images have tokens.
        """

    @abstractmethod
    def prefill(self, tokens: Tensor, starts: Tensor, prompts: Sequence[InputsT], **common: Any) -> Tensor:
        """Last hidden states of the remaining tokens of some prompts.

        Args:
            tokens: Their tokens from ``starts`` on, padded on the right. Shape (rows, tokens).
            starts: Index of each row's first token. Shape (rows,).
            prompts: The prompts; their images are encoded.
            common: ``attention_mask`` and ``past_key_values`` as the engine gives them to any model.

        Returns:
            Shape (rows, tokens, hidden size).
        """

    @abstractmethod
    def decode(self, tokens: Tensor, starts: Tensor, prompts: Sequence[InputsT], **common: Any) -> Tensor:
        """Last hidden states of one further token of each row; arguments as in `prefill`."""

    @abstractmethod
    def _encode(self, images: Sequence[CachedImage]) -> Iterable[Features]:
        """Features of each image, by one pass of the vision encoder."""

    @abstractmethod
    def _token_count(self, inputs: dict[str, Tensor]) -> int:
        """Placeholder tokens of an image, from the image processor's tensors."""

    @torch.inference_mode()
    def encode(self, prompts: Sequence[VisionInputs]) -> None:
        """Compute the missing features of all prompts together."""
        pending = {
            image.number: image for prompt in prompts for image in prompt.images if image.features is None
        }
        if not pending:
            return
        images = list(pending.values())
        for image, features in zip(images, self._encode(images), strict=True):
            image.features = features
            # The pixels are the largest tensor, and never needed again.
            del image.inputs["pixel_values"]
        self.encoded_count += len(images)

    def clear(self) -> None:
        """Drop all features after a change of the weights; the KV cache is cleared with them."""
        self._images.clear()

    def _match_images(self, ids: Tensor, images: Sequence[Image]) -> tuple[Tensor, list[CachedImage]]:
        """Indices of the placeholders, and the images; see `prepare`."""
        cached = [self._cached(image) for image in images]
        counts = [image.tokens for image in cached]
        placeholders = (ids == self.token).nonzero()[:, 0]
        if len(placeholders) != sum(counts):
            raise SftrlError(
                f"a prompt with {len(images)} images has {len(placeholders)} placeholder tokens; expected "
                f"{' + '.join(map(str, counts)) or 0}."
            )
        return placeholders, cached

    def _cached(self, image: Image) -> CachedImage:
        """Cache entry of an image; images with the same pixels share one."""
        # The mode and size keep images apart whose bytes agree.
        key = blake2b(image.tobytes(), digest_size=16, key=repr((image.mode, image.size)).encode()).digest()
        if key in self._images:
            self._images.move_to_end(key)
            return self._images[key]
        processed = self.processor.image_processor(images=[image], return_tensors="pt")
        device = self.model.device
        inputs = {name: value.to(device) for name, value in processed.items() if isinstance(value, Tensor)}
        self._image_count += 1
        entry = self._images[key] = CachedImage(self._image_count, inputs, self._token_count(inputs))
        while len(self._images) > self.capacity:
            self._images.popitem(last=False)
        return entry


def inputs_of(images: Sequence[CachedImage], name: str) -> Tensor:
    """Concatenate a tensor of the image processor over images."""
    return torch.cat([image.inputs[name] for image in images])


def features_of(image: CachedImage) -> Features:
    """Features of an encoded image."""
    assert image.features is not None, "encode the images of a prompt first"
    return image.features

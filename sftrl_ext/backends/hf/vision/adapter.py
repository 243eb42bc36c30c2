"""What all eyes have in common: every image is encoded once, and prompts are told apart by their images."""

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
"""What an encoder makes of one image; each kind of eyes has its own."""


@dataclass
class SeenImage:
    """An image as the model takes it.

    Attributes:
        number: Unique; tells prompts apart that differ in nothing but their images.
        inputs: What the image processor makes of it; without the pixels once `features` are known.
        tokens: Placeholder tokens that it has in a prompt.
        features: What the vision encoder makes of it, once that is needed.
    """

    number: int
    inputs: dict[str, Tensor]
    tokens: int
    features: Features = None


@dataclass(frozen=True)
class Seen:
    """A prompt with its images.

    Attributes:
        keys: What the cache knows the prompt by: its tokens, some replaced by negative numbers of images, so
            that two prompts begin alike only as far as the model's states do.
        places: Where the placeholders stand, in order. Shape (placeholders,).
        images: The images, in order.
    """

    keys: list[int]
    places: Tensor
    images: list[SeenImage]

    def shows(self, start: int) -> bool:
        """Whether any placeholder stands at a token or after it."""
        return bool((self.places >= start).any())


S = TypeVar("S", bound=Seen)


class Eyes(ABC, Generic[S]):
    """Looks at the images of prompts for one model.

    Args:
        model: A model of transformers that sees images.
        processor: Its processor.
    """

    remembered = 2048
    """Images whose features are kept, so that no image is encoded twice under the same weights."""

    def __init__(self, model: Any, processor: Any) -> None:
        self.model, self.processor = model, processor
        self.token = int(model.config.image_token_id)
        self._known: OrderedDict[bytes, SeenImage] = OrderedDict()
        self._count = 0
        self.encoded = 0
        """Images that went through the vision encoder."""

    @property
    def banned(self) -> list[int]:
        """Tokens that must never be sampled: they stand for pixels, or around them."""
        return [self.token]

    @abstractmethod
    def look(self, prompt_ids: Sequence[int], images: Sequence[Image]) -> S:
        """Match a prompt with its images.

        Raises:
            SftrlError: if the prompt has not as many placeholders as the images have tokens.
        """

    @abstractmethod
    def read(self, tokens: Tensor, starts: Tensor, seen: Sequence[S], **common: Any) -> Tensor:
        """The model's last states for the rest of some prompts.

        Args:
            tokens: Their tokens from ``starts`` on, padded on the right. Shape (rows, tokens).
            starts: Index of each row's first token. Shape (rows,).
            seen: The prompts; their images are encoded.
            common: ``attention_mask`` and ``past_key_values`` as the engine gives them to any model.

        Returns:
            Shape (rows, tokens, hidden size).
        """

    @abstractmethod
    def go_on(self, tokens: Tensor, starts: Tensor, seen: Sequence[S], **common: Any) -> Tensor:
        """The model's last states for one further token of each row; as `read`, with one token per row."""

    @abstractmethod
    def _encode(self, images: Sequence[SeenImage]) -> Iterable[Features]:
        """The features of each image, by one pass of the vision encoder."""

    @abstractmethod
    def _placeholders(self, inputs: dict[str, Tensor]) -> int:
        """How many placeholder tokens an image has, by what the image processor made of it."""

    @torch.inference_mode()
    def encode(self, prompts: Sequence[Seen]) -> None:
        """Compute the features that are not known yet, of all prompts together."""
        todo = {i.number: i for prompt in prompts for i in prompt.images if i.features is None}
        if not todo:
            return
        images = list(todo.values())
        for image, features in zip(images, self._encode(images), strict=True):
            image.features = features
            del image.inputs["pixel_values"]
        self.encoded += len(images)

    def forget(self) -> None:
        """Drop all features, as after a change of the weights; the cache of keys forgets too."""
        self._known.clear()

    def _match(self, ids: Tensor, images: Sequence[Image]) -> tuple[Tensor, list[SeenImage]]:
        """Where the placeholders stand, and the images; see `look`."""
        seen = [self._image(image) for image in images]
        counts = [image.tokens for image in seen]
        places = (ids == self.token).nonzero()[:, 0]
        if len(places) != sum(counts):
            raise SftrlError(
                f"a prompt with {len(images)} images has {len(places)} placeholder tokens; expected "
                f"{' + '.join(map(str, counts)) or 0}."
            )
        return places, seen

    def _image(self, image: Image) -> SeenImage:
        """What is known of an image; the same pixels are one image."""
        key = blake2b(image.tobytes(), digest_size=16, key=repr((image.mode, image.size)).encode()).digest()
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        made = self.processor.image_processor(images=[image], return_tensors="pt")
        device = self.model.device
        inputs = {name: value.to(device) for name, value in made.items() if isinstance(value, Tensor)}
        self._count += 1
        seen = self._known[key] = SeenImage(self._count, inputs, self._placeholders(inputs))
        while len(self._known) > self.remembered:
            self._known.popitem(last=False)
        return seen


def inputs_of(images: Sequence[SeenImage], name: str) -> Tensor:
    """One of the image processor's tensors, of all images."""
    return torch.cat([image.inputs[name] for image in images])


def features_of(image: SeenImage) -> Features:
    """The features of an image that was encoded."""
    assert image.features is not None, "encode the images of a prompt first"
    return image.features

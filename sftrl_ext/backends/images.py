"""What an engine needs to continue a prompt that shows images: their features, and positions in space.

For models of the Qwen-VL kind: every image is a run of placeholder tokens whose embeddings are replaced by
the features of the vision encoder, and whose positions have three dimensions (time, height, width). The text
after an image goes on from the largest of them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from sftrl_ext.errors import SftrlError

REMEMBERED = 2048
"""Images whose features are kept, so that no image is encoded twice under the same weights."""


@dataclass
class SeenImage:
    """An image as the model takes it.

    Attributes:
        number: Unique; tells prompts apart that differ in nothing but their images.
        grid: Patches in time, height and width.
        pixels: Patches before the vision encoder, until `features` are known.
        features: Shape (tokens, hidden size), once they are needed.
    """

    number: int
    grid: tuple[int, int, int]
    pixels: Tensor | None
    features: Tensor | None = None


@dataclass(frozen=True)
class Seen:
    """A prompt with its images.

    Attributes:
        keys: The prompt's tokens, each placeholder replaced by a negative number of its image.
        positions: Shape (3, tokens).
        shift: What a later token's position is beyond its index; negative.
        places: Where the placeholders stand, in order. Shape (placeholders,).
        images: The images, in order.
    """

    keys: list[int]
    positions: Tensor
    shift: int
    places: Tensor
    images: list[SeenImage]

    def shows(self, start: int) -> bool:
        """Whether any placeholder stands at a token or after it."""
        return bool((self.places >= start).any())

    def features(self, start: int) -> tuple[Tensor, Tensor]:
        """Where the placeholders from a token on stand, counted from there, and their features."""
        every = torch.cat([_features(image) for image in self.images])
        chosen = self.places >= start
        return self.places[chosen] - start, every[chosen]


class Eyes:
    """Looks at the images of prompts for one model.

    Args:
        model: A model with ``get_image_features`` and ``get_rope_index`` (Qwen2-VL, Qwen2.5-VL).
        processor: Its processor.

    Raises:
        SftrlError: if the model shows images in another way.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        if model.config.model_type not in ("qwen2_vl", "qwen2_5_vl"):
            raise SftrlError(
                f"{model.config.model_type}: rollout.name=hf sees images with models of type qwen2_vl and "
                "qwen2_5_vl only."
            )
        self.model, self.processor = model, processor
        self.token = int(model.config.image_token_id)
        self._known: OrderedDict[bytes, SeenImage] = OrderedDict()
        self._count = 0
        self.encoded = 0
        """Images that went through the vision encoder."""

    @property
    def banned(self) -> list[int]:
        """Tokens that must never be sampled: they stand for pixels, or around them."""
        config = self.model.config
        names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
        ids = (getattr(config, name, None) for name in names)
        return [token for token in ids if token is not None]

    def look(self, prompt_ids: Sequence[int], images: Sequence[Image]) -> Seen:
        """Match a prompt with its images.

        Raises:
            SftrlError: if the prompt has not as many placeholders as the images have tokens.
        """
        ids = torch.tensor([list(prompt_ids)])
        shown = ids == self.token
        seen = [self._image(image) for image in images]
        merge = self.processor.image_processor.merge_size**2
        tokens = [t * h * w // merge for t, h, w in (image.grid for image in seen)]
        places = shown[0].nonzero()[:, 0]
        if len(places) != sum(tokens):
            raise SftrlError(
                f"a prompt with {len(images)} images has {len(places)} placeholder tokens; expected "
                f"{' + '.join(map(str, tokens)) or 0}."
            )
        owners = [-1 - image.number for image, count in zip(seen, tokens, strict=True) for _ in range(count)]
        keys = ids[0].clone()
        keys[places] = torch.tensor(owners, dtype=torch.long)
        positions, shift = self.model.model.get_rope_index(
            ids,
            mm_token_type_ids=shown.int(),
            image_grid_thw=torch.tensor([image.grid for image in seen]) if seen else None,
            attention_mask=torch.ones_like(ids),
        )
        return Seen(keys.tolist(), positions[:, 0], int(shift), places, seen)

    @torch.inference_mode()
    def encode(self, prompts: Sequence[Seen]) -> None:
        """Compute the features that are not known yet, of all prompts together."""
        todo = {i.number: i for prompt in prompts for i in prompt.images if i.features is None}
        if not todo:
            return
        images = list(todo.values())
        pixels = torch.cat([image.pixels for image in images if image.pixels is not None])
        grids = torch.tensor([image.grid for image in images])
        found = self.model.model.get_image_features(pixels, grids).pooler_output
        for image, features in zip(images, found, strict=True):
            image.features, image.pixels = features, None
        self.encoded += len(images)

    def forget(self) -> None:
        """Drop all features, as after a change of the weights."""
        self._known.clear()

    def _image(self, image: Image) -> SeenImage:
        """What is known of an image; the same pixels are one image."""
        key = blake2b(image.tobytes(), digest_size=16, key=repr((image.mode, image.size)).encode()).digest()
        known = self._known.get(key)
        if known is not None:
            self._known.move_to_end(key)
            return known
        inputs = self.processor.image_processor(images=[image], return_tensors="pt")
        t, h, w = inputs["image_grid_thw"][0].tolist()
        self._count += 1
        seen = self._known[key] = SeenImage(self._count, (t, h, w), inputs["pixel_values"])
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return seen


def _features(image: SeenImage) -> Tensor:
    assert image.features is not None, "encode the images of a prompt first"
    return image.features

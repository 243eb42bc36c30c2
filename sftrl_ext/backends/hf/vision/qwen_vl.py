"""Vision adapter of Qwen2-VL and Qwen2.5-VL.

Every image is a run of placeholder tokens whose embeddings are replaced by the features of the vision
encoder, and whose positions have three dimensions (time, height, width). The text after an image goes on from
the largest of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from sftrl_ext.backends.hf.vision.adapter import (
    CachedImage,
    Features,
    VisionAdapter,
    VisionInputs,
    features_of,
    inputs_of,
)


@dataclass(frozen=True)
class QwenVLInputs(VisionInputs):
    """A prompt with its images and the positions of its tokens.

    Attributes:
        positions: Shape (3, tokens).
        shift: Position of a later token minus its index; negative.
    """

    positions: Tensor
    shift: int


class QwenVLAdapter(VisionAdapter[QwenVLInputs]):
    """Adapter of a model with ``get_image_features`` and ``get_rope_index``.

    The features of an image are the rows that replace the embeddings of its placeholders and, in a model that
    has them, those for further layers. Shape (layers, tokens, hidden size).
    """

    @property
    def banned(self) -> list[int]:  # noqa: D102
        config = self.model.config
        names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
        ids = (getattr(config, name, None) for name in names)
        return [token for token in ids if token is not None]

    def prepare(self, prompt_ids: Sequence[int], images: Sequence[Image]) -> QwenVLInputs:  # noqa: D102
        ids = torch.tensor(list(prompt_ids))
        placeholders, cached = self._match_images(ids, images)
        # A placeholder's state depends on its image, so the image's number takes its place in the cache key.
        keys = ids.clone()
        numbers = [-1 - image.number for image in cached for _ in range(image.tokens)]
        keys[placeholders] = torch.tensor(numbers, dtype=torch.long)
        positions, shift = self.model.model.get_rope_index(
            ids[None],
            mm_token_type_ids=(ids[None] == self.token).int(),
            image_grid_thw=inputs_of(cached, "image_grid_thw") if cached else None,
            attention_mask=torch.ones_like(ids[None]),
        )
        return QwenVLInputs(keys.tolist(), placeholders, cached, positions[:, 0], int(shift))

    def prefill(  # noqa: D102
        self, tokens: Tensor, starts: Tensor, prompts: Sequence[QwenVLInputs], **common: Any
    ) -> Tensor:
        positions = torch.zeros(3, *tokens.shape, dtype=torch.long)
        is_image = torch.zeros(tokens.shape, dtype=torch.bool)
        rows = []
        for i, (prompt, start) in enumerate(zip(prompts, starts.tolist(), strict=True)):
            positions[:, i, : len(prompt.keys) - start] = prompt.positions[:, start:]
            if prompt.needs_images(start):
                # A cached prefix may end inside an image: only the features of the rest go in.
                remaining = prompt.placeholders >= start
                is_image[i, prompt.placeholders[remaining] - start] = True
                rows.append(torch.cat([features_of(image) for image in prompt.images], dim=1)[:, remaining])
        embedded = self.model.get_input_embeddings()(tokens)
        if rows:
            features = torch.cat(rows, dim=1).to(embedded.dtype)
            embedded[is_image] = features[0]
            common |= self._layer_arguments(is_image, features[1:])
        return self._hidden_states(embedded, positions, **common)

    def decode(  # noqa: D102
        self, tokens: Tensor, starts: Tensor, prompts: Sequence[QwenVLInputs], **common: Any
    ) -> Tensor:
        shifted = starts + torch.tensor([prompt.shift for prompt in prompts])
        positions = shifted[None, :, None].expand(3, -1, 1)
        return self._hidden_states(self.model.get_input_embeddings()(tokens), positions, **common)

    def _layer_arguments(self, is_image: Tensor, features: Tensor) -> dict[str, Any]:
        """Arguments of the language model for features of further layers; none here."""
        return {}

    def _hidden_states(self, embedded: Tensor, positions: Tensor, **common: Any) -> Tensor:
        output = self.model.model.language_model(inputs_embeds=embedded, position_ids=positions, **common)
        states: Tensor = output.last_hidden_state
        return states

    def _encode(self, images: Sequence[CachedImage]) -> Iterable[Features]:
        output = self.model.model.get_image_features(
            inputs_of(images, "pixel_values"), inputs_of(images, "image_grid_thw")
        )
        layers = [torch.cat(list(output.pooler_output)), *(getattr(output, "deepstack_features", None) or ())]
        return torch.stack(layers).split([image.tokens for image in images], dim=1)

    def _token_count(self, inputs: dict[str, Tensor]) -> int:
        # merge_size x merge_size patches become one token.
        return int(inputs["image_grid_thw"].prod()) // int(self.processor.image_processor.merge_size) ** 2

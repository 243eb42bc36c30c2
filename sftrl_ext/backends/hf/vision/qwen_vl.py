"""Images in Qwen2-VL and Qwen2.5-VL.

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

from sftrl_ext.backends.hf.vision.adapter import Eyes, Features, Seen, SeenImage, features_of, inputs_of


@dataclass(frozen=True)
class SeenInSpace(Seen):
    """A prompt with its images, and where its tokens are.

    Attributes:
        positions: Shape (3, tokens).
        shift: What a later token's position is beyond its index; negative.
    """

    positions: Tensor
    shift: int


class QwenVLEyes(Eyes[SeenInSpace]):
    """Eyes of a model with ``get_image_features`` and ``get_rope_index``.

    The features of an image are the rows that replace the embeddings of its placeholders and, in a model that
    has them, those for the layers after. Shape (layers, tokens, hidden size).
    """

    @property
    def banned(self) -> list[int]:  # noqa: D102
        config = self.model.config
        names = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
        ids = (getattr(config, name, None) for name in names)
        return [token for token in ids if token is not None]

    def look(self, prompt_ids: Sequence[int], images: Sequence[Image]) -> SeenInSpace:  # noqa: D102
        ids = torch.tensor(list(prompt_ids))
        places, seen = self._match(ids, images)
        keys = ids.clone()
        keys[places] = torch.tensor([-1 - i.number for i in seen for _ in range(i.tokens)], dtype=torch.long)
        positions, shift = self.model.model.get_rope_index(
            ids[None],
            mm_token_type_ids=(ids[None] == self.token).int(),
            image_grid_thw=inputs_of(seen, "image_grid_thw") if seen else None,
            attention_mask=torch.ones_like(ids[None]),
        )
        return SeenInSpace(keys.tolist(), places, seen, positions[:, 0], int(shift))

    def read(  # noqa: D102
        self, tokens: Tensor, starts: Tensor, seen: Sequence[SeenInSpace], **common: Any
    ) -> Tensor:
        positions = torch.zeros(3, *tokens.shape, dtype=torch.long)
        shown = torch.zeros(tokens.shape, dtype=torch.bool)
        rows = []
        for i, (prompt, start) in enumerate(zip(seen, starts.tolist(), strict=True)):
            positions[:, i, : len(prompt.keys) - start] = prompt.positions[:, start:]
            if prompt.shows(start):
                left = prompt.places >= start
                shown[i, prompt.places[left] - start] = True
                rows.append(torch.cat([features_of(image) for image in prompt.images], dim=1)[:, left])
        embedded = self.model.get_input_embeddings()(tokens)
        if rows:
            features = torch.cat(rows, dim=1).to(embedded.dtype)
            embedded[shown] = features[0]
            common |= self._deeper(shown, features[1:])
        return self._states(embedded, positions, **common)

    def go_on(  # noqa: D102
        self, tokens: Tensor, starts: Tensor, seen: Sequence[SeenInSpace], **common: Any
    ) -> Tensor:
        at = starts + torch.tensor([prompt.shift for prompt in seen])
        positions = at[None, :, None].expand(3, -1, 1)
        return self._states(self.model.get_input_embeddings()(tokens), positions, **common)

    def _deeper(self, shown: Tensor, features: Tensor) -> dict[str, Any]:
        """What the language model takes beside embeddings and positions: nothing."""
        return {}

    def _states(self, embedded: Tensor, positions: Tensor, **common: Any) -> Tensor:
        made = self.model.model.language_model(inputs_embeds=embedded, position_ids=positions, **common)
        states: Tensor = made.last_hidden_state
        return states

    def _encode(self, images: Sequence[SeenImage]) -> Iterable[Features]:
        made = self.model.model.get_image_features(
            inputs_of(images, "pixel_values"), inputs_of(images, "image_grid_thw")
        )
        layers = [torch.cat(list(made.pooler_output)), *(getattr(made, "deepstack_features", None) or ())]
        return torch.stack(layers).split([image.tokens for image in images], dim=1)

    def _placeholders(self, inputs: dict[str, Tensor]) -> int:
        return int(inputs["image_grid_thw"].prod()) // int(self.processor.image_processor.merge_size) ** 2

"""Images in Llama-3.2-Vision (mllama): some layers of the language model look at them by cross-attention.

An image is one placeholder token, and every token after it sees it. The keys and values of those layers come
from the image alone: they are computed once and serve every row that shows the image, from its first token to
its last. As transformers has it, a token before the first image is not told what to look at: it sees all
images of its prompt, with the tiles that only pad them. So prompts begin alike only if they show the same
images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from sftrl_ext.backends.hf.attention import slot_attention
from sftrl_ext.backends.hf.vision.adapter import Eyes, Features, Seen, SeenImage, features_of, inputs_of
from sftrl_ext.training.mllama_rows import visible_images


@dataclass(frozen=True)
class SeenAcross(Seen):
    """A prompt with its images.

    Attributes:
        sees: Which images each token sees. Shape (tokens, images).
    """

    sees: Tensor

    def shows(self, start: int) -> bool:
        """Whether the prompt shows any image: whatever is left of it sees that."""
        return bool(self.images)


@dataclass(frozen=True)
class _Group:
    """Rows that show the same images.

    Attributes:
        rows: Which rows. Shape (rows,).
        features: Keys and values of the images. Shape (layers, 2, heads, length, head size).
        bias: Added to the scores. Shape (1, 1, rows * tokens, length).
        sees: 1 where a token sees an image, 0 where none stands before it. Shape (rows, tokens, 1).
    """

    rows: Tensor
    features: Tensor
    bias: Tensor
    sees: Tensor


class MllamaEyes(Eyes[SeenAcross]):
    """Eyes of a model with cross-attention layers.

    The features of an image are the keys and values of these layers. Shape (layers, 2, heads, length, head
    size), where the length is that of all tiles of the largest image.
    """

    remembered = 64
    """As in `Eyes`, but the keys and values of an image are large: 210 MB for Llama-3.2-11B in bfloat16."""

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        self._text = model.model.language_model
        self._across = [self._text.layers[i] for i in self._text.cross_attention_layers]
        self._sets: dict[tuple[int, ...], int] = {}

    def look(self, prompt_ids: Sequence[int], images: Sequence[Image]) -> SeenAcross:  # noqa: D102
        ids = torch.tensor(list(prompt_ids))
        places, seen = self._match(ids, images)
        keys = list(prompt_ids)
        if seen:
            shown = tuple(image.number for image in seen)
            keys[0] = -1 - self._sets.setdefault(shown, len(self._sets))
        return SeenAcross(keys, places, seen, visible_images(ids, self.token))

    def read(  # noqa: D102
        self, tokens: Tensor, starts: Tensor, seen: Sequence[SeenAcross], **common: Any
    ) -> Tensor:
        width = tokens.shape[1]
        views = []
        for prompt, start in zip(seen, starts.tolist(), strict=True):
            view = prompt.sees[start : start + width]
            views.append(torch.cat([view, view.new_zeros(width - len(view), view.shape[1])]))
        return self._states(tokens, starts, seen, views, **common)

    def go_on(  # noqa: D102
        self, tokens: Tensor, starts: Tensor, seen: Sequence[SeenAcross], **common: Any
    ) -> Tensor:
        return self._states(tokens, starts, seen, [prompt.sees[-1:] for prompt in seen], **common)

    def forget(self) -> None:  # noqa: D102
        super().forget()
        self._sets.clear()

    def _states(
        self,
        tokens: Tensor,
        starts: Tensor,
        seen: Sequence[SeenAcross],
        views: Sequence[Tensor],
        **common: Any,
    ) -> Tensor:
        """The last states; ``views`` says for each row which images its new tokens see."""
        positions = starts[:, None] + torch.arange(tokens.shape[1])
        states: Tensor = self._text.embed_tokens(tokens)
        turned = self._text.rotary_emb(states, position_ids=positions)
        groups = self._groups(seen, views, states.dtype)
        across = 0
        for layer in self._text.layers:
            if across < len(self._across) and layer is self._across[across]:
                states = self._look_across(layer, across, states, groups)
                across += 1
            else:
                states = layer(states, position_embeddings=turned, position_ids=positions, **common)
        made: Tensor = self._text.norm(states)
        return made

    def _groups(
        self, seen: Sequence[SeenAcross], views: Sequence[Tensor], dtype: torch.dtype
    ) -> list[_Group]:
        """The rows that show images, those with the same images together."""
        members: dict[tuple[int, ...], list[int]] = {}
        for row, prompt in enumerate(seen):
            if prompt.images:
                members.setdefault(tuple(image.number for image in prompt.images), []).append(row)
        groups = []
        for rows in members.values():
            images = seen[rows[0]].images
            features = [features_of(image) for image in images]
            length = features[0].shape[3]
            tiles = torch.cat([image.inputs["aspect_ratio_mask"][0, 0] for image in images])
            real = tiles.bool().repeat_interleave(length * len(images) // len(tiles))
            view = torch.stack([views[row] for row in rows])
            lost = ~view.any(-1, keepdim=True)
            visible = (view.repeat_interleave(length, dim=2) & real) | lost
            bias = torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, -torch.inf)
            groups.append(
                _Group(
                    rows=torch.tensor(rows),
                    features=features[0] if len(features) == 1 else torch.cat(features, dim=3),
                    bias=bias.view(1, 1, -1, visible.shape[2]),
                    sees=(~lost).to(dtype),
                )
            )
        return groups

    def _look_across(self, layer: Any, number: int, states: Tensor, groups: Sequence[_Group]) -> Tensor:
        """One cross-attention layer; a row without images passes it by.

        All rows of a group are queries to one set of keys and values, which is never copied.
        """
        attention, made = layer.cross_attn, states.clone()
        for group in groups:
            own = states[group.rows]
            queries = attention.q_proj(layer.input_layernorm(own))
            queries = attention.q_norm(queries.view(1, -1, attention.num_heads, attention.head_dim))
            keys, values = group.features[number]
            found, _ = slot_attention(
                attention,
                queries.transpose(1, 2),
                keys[None],
                values[None],
                group.bias,
                scaling=attention.scaling,
            )
            own = own + layer.cross_attn_attn_gate.tanh() * attention.o_proj(found.reshape(own.shape))
            further = layer.mlp(layer.post_attention_layernorm(own)) * group.sees
            made[group.rows] = own + layer.cross_attn_mlp_gate.tanh() * further
        return made

    def _encode(self, images: Sequence[SeenImage]) -> Iterable[Features]:
        """One image after another: each may have thousands of patches."""
        model = self.model.model
        for image in images:
            names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
            pixels, ratio, tiles = (inputs_of([image], name) for name in names)
            vision = model.vision_model(pixel_values=pixels, aspect_ratio_ids=ratio, aspect_ratio_mask=tiles)
            states = model.multi_modal_projector(vision.last_hidden_state).flatten(0, 3)
            kept = []
            for layer in self._across:
                attention = layer.cross_attn
                heads = (-1, attention.num_key_value_heads, attention.head_dim)
                keys = attention.k_norm(attention.k_proj(states).view(heads))
                kept.append(torch.stack([keys, attention.v_proj(states).view(heads)]).transpose(1, 2))
            yield torch.stack(kept).contiguous()

    def _placeholders(self, inputs: dict[str, Tensor]) -> int:
        return 1

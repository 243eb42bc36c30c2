"""Vision adapter of Llama-3.2-Vision (mllama), whose language model has cross-attention layers.

An image is one placeholder token, and every token after it attends to it. The keys and values of the
cross-attention layers come from the image alone: they are computed once and serve every row that shows the
image, from its first token to its last. In transformers a token before the first image has no mask: it
attends to all images of its prompt, with the tiles that only pad them. So prompts have a common prefix only
if they show the same images.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from sftrl_ext.backends.hf.attention import slot_attention
from sftrl_ext.backends.hf.vision.adapter import (
    CachedImage,
    Features,
    VisionAdapter,
    VisionInputs,
    features_of,
    inputs_of,
)
from sftrl_ext.training.mllama_rows import visible_images


@dataclass(frozen=True)
class MllamaInputs(VisionInputs):
    """A prompt with its images and their visibility.

    Attributes:
        visible: Mask of the images that each token attends to. Shape (tokens, images).
    """

    visible: Tensor

    def needs_images(self, start: int) -> bool:
        """True if the prompt shows any image: all of its tokens attend to it."""
        return bool(self.images)


@dataclass(frozen=True)
class _Group:
    """Rows that show the same images.

    Attributes:
        rows: Indices of the rows. Shape (rows,).
        features: Keys and values of the images. Shape (layers, 2, heads, length, head size).
        bias: Added to the attention scores. Shape (1, 1, rows * tokens, length).
        gate: 1 where a token attends to an image, 0 where none stands before it. Shape (rows, tokens, 1).
    """

    rows: Tensor
    features: Tensor
    bias: Tensor
    gate: Tensor


class MllamaAdapter(VisionAdapter[MllamaInputs]):
    """Adapter of a model with cross-attention layers.

    The features of an image are the keys and values of these layers. Shape (layers, 2, heads, length, head
    size), where the length is that of all tiles of the largest image.
    """

    capacity = 64
    """Small, because an image's keys and values are large: 210 MB for Llama-3.2-11B in bfloat16."""

    def __init__(self, model: Any, processor: Any) -> None:
        super().__init__(model, processor)
        self._text = model.model.language_model
        self._cross_layers = [self._text.layers[i] for i in self._text.cross_attention_layers]
        self._image_sets: dict[tuple[int, ...], int] = {}

    def prepare(self, prompt_ids: Sequence[int], images: Sequence[Image]) -> MllamaInputs:  # noqa: D102
        ids = torch.tensor(list(prompt_ids))
        placeholders, cached = self._match_images(ids, images)
        keys = list(prompt_ids)
        if cached:
            # Tokens before the first image attend to all images, so the very first key names the set of them.
            numbers = tuple(image.number for image in cached)
            keys[0] = -1 - self._image_sets.setdefault(numbers, len(self._image_sets))
        return MllamaInputs(keys, placeholders, cached, visible_images(ids, self.token))

    def prefill(  # noqa: D102
        self, tokens: Tensor, starts: Tensor, prompts: Sequence[MllamaInputs], **common: Any
    ) -> Tensor:
        width = tokens.shape[1]
        masks = []
        for prompt, start in zip(prompts, starts.tolist(), strict=True):
            mask = prompt.visible[start : start + width]
            masks.append(torch.cat([mask, mask.new_zeros(width - len(mask), mask.shape[1])]))
        return self._hidden_states(tokens, starts, prompts, masks, **common)

    def decode(  # noqa: D102
        self, tokens: Tensor, starts: Tensor, prompts: Sequence[MllamaInputs], **common: Any
    ) -> Tensor:
        return self._hidden_states(
            tokens, starts, prompts, [prompt.visible[-1:] for prompt in prompts], **common
        )

    def clear(self) -> None:  # noqa: D102
        super().clear()
        self._image_sets.clear()

    def _hidden_states(
        self,
        tokens: Tensor,
        starts: Tensor,
        prompts: Sequence[MllamaInputs],
        masks: Sequence[Tensor],
        **common: Any,
    ) -> Tensor:
        """Last hidden states; ``masks`` are the images visible to each row's new tokens."""
        positions = starts[:, None] + torch.arange(tokens.shape[1])
        states: Tensor = self._text.embed_tokens(tokens)
        rotary = self._text.rotary_emb(states, position_ids=positions)
        groups = self._groups(prompts, masks, states.dtype)
        cross = 0
        for layer in self._text.layers:
            if cross < len(self._cross_layers) and layer is self._cross_layers[cross]:
                states = self._cross_attend(layer, cross, states, groups)
                cross += 1
            else:
                states = layer(states, position_embeddings=rotary, position_ids=positions, **common)
        normalized: Tensor = self._text.norm(states)
        return normalized

    def _groups(
        self, prompts: Sequence[MllamaInputs], masks: Sequence[Tensor], dtype: torch.dtype
    ) -> list[_Group]:
        """Group the rows that show images by the images they show."""
        members: dict[tuple[int, ...], list[int]] = {}
        for row, prompt in enumerate(prompts):
            if prompt.images:
                members.setdefault(tuple(image.number for image in prompt.images), []).append(row)
        groups = []
        for rows in members.values():
            images = prompts[rows[0]].images
            features = [features_of(image) for image in images]
            length = features[0].shape[3]
            tiles = torch.cat([image.inputs["aspect_ratio_mask"][0, 0] for image in images])
            # Each image has the tiles of the largest one; those beyond its own are padding.
            real = tiles.bool().repeat_interleave(length * len(images) // len(tiles))
            mask = torch.stack([masks[row] for row in rows])
            before_images = ~mask.any(-1, keepdim=True)
            # As in transformers, a token before the first image attends to everything, padding included.
            visible = (mask.repeat_interleave(length, dim=2) & real) | before_images
            bias = torch.zeros(visible.shape, dtype=dtype).masked_fill_(~visible, -torch.inf)
            groups.append(
                _Group(
                    rows=torch.tensor(rows),
                    features=features[0] if len(features) == 1 else torch.cat(features, dim=3),
                    bias=bias.view(1, 1, -1, visible.shape[2]),
                    gate=(~before_images).to(dtype),
                )
            )
        return groups

    def _cross_attend(self, layer: Any, index: int, states: Tensor, groups: Sequence[_Group]) -> Tensor:
        """Apply a cross-attention layer; a row without images skips it.

        All rows of a group are queries to one set of keys and values, which is never copied.
        """
        attention, output = layer.cross_attn, states.clone()
        for group in groups:
            hidden = states[group.rows]
            queries = attention.q_proj(layer.input_layernorm(hidden))
            # The group's rows become one row of queries, so that its keys and values need no batch dimension.
            queries = attention.q_norm(queries.view(1, -1, attention.num_heads, attention.head_dim))
            keys, values = group.features[index]
            mixed, _ = slot_attention(
                attention,
                queries.transpose(1, 2),
                keys[None],
                values[None],
                group.bias,
                scaling=attention.scaling,
            )
            attended = attention.o_proj(mixed.reshape(hidden.shape))
            hidden = hidden + layer.cross_attn_attn_gate.tanh() * attended
            feed_forward = layer.mlp(layer.post_attention_layernorm(hidden)) * group.gate
            output[group.rows] = hidden + layer.cross_attn_mlp_gate.tanh() * feed_forward
        return output

    def _encode(self, images: Sequence[CachedImage]) -> Iterable[Features]:
        """Encode one image after another: each may have thousands of patches."""
        model = self.model.model
        for image in images:
            names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
            pixels, ratio, tiles = (inputs_of([image], name) for name in names)
            vision = model.vision_model(pixel_values=pixels, aspect_ratio_ids=ratio, aspect_ratio_mask=tiles)
            states = model.multi_modal_projector(vision.last_hidden_state).flatten(0, 3)
            layers = []
            for layer in self._cross_layers:
                attention = layer.cross_attn
                heads = (-1, attention.num_key_value_heads, attention.head_dim)
                keys = attention.k_norm(attention.k_proj(states).view(heads))
                layers.append(torch.stack([keys, attention.v_proj(states).view(heads)]).transpose(1, 2))
            yield torch.stack(layers).contiguous()

    def _token_count(self, inputs: dict[str, Tensor]) -> int:
        return 1

"""Llama-3.2-Vision (mllama) on the rows of verl's trainers.

verl concatenates the processor's tensors of all rows. That fits a model that takes image after image,
independent of rows; this one takes a table of images per row, and a mask of tokens and images that grows with
the row. Here the model itself assigns images to rows and computes the mask, from the placeholders among a
row's tokens. It is registered with transformers, so verl's actor, reference and SFT trainer load it, and the
critic is built on it. The classes keep their names, by which transformers maps the weights of a folder.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional
from transformers import AutoModelForImageTextToText, MllamaConfig
from transformers import MllamaForConditionalGeneration as PlainMllama
from transformers import MllamaModel as PlainModel

from sftrl_ext.errors import SftrlError

NEVER = -1e4
"""Logit of a token that the model cannot generate; finite, because masked losses multiply it by zero."""


def visible_images(ids: Tensor, token: int) -> Tensor:
    """Mask of the images that each token of a text attends to.

    A token sees the images of the last run of adjacent placeholders up to it, as in the model's processor.

    Args:
        ids: Shape (tokens,).
        token: The placeholder.

    Returns:
        Shape (tokens, images).
    """
    is_image = ids == token
    run_starts = is_image.clone()
    run_starts[1:] &= ~is_image[:-1]
    run = run_starts.cumsum(0)
    positions = is_image.nonzero()[:, 0]
    started = positions <= torch.arange(len(ids), device=ids.device)[:, None]
    return (run[:, None] == run[positions]) & started


class MllamaModel(PlainModel):
    """The model without its head; on inputs of transformers' own layout it is transformers' model.

    Flash attention, which verl asks for, takes no mask of who sees what; torch's own takes its place.
    """

    def __init__(self, config: MllamaConfig) -> None:
        super().__init__(config)
        if "flash" in str(self.language_model.config._attn_implementation):
            self.set_attn_implementation("sdpa")

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        aspect_ratio_mask: Tensor | None = None,
        aspect_ratio_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        cross_attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Compute the last hidden states.

        Args:
            input_ids: Rows, padded on the right. Shape (rows, tokens).
            pixel_values: All images of all rows. Shape (images, 1, tiles, channels, height, width).
            aspect_ratio_mask: Their tiles. Shape (images, 1, tiles).
            aspect_ratio_ids: Their shapes. Shape (images, 1).
            attention_mask: Shape (rows, tokens).
            cross_attention_mask: Ignored, unless it has an entry for each token: then the call is not verl's.
            position_ids: Shape (rows, tokens).
            kwargs: Further arguments of transformers' model.

        Raises:
            SftrlError: if rows are packed, the attention is not sdpa, or the images are not as many as the
                placeholders.
        """
        # A mask with an entry for each token is in transformers' own layout: the caller is not verl.
        complete = cross_attention_mask is not None and cross_attention_mask.shape[1] == _width(input_ids)
        if input_ids is None or complete or not (pixel_values is not None or _ranks_differ()):
            return super().forward(
                input_ids=input_ids,
                pixel_values=pixel_values,
                aspect_ratio_mask=aspect_ratio_mask,
                aspect_ratio_ids=aspect_ratio_ids,
                attention_mask=attention_mask,
                cross_attention_mask=cross_attention_mask if complete else None,
                position_ids=position_ids,
                **kwargs,
            )
        attention = self.language_model.config._attn_implementation
        if attention != "sdpa":
            raise SftrlError(
                f"a model of type mllama trains with attn_implementation sdpa only; found {attention!r}: "
                "set model.override_config.attn_implementation=sdpa."
            )
        if attention_mask is None:
            raise SftrlError(
                "a model of type mllama takes no packed rows: set model.use_remove_padding=false."
            )
        inputs = (pixel_values, aspect_ratio_ids, aspect_ratio_mask)
        states, visible, any_visible = self._cross_attention_inputs(input_ids, *inputs)
        kwargs.pop("cross_attention_states", None)
        return self.language_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cross_attention_states=states,
            cross_attention_mask=visible,
            full_text_row_masked_out_mask=any_visible,
            **kwargs,
        )

    def _cross_attention_inputs(
        self, ids: Tensor, pixels: Tensor | None, shapes: Tensor | None, tiles: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs of the cross-attention layers.

        A row without images has states of zero, which add nothing to it.

        Returns:
            Image states of each row, shape (rows, length, hidden size); the mask of those that each token
            attends to, shape (rows, 1, tokens, length); and of the tokens that attend to any, shape (rows, 1,
            tokens, 1).
        """
        token = int(self.config.image_token_id)
        masks = [visible_images(row, token) for row in ids]
        counts = [mask.shape[1] for mask in masks]
        if pixels is None or shapes is None or tiles is None:
            # Every rank runs every layer, or their collective operations would not match.
            pixels, shapes, tiles = self._black_image(ids.device)
        elif len(pixels) != sum(counts):
            raise SftrlError(
                f"rows with {sum(counts)} placeholders of images ({' + '.join(map(str, counts))}) have "
                f"{len(pixels)} images; expected one for each."
            )
        vision = self.vision_model(pixel_values=pixels, aspect_ratio_ids=shapes, aspect_ratio_mask=tiles)
        features = self.multi_modal_projector(vision.last_hidden_state).flatten(1, 3)
        length, max_images = features.shape[1], max(*counts, 1)
        # Every image has the tiles of the largest; those beyond its own are padding.
        real = tiles[:, 0].bool().repeat_interleave(length // tiles.shape[-1], dim=1)
        states = features.new_zeros(len(ids), max_images * length, features.shape[2])
        visible = torch.zeros(
            len(ids), ids.shape[1], max_images * length, dtype=torch.bool, device=ids.device
        )
        any_visible = torch.zeros(len(ids), ids.shape[1], 1, dtype=torch.bool, device=ids.device)
        start = 0
        for row, (mask, count) in enumerate(zip(masks, counts, strict=True)):
            images = slice(start, start + count)
            states[row, : count * length] = features[images].flatten(0, 1)
            any_visible[row] = mask.any(-1, keepdim=True)
            visible_tiles = mask.repeat_interleave(length, dim=1) & real[images].flatten()
            # As in transformers, a token before the first image attends to all of them.
            visible[row, :, : count * length] = visible_tiles | ~any_visible[row]
            if not count:
                visible[row] = True  # a softmax over nothing would be NaN
            start += count
        if not sum(counts):
            # The encoder's backward pass must run on every rank, too.
            states = states + 0.0 * features.sum()
        return states, visible[:, None], any_visible[:, None]

    def _black_image(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Black image of one tile, to be encoded and attended to by no token."""
        config: Any = self.config.vision_config
        side, tiles = config.image_size, config.max_num_tiles
        pixels = torch.zeros(1, 1, tiles, config.num_channels, side, side, device=device)
        mask = torch.zeros(1, 1, tiles, dtype=torch.long, device=device)
        mask[..., 0] = 1
        return pixels, torch.ones(1, 1, dtype=torch.long, device=device), mask


class MllamaForConditionalGeneration(PlainMllama):
    """transformers' model under its own name, on rows of verl.

    Its logits have an entry for every token that can be read: verl asks for the log-probability of each token
    of a row, placeholders included.
    """

    def __init__(self, config: MllamaConfig) -> None:
        super().__init__(config)
        self.model = MllamaModel(config)
        self.post_init()

    def forward(self, *args: Any, **kwargs: Any) -> Any:  # noqa: D102
        output = super().forward(*args, **kwargs)
        missing = self.get_input_embeddings().num_embeddings - output.logits.shape[-1]
        output.logits = functional.pad(output.logits, (0, missing), value=NEVER)
        return output


def register_mllama() -> None:
    """Register the model where verl looks up its type; a second call does nothing."""
    AutoModelForImageTextToText.register(MllamaConfig, MllamaForConditionalGeneration, exist_ok=True)


def _width(ids: Tensor | None) -> int:
    return 0 if ids is None else ids.shape[1]


def _ranks_differ() -> bool:
    """True if other ranks may have images where this one has none."""
    return distributed.is_initialized() and distributed.get_world_size() > 1

"""Llama-3.2-Vision (mllama) on the rows that verl's trainers make.

verl joins what the rows' processors give along the first dimension. That fits a model that takes image after
image, whatever row they belong to; this one takes a table of images per row, and a mask of which token sees
which image that grows with the row. Here the model itself finds out, from the placeholders among a row's
tokens, which images are the row's and which tokens see them. It is filed in transformers' own registry, so
verl's actor, reference and supervised trainer load it, and the critic is built on it. The classes keep their
names: by them transformers knows what the weights in a folder are called.
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
"""Logit of a token that the model reads and cannot say; finite, because masked losses multiply it by zero."""


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
        """The last states.

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
        told = cross_attention_mask is not None and cross_attention_mask.shape[1] == _width(input_ids)
        if input_ids is None or told or not (pixel_values is not None or _ranks_differ()):
            return super().forward(
                input_ids=input_ids,
                pixel_values=pixel_values,
                aspect_ratio_mask=aspect_ratio_mask,
                aspect_ratio_ids=aspect_ratio_ids,
                attention_mask=attention_mask,
                cross_attention_mask=cross_attention_mask if told else None,
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
        states, visible, any_seen = self._across(input_ids, *inputs)
        kwargs.pop("cross_attention_states", None)
        return self.language_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cross_attention_states=states,
            cross_attention_mask=visible,
            full_text_row_masked_out_mask=any_seen,
            **kwargs,
        )

    def _across(
        self, ids: Tensor, pixels: Tensor | None, shapes: Tensor | None, tiles: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the cross-attention layers take.

        A row without images has states of zero, which add nothing to it.

        Returns:
            The images of each row, shape (rows, length, hidden size); which of that each token sees, shape
            (rows, 1, tokens, length); whether it sees any, shape (rows, 1, tokens, 1).
        """
        token = int(self.config.image_token_id)
        views = [visible_images(row, token) for row in ids]
        counts = [view.shape[1] for view in views]
        if pixels is None or shapes is None or tiles is None:
            # Every rank runs every layer, or their collective operations would not match.
            pixels, shapes, tiles = self._black(ids.device)
        elif len(pixels) != sum(counts):
            raise SftrlError(
                f"rows with {sum(counts)} placeholders of images ({' + '.join(map(str, counts))}) have "
                f"{len(pixels)} images; expected one for each."
            )
        vision = self.vision_model(pixel_values=pixels, aspect_ratio_ids=shapes, aspect_ratio_mask=tiles)
        found = self.multi_modal_projector(vision.last_hidden_state).flatten(1, 3)
        length, most = found.shape[1], max(*counts, 1)
        real = tiles[:, 0].bool().repeat_interleave(length // tiles.shape[-1], dim=1)
        states = found.new_zeros(len(ids), most * length, found.shape[2])
        visible = torch.zeros(len(ids), ids.shape[1], most * length, dtype=torch.bool, device=ids.device)
        any_seen = torch.zeros(len(ids), ids.shape[1], 1, dtype=torch.bool, device=ids.device)
        done = 0
        for row, (view, count) in enumerate(zip(views, counts, strict=True)):
            own = slice(done, done + count)
            states[row, : count * length] = found[own].flatten(0, 1)
            any_seen[row] = view.any(-1, keepdim=True)
            told = view.repeat_interleave(length, dim=1) & real[own].flatten()
            # As in transformers, a token before the first image sees all of them.
            visible[row, :, : count * length] = told | ~any_seen[row]
            if not count:
                visible[row] = True
            done += count
        if not sum(counts):
            states = states + 0.0 * found.sum()
        return states, visible[:, None], any_seen[:, None]

    def _black(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """A black image of one tile, to be looked at without being seen."""
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
        made = super().forward(*args, **kwargs)
        unsaid = self.get_input_embeddings().num_embeddings - made.logits.shape[-1]
        made.logits = functional.pad(made.logits, (0, unsaid), value=NEVER)
        return made


def register_mllama() -> None:
    """File the model where verl looks for one of its type; a second time does nothing."""
    AutoModelForImageTextToText.register(MllamaConfig, MllamaForConditionalGeneration, exist_ok=True)


def _width(ids: Tensor | None) -> int:
    return 0 if ids is None else ids.shape[1]


def _ranks_differ() -> bool:
    """Whether other ranks may have images where this one has none."""
    return distributed.is_initialized() and distributed.get_world_size() > 1

"""Pixels and positions of SFT rows with images.

In models of the Qwen-VL kind an image is a run of placeholder tokens whose positions have three dimensions
(time, height, width); the text after it goes on from the largest of them, as described for M-RoPE by Wang et
al., "Qwen2-VL" (2024), and as verl's agent loop and the rollout engine count. In Llama-3.2-Vision it is one
token like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL.Image import Image

from sftrl_ext.errors import SftrlError
from sftrl_ext.rollout.trained_images import is_mllama, one_by_one
from sftrl_ext.training.row_images import ImageTokens, OneTokenEach

Ids = npt.NDArray[np.int64]


def image_rows(processor: Any) -> ImageRows:
    """Create the converter of images for a processor's model.

    Raises:
        SftrlError: if it is of no known kind.
    """
    return CrossAttentionRows(processor) if is_mllama(processor) else ImageRows(processor)


class ImageRows:
    """Converts images of rows, for models of the Qwen-VL kind.

    Args:
        processor: The model's processor.

    Raises:
        SftrlError: if it is not of the Qwen-VL kind.
    """

    def __init__(self, processor: Any) -> None:
        self.tokens = ImageTokens(processor)

    def expand(self, ids: Ids, mask: Ids, images: Sequence[Image], where: object) -> tuple[Ids, Ids]:
        """Repeat the placeholder of each image as often as it has tokens.

        Args:
            ids: Tokens with one placeholder for each image.
            mask: Loss mask, as long.
            images: The images, in order.
            where: File and row, for the error.
        """
        counts = self.tokens.counts(ids, images, where)
        return np.repeat(ids, counts), np.repeat(mask, counts)

    def inputs(self, images: Sequence[Image]) -> dict[str, torch.Tensor]:
        """Vision inputs: ``pixel_values`` (patches, values), ``image_grid_thw`` (images, 3).

        One row at a time: the image processors work image by image, and do so faster on few.
        """
        tensors = self.tokens.processor(images=list(images), return_tensors="pt")
        return {name: tensors[name] for name in ("pixel_values", "image_grid_thw")}

    def positions(self, ids: Ids, image_inputs: Mapping[str, torch.Tensor], where: object) -> Ids:
        """Positions of expanded tokens.

        Args:
            ids: The tokens.
            image_inputs: `inputs` of the row's images; empty if it has none.
            where: File and row, for the error.

        Returns:
            Shape (4, tokens): the index of the token, then its position in time, height and width.

        Raises:
            SftrlError: if the images' patches are not as many as their placeholders stand for.
        """
        merge = self.tokens.merge
        grids = image_inputs["image_grid_thw"].tolist() if image_inputs else []
        placeholders = np.flatnonzero(ids == self.tokens.placeholder)
        sizes = [(t, h // merge, w // merge) for t, h, w in grids]
        if len(placeholders) != sum(t * h * w for t, h, w in sizes):
            raise SftrlError(
                f"{where} has {len(placeholders)} placeholder tokens; expected "
                f"{' + '.join(str(t * h * w) for t, h, w in sizes) or 0}, as its images are cut into patches."
            )
        positions = np.empty((4, len(ids)), dtype=np.int64)
        positions[0] = np.arange(len(ids))
        # ``done`` tokens have positions, ``used`` placeholders are consumed, ``position`` comes next.
        done = used = position = 0
        for size in sizes:
            start, tokens = int(placeholders[used]), size[0] * size[1] * size[2]
            positions[1:, done:start] = np.arange(position, position + start - done)
            position += start - done
            done, used = start + tokens, used + tokens
            positions[1:, start:done] = position + np.indices(size).reshape(3, -1)
            # Text after an image goes on from the largest of its three positions.
            position += max(size)
        positions[1:, done:] = np.arange(position, position + len(ids) - done)
        return positions


class CrossAttentionRows(ImageRows):
    """Converts images of rows, for Llama-3.2-Vision models.

    Args:
        processor: The model's processor.
    """

    def __init__(self, processor: Any) -> None:
        self.tokens = OneTokenEach(processor)

    def inputs(self, images: Sequence[Image]) -> dict[str, torch.Tensor]:
        """Inputs of `sftrl_ext.training.mllama_rows`: one entry for each image."""
        tensors = self.tokens.processor(images=one_by_one(images), return_tensors="pt")
        return {name: tensors[name] for name in ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")}

    def positions(self, ids: Ids, image_inputs: Mapping[str, torch.Tensor], where: object) -> Ids:
        """Index of each token. Shape (tokens,)."""
        return np.arange(len(ids), dtype=np.int64)

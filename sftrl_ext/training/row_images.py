"""Pictures of a row and their number of tokens, for rows of SFT and prompts of RL alike.

Rows hold no pixels: the pictures are drawn from the row's facts, by the episode that the rollout and
evaluation play. A mismatch is an error that names the row; nothing is ever cut.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

import sftrl_ext.envs  # noqa: F401  registers the tasks
from sftrl_ext.envs.base import count_markers, parse_facts
from sftrl_ext.envs.picture_file import picture_errors
from sftrl_ext.envs.task import make_episode
from sftrl_ext.errors import SftrlError
from sftrl_ext.rollout.trained_images import is_mllama


def draw_images(facts: object, where: object) -> Sequence[Image.Image]:
    """Draw the pictures of a row's episode.

    Args:
        facts: The JSON text of the facts that rebuild the episode.
        where: File and row, for the error; formatted only then.

    Raises:
        SftrlError: if they rebuild no episode.
    """
    try:
        return make_episode(parse_facts(facts, "extra_info.facts")).images()
    except SftrlError as error:
        raise SftrlError(f"{where}: {error}") from error


def open_images(images: Sequence[Mapping[str, Any]] | None, where: object) -> Sequence[Image.Image]:
    """Read the pictures of a row's column ``images``, whose elements have ``bytes`` or a ``path``.

    Raises:
        SftrlError: if one cannot be read.
    """
    pictures = []
    for number, image in enumerate(images or ()):
        source = io.BytesIO(image["bytes"]) if image.get("bytes") else image.get("path")
        if source is None:
            raise SftrlError(f"{where}: image {number} cannot be read: it has neither bytes nor a path.")
        with picture_errors(f"{where}: image {number}"), Image.open(source) as file:
            pictures.append(file.convert("RGB"))
    return pictures


def check_markers(
    messages: Sequence[Mapping[str, str]], images: Sequence[Image.Image], where: object
) -> None:
    """Check that a row has as many image markers as pictures.

    Raises:
        SftrlError: if not.
    """
    markers = count_markers(messages)
    if markers != len(images):
        raise SftrlError(
            f"{where} has {markers} image markers; expected {len(images)}, one for each picture."
        )


def image_tokens(processor: Any) -> ImageTokens:
    """Create the counter of image tokens for a processor.

    Raises:
        SftrlError: if it is of no known kind.
    """
    return OneTokenEach(processor) if is_mllama(processor) else ImageTokens(processor)


class ImageTokens:
    """Counts the tokens of images for a processor of the Qwen-VL kind.

    Args:
        processor: Its image processor cuts an image into square patches, of which ``merge_size`` squared
            become one token; in the text an image is a run of one placeholder token.

    Raises:
        SftrlError: if it is of another kind.
    """

    def __init__(self, processor: Any) -> None:
        images = processor.image_processor
        if "Qwen2VLImageProcessor" not in type(images).__name__ or not hasattr(processor, "image_token_id"):
            raise SftrlError(
                f"the model's {type(processor).__name__} with a {type(images).__name__} is not supported; "
                "expected the processor of a Qwen2-VL, Qwen2.5-VL, Qwen3-VL or Llama-3.2-Vision model."
            )
        self.processor = images
        self.placeholder = int(processor.image_token_id)
        """Placeholder token of images."""
        self.merge = int(images.merge_size)
        self.token_side = int(images.patch_size) * self.merge
        """Side of the square of pixels that becomes one token."""
        self._counts: dict[tuple[int, int], int] = {}

    def count(self, image: Image.Image, where: object) -> int:
        """Count the tokens of an image.

        Raises:
            SftrlError: if it is smaller than what becomes one token, or its sides are too different.
        """
        if image.size in self._counts:
            return self._counts[image.size]
        width, height = image.size
        if min(width, height) < self.token_side:
            raise SftrlError(
                f"{where}: an image is {width}x{height} pixels; expected at least "
                f"{self.token_side}x{self.token_side}, which the model makes one token of."
            )
        try:
            patches = int(self.processor.get_number_of_image_patches(height, width, {}))
        except ValueError as error:
            raise SftrlError(f"{where}: an image of {width}x{height} pixels is refused: {error}") from error
        self._counts[image.size] = patches // self.merge**2
        return self._counts[image.size]

    def check_placeholders(self, placeholders: int, images: Sequence[Image.Image], where: object) -> None:
        """Check that tokens have one placeholder for each image.

        Raises:
            SftrlError: if not.
        """
        if placeholders != len(images):
            raise SftrlError(
                f"{where} has {placeholders} placeholder tokens of images; expected {len(images)}, one for "
                "each picture (the chat template drops pictures, or a message spells the token)."
            )

    def counts(self, ids: npt.NDArray[Any], images: Sequence[Image.Image], where: object) -> npt.NDArray[Any]:
        """Compute the repeats of each token that give an image as many placeholders as tokens.

        Args:
            ids: Tokens with one placeholder for each image.
            images: The images, in order.
            where: File and row, for the error.

        Returns:
            An integer for each of ``ids``, 1 for all but placeholders.

        Raises:
            SftrlError: if there are not as many placeholders as images.
        """
        positions = np.flatnonzero(ids == self.placeholder)
        self.check_placeholders(len(positions), images, where)
        counts = np.ones(len(ids), dtype=np.int64)
        counts[positions] = [self.count(image, where) for image in images]
        return counts


class OneTokenEach(ImageTokens):
    """Counts the tokens of images for a Llama-3.2-Vision model: one for each, whatever its size.

    Args:
        processor: The processor.
    """

    def __init__(self, processor: Any) -> None:
        self.processor = processor.image_processor
        self.placeholder = int(processor.image_token_id)

    def count(self, image: Image.Image, where: object) -> int:
        """Return 1."""
        return 1

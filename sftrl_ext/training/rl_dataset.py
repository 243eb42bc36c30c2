"""Data set of RL stages: verl's own, with a check of every prompt before it is played.

Used by verl's PPO trainer and its rollout workers through ``data.custom_cls.{path,name}``. A row's pictures
are drawn from its facts when the row is read, counted against the markers in the prompt, and their tokens are
added to those of the text: a prompt that is too long is an error that names the row, before anything was
generated from it.

Our agent loop draws the pictures itself, so its rows carry none; a row of another agent loop gets them inside
``raw_prompt``, as content blocks, the way verl's loops expect them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL.Image import Image
from verl.utils.dataset.rl_dataset import RLHFDataset

from sftrl_ext.envs.base import Message
from sftrl_ext.errors import SftrlError
from sftrl_ext.rollout import AGENT_LOOP
from sftrl_ext.rollout.tokens import with_images
from sftrl_ext.training.dataset_rows import read_facts
from sftrl_ext.training.row_images import ImageTokens, check_markers, draw_images, image_tokens

CACHED_PROMPTS = 1 << 16
"""Most prompts whose token counts are cached."""


class EpisodeDataset(RLHFDataset):
    """verl's data set of prompts; rows with ``extra_info.facts`` are checked when they are read.

    Args:
        data_files: One path or several.
        tokenizer: Has a chat template.
        config: verl's ``data`` section. ``default_agent_loop`` names the agent loop of rows that name none.
        processor: The processor of a model that sees images, or None.
        max_samples: Use only so many rows; -1 for all.
    """

    processor: Any

    def __init__(
        self,
        data_files: str | Sequence[str],
        tokenizer: Any,
        config: Any,
        processor: Any = None,
        max_samples: int = -1,
    ) -> None:
        # Before verl's part, which may leave out long prompts and needs these for it.
        self._image_tokens: ImageTokens | None = None
        self._counts: dict[tuple[str, ...], tuple[int, int]] = {}
        files = [data_files] if isinstance(data_files, str) else list(data_files)
        super().__init__(files, tokenizer, config, processor, max_samples)
        self.default_agent_loop = config.get("default_agent_loop", AGENT_LOOP)

    def maybe_filter_out_long_prompts(self, dataframe: Any = None) -> Any:
        """Drop prompts that are too long, if ``filter_overlong_prompts`` is set."""
        if not self.filter_overlong_prompts or "facts" not in (dataframe.features.get("extra_info") or ()):
            return super().maybe_filter_out_long_prompts(dataframe)
        fits = [
            n for n, row in enumerate(dataframe) if self._images_and_length(row)[1] <= self.max_prompt_length
        ]
        return dataframe.select(fits)

    def _build_messages(self, example: dict[str, Any], key: str) -> list[dict[str, Any]]:
        """Build the prompt of a row, with its pictures if its agent loop does not draw them.

        Raises:
            SftrlError: if the prompt and its pictures do not fit together, or not into the limit.
        """
        if _facts(example) is None:
            return super()._build_messages(example, key)
        images, tokens = self._images_and_length(example)
        if tokens > self.max_prompt_length:
            raise SftrlError(
                f"{_RowName(self, example)} has a prompt of {tokens} tokens; expected at most "
                f"data.max_prompt_length={self.max_prompt_length}: raise it, or use a shorter template."
            )
        messages: list[Message] = example[key]
        # Our agent loop draws them itself: rows without pixels travel faster.
        if images and (example.get("agent_name") or self.default_agent_loop) != AGENT_LOOP:
            return with_images(messages, images)
        return messages

    @classmethod
    async def process_multi_modal_info(
        cls, messages: list[dict[str, Any]], image_patch_size: int, config: Any
    ) -> tuple[Any, Any, Any]:
        """Collect pictures, videos and sounds of a prompt; called by verl's agent loops.

        Pictures in memory are returned as they are. Only other media are read by verl.
        """
        parts = [part for message in messages for part in _parts(message) if part.get("type") != "text"]
        if all(part.get("type") == "image" and isinstance(part.get("image"), Image) for part in parts):
            return [part["image"] for part in parts] or None, None, None
        return await super().process_multi_modal_info(messages, image_patch_size, config)

    def _images_and_length(self, row: Mapping[str, Any]) -> tuple[Sequence[Image], int]:
        """Pictures of a row, and the length of its prompt in tokens, pictures included."""
        facts, messages, where = _facts(row), row[self.prompt_key], _RowName(self, row)
        images: Sequence[Image] = () if facts is None else draw_images(facts, where)
        check_markers(messages, images, where)
        if not images:
            return images, self._count(messages, images)[0]
        counter = self._image_tokens = self._image_tokens or self._check_images(where)
        tokens, placeholders = self._count(messages, images)
        counter.check_placeholders(placeholders, images, where)
        # The text has one placeholder for each picture, hence the -1.
        return images, tokens + sum(counter.count(image, where) - 1 for image in images)

    def _count(self, messages: Sequence[Message], images: Sequence[Image]) -> tuple[int, int]:
        """Count the tokens of a prompt with one placeholder for each picture, and the placeholders."""
        key = tuple(text for message in messages for text in (message["role"], message["content"]))
        counts = self._counts.get(key)
        if counts is None:
            has_vision = getattr(self.processor, "image_processor", None) is not None
            template = self.processor if has_vision else self.tokenizer
            text = template.apply_chat_template(
                with_images(messages, images),
                tokenize=False,
                add_generation_prompt=True,
                **self.apply_chat_template_kwargs,
            )
            ids = self.tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
            if len(self._counts) >= CACHED_PROMPTS:
                self._counts.clear()
            counts = len(ids), ids.count(self.processor.image_token_id) if images else 0
            self._counts[key] = counts
        return counts

    def _check_images(self, where: object) -> ImageTokens:
        """Create the counter of image tokens, after a check that no setting changes or cuts pictures."""
        if getattr(self.processor, "image_processor", None) is None:
            raise SftrlError(f"{where} shows an image, but the model has no image processor.")
        if self.truncation != "error":
            raise SftrlError(
                f"{where} shows an image and data.truncation is {self.truncation!r}; expected 'error', "
                "because part of an image is none."
            )
        if self.mm_processor_kwargs:
            raise SftrlError(
                f"{where} shows an image and data.mm_processor_kwargs is {dict(self.mm_processor_kwargs)}; "
                "expected nothing: supervised training and evaluation look at images as the model's own "
                "preprocessor_config.json says."
            )
        return image_tokens(self.processor)


class _RowName:
    """File and index of a row of verl's data set; searched only when it is formatted for an error."""

    def __init__(self, data: EpisodeDataset, row: Mapping[str, Any]) -> None:
        self._data, self._row = data, row

    def __str__(self) -> str:
        facts = _facts(self._row)
        for name, file in zip(self._data.original_data_files, self._data.data_files, strict=True):
            column = read_facts(file) if str(file).endswith(".parquet") else None
            row = -1 if column is None else pc.index(column, pa.scalar(facts, column.type)).as_py()
            if row >= 0:
                return f"{name}, row {row}"
        return f"row {(self._row.get('extra_info') or {}).get('index')}"


def _facts(row: Mapping[str, Any]) -> str | None:
    return (row.get("extra_info") or {}).get("facts")


def _parts(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Content blocks of a message; none if its content is text."""
    content = message.get("content")
    return [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []

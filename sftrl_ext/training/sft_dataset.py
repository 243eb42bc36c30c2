"""Data set of SFT: dialogues as tokens, with loss on the turns a row names.

Used by verl's SFT trainer through ``data.custom_cls.{path,name}``. It differs from verl's own multi-turn
class in what a row may ask for and in speed: the column ``train_turns`` names the assistant turns that carry
loss (a row of wrong attempts and feedback must not teach the wrong attempts), and the text around the model's
turns, which repeats from row to row, is encoded once.

The tokens are those of the rollout: a prompt with its generation prompt is encoded as one piece, then each
assistant turn with whatever the chat template closes it with, then the next message with its generation
prompt. For rows in which every assistant turn is trained, tokens and loss mask equal those of verl's class.

Rows that show images hold what is drawn (`sftrl_ext.training.dataset_rows`); their pictures are drawn and cut
into patches when a row is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL.Image import Image
from torch.utils.data import Dataset

from sftrl_ext.errors import SftrlError, unknown_name
from sftrl_ext.rollout.tokens import with_images
from sftrl_ext.training.dataset_rows import DialogueRow, Dialogues
from sftrl_ext.training.sft_images import image_rows

Ids = npt.NDArray[np.int32]

TRUNCATIONS = ("error", "left", "right")
"""Treatments of a row longer than ``max_length``."""
PAD_MODES = ("no_padding", "right")
"""Rows of their own length, or all padded to ``max_length``."""
CACHED_PIECES = 1 << 16
"""Most pieces of text of one kind whose tokens are kept."""


class _Piece(NamedTuple):
    """Part of a dialogue that is encoded separately."""

    text: str
    answer: bool
    """True for a model's turn."""
    loss: bool


class TurnSFTDataset(Dataset):
    """Rows of ``messages`` as ``input_ids``, ``position_ids`` and ``loss_mask``.

    With a processor of the Qwen-VL kind ``position_ids`` have shape (4, tokens), and where a row of the data
    shows an image, every row has ``multi_modal_inputs`` for the vision encoder, empty if the row shows none.

    Args:
        parquet_files: One path or several; rows are numbered over all of them.
        tokenizer: Has a chat template.
        config: verl's ``data`` section: ``pad_mode``, ``max_length``, ``truncation``, ``messages_key``,
            ``image_key``, ``apply_chat_template_kwargs``, ``shuffle`` and ``seed`` (of the choice of
            ``max_samples``).
        processor: The processor of a model that sees images, or None.
        max_samples: Use only so many rows; -1 for all.

    Raises:
        SftrlError: if a file lacks a column, a row has no dialogue or trains no assistant turn, the
            tokenizer has no chat template, or rows show images that the model cannot see or that might be
            cut.
    """

    def __init__(
        self,
        parquet_files: str | Sequence[str],
        tokenizer: Any,
        config: Mapping[str, Any] | None = None,
        processor: Any = None,
        max_samples: int = -1,
    ) -> None:
        config = config or {}
        self.files = (
            [parquet_files] if isinstance(parquet_files, str) else [str(file) for file in parquet_files]
        )
        self.tokenizer = tokenizer
        self.messages_key = str(config.get("messages_key", "messages"))
        self.max_length = int(config.get("max_length", 1024))
        self.pad_mode = _checked("data.pad_mode", str(config.get("pad_mode", "right")), PAD_MODES)
        self.truncation = _checked("data.truncation", str(config.get("truncation", "error")), TRUNCATIONS)
        self.template_kwargs = dict(config.get("apply_chat_template_kwargs") or {})
        self.images = None if getattr(processor, "image_processor", None) is None else image_rows(processor)
        template = getattr(processor, "chat_template", None) if self.images else None
        if template:
            self.template_kwargs["chat_template"] = template
        elif not getattr(tokenizer, "chat_template", None):
            raise SftrlError(
                f"the tokenizer {getattr(tokenizer, 'name_or_path', '')!r} has no chat template."
            )
        # Model turns (True) apart from the text around them, so that new answers do not evict prompts.
        self._encoded: dict[bool, dict[str, Ids]] = {False: {}, True: {}}
        image_key = str(config.get("image_key", "images"))
        self._tables = [Dialogues(file, self.messages_key, image_key) for file in self.files]
        self._shows_images = self._check_images()
        self._starts = np.cumsum([0] + [len(table) for table in self._tables])
        self._rows = np.arange(self._starts[-1])
        if 0 < max_samples < len(self._rows):
            if config.get("shuffle", False):
                rng = np.random.default_rng(config.get("seed"))
                self._rows = rng.choice(self._rows, size=max_samples, replace=False)
            else:
                self._rows = self._rows[:max_samples]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, item: int) -> dict[str, Any]:
        return self.__getitems__([item])[0]

    def __getitems__(self, items: Sequence[int]) -> list[dict[str, Any]]:
        """Read several rows at once; data loaders call this with a whole batch."""
        locations = [self._locate(int(self._rows[item])) for item in items]
        # All texts of a batch are encoded in one call.
        rows = [self._tables[file].row(row) for file, row in locations]
        texts = [self._render(row, *location) for row, location in zip(rows, locations, strict=True)]
        for answer, cache in self._encoded.items():
            self._encode(
                {piece.text for pieces in texts for piece in pieces if piece.answer == answer}, cache
            )
        return [
            self._row(pieces, row.images, *location)
            for pieces, row, location in zip(texts, rows, locations, strict=True)
        ]

    def _check_images(self) -> bool:
        """True if a row shows an image; then rows must not be cut."""
        for table in self._tables:
            if table.first_marked is None:
                continue
            where = table.name(table.first_marked)
            if self.images is None:
                raise SftrlError(f"{where} shows an image, but the model has no image processor.")
            if self.truncation != "error":
                raise SftrlError(
                    f"{where} shows an image and data.truncation is {self.truncation!r}; expected 'error', "
                    "because part of an image is none."
                )
            return True
        return False

    def _locate(self, row: int) -> tuple[int, int]:
        """Index of a row's file, and of the row in it."""
        file = int(np.searchsorted(self._starts, row, side="right")) - 1
        return file, row - int(self._starts[file])

    def _render(self, dialogue: DialogueRow, file: int, row: int) -> list[_Piece]:
        """Render a row's dialogue as pieces of text."""
        trained = dialogue.trained
        messages: list[dict[str, Any]] = dialogue.messages
        if dialogue.images:
            messages = with_images(dialogue.messages, dialogue.images)
        pieces: list[_Piece] = []
        # The template renders every prefix of the dialogue: the difference of two prefixes is one piece.
        done = ""
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            prompt = self._template(messages[:turn], generation_prompt=True)
            answered = self._template(messages[: turn + 1], generation_prompt=False)
            if not (prompt.startswith(done) and answered.startswith(prompt)):
                raise SftrlError(
                    f"{self._name(file, row)}: the chat template writes message {turn} differently with what "
                    "follows it than without, so the tokens of a turn are not defined."
                )
            pieces.append(_Piece(prompt[len(done) :], answer=False, loss=False))
            pieces.append(
                _Piece(answered[len(prompt) :], answer=True, loss=trained is None or turn in trained)
            )
            done = answered
        if messages[-1]["role"] != "assistant":
            rest = self._template(messages, generation_prompt=False)[len(done) :]
            pieces.append(_Piece(rest, answer=False, loss=False))
        return pieces

    def _template(self, messages: list[dict[str, Any]], *, generation_prompt: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generation_prompt, **self.template_kwargs
            )
        )

    def _encode(self, texts: set[str], cache: dict[str, Ids]) -> None:
        """Put the tokens of all texts into a cache; a full cache is emptied first."""
        if len(cache) + len(texts) > CACHED_PIECES:
            cache.clear()
        new = [text for text in texts if text not in cache]
        if not new:
            return
        encoded = self.tokenizer(new, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        for text, ids in zip(new, encoded, strict=True):
            cache[text] = np.asarray(ids, dtype=np.int32)

    def _row(self, pieces: list[_Piece], images: Sequence[Image], file: int, row: int) -> dict[str, Any]:
        parts = [self._encoded[piece.answer][piece.text] for piece in pieces]
        ids = np.concatenate(parts, dtype=np.int64)
        mask = np.repeat([int(piece.loss) for piece in pieces], [len(part) for part in parts])
        where = self._name(file, row)
        # The template writes one placeholder per image; the model expects one per image token.
        if self.images is not None:
            ids, mask = self.images.expand(ids, mask, images, where)
        length = len(ids)
        if length > self.max_length:
            if self.truncation == "error":
                raise SftrlError(
                    f"{where} has {length} tokens, more than data.max_length={self.max_length}: raise it"
                    + ("." if images else ", or set data.truncation to left or right.")
                )
            kept = slice(-self.max_length, None) if self.truncation == "left" else slice(self.max_length)
            ids, mask, length = ids[kept], mask[kept], self.max_length
        image_inputs = self.images.inputs(images) if self.images is not None and images else {}
        positions = np.arange(length, dtype=np.int64)
        if self.images is not None:
            positions = self.images.positions(ids, image_inputs, where)
        arrays = {"input_ids": ids, "position_ids": positions, "loss_mask": mask}
        if self.pad_mode == "right":
            arrays["attention_mask"] = np.ones(length, dtype=np.int64)
            arrays = {key: self._padded(key, value) for key, value in arrays.items()}
        tensors: dict[str, Any] = {key: torch.from_numpy(value) for key, value in arrays.items()}
        if self._shows_images:
            tensors["multi_modal_inputs"] = image_inputs
        return tensors

    def _padded(self, key: str, values: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Pad an array along the tokens to ``max_length``."""
        pad = self.tokenizer.pad_token_id if key == "input_ids" else 0
        padding = [(0, 0)] * (values.ndim - 1) + [(0, self.max_length - values.shape[-1])]
        return np.pad(values, padding, constant_values=pad or 0)

    def _name(self, file: int, row: int) -> str:
        return f"{self.files[file]}, row {row}"


def _checked(key: str, value: str, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise unknown_name(key, value, allowed)
    return value

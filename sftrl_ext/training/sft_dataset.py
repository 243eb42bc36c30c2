"""The data set of supervised stages: dialogues as tokens, with loss on the turns a row names.

Used by verl's SFT trainer through ``data.custom_cls.{path,name}``. It differs from verl's own multi-turn
class in what a row may ask for and in speed: the column ``train_turns`` names the assistant turns that carry
loss (a row of wrong attempts and feedback must not teach the wrong attempts), and the text around the model's
turns, which repeats from row to row, is encoded once.

The tokens are those of the rollout: a prompt with its generation prompt is encoded as one piece, then each
assistant turn with whatever the chat template closes it with, then the next message with its generation
prompt. For rows in which every assistant turn is trained, tokens and loss mask equal those of verl's class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch.utils.data import Dataset

from sftrl_ext.errors import SftrlError, unknown_name

Ids = npt.NDArray[np.int32]

TRAIN_TURNS = "train_turns"
"""The column that names the trained turns; without it every assistant turn is trained."""
TRUNCATIONS = ("error", "left", "right")
"""What to do with a row longer than ``max_length``."""
PAD_MODES = ("no_padding", "right")
"""Rows of their own length, or all padded to ``max_length``."""
CACHED_PIECES = 1 << 16
"""Most pieces of text of one kind whose tokens are kept."""


class _Piece(NamedTuple):
    """A stretch of a dialogue that is encoded by itself."""

    text: str
    answer: bool
    """Whether it is a model's turn."""
    loss: bool


class TurnSFTDataset(Dataset):
    """Rows of ``messages`` as ``input_ids``, ``position_ids`` and ``loss_mask``.

    Args:
        parquet_files: One path or several; rows are numbered over all of them.
        tokenizer: Has a chat template.
        config: verl's ``data`` section: ``pad_mode``, ``max_length``, ``truncation``, ``messages_key``,
            ``apply_chat_template_kwargs``, ``shuffle`` and ``seed`` (of the choice of ``max_samples``).
        processor: Must be None: rows with images are not supported here.
        max_samples: Use only so many rows; -1 for all.

    Raises:
        SftrlError: if a file lacks a column, a row has no dialogue or trains no assistant turn, or the
            tokenizer has no chat template.
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
        self.pad_mode = _one_of("data.pad_mode", str(config.get("pad_mode", "right")), PAD_MODES)
        self.truncation = _one_of("data.truncation", str(config.get("truncation", "error")), TRUNCATIONS)
        self.template_kwargs = dict(config.get("apply_chat_template_kwargs") or {})
        if not getattr(tokenizer, "chat_template", None):
            raise SftrlError(
                f"the tokenizer {getattr(tokenizer, 'name_or_path', '')!r} has no chat template."
            )
        if getattr(processor, "image_processor", None) is not None:
            raise SftrlError("rows with images are not supported by TurnSFTDataset yet.")
        # The model's turns (True) apart from the text around them: new answers do not drive out old prompts.
        self._encoded: dict[bool, dict[str, Ids]] = {False: {}, True: {}}
        self._tables = [_read(file, self.messages_key) for file in self.files]
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

    def __getitem__(self, item: int) -> dict[str, torch.Tensor]:
        return self.__getitems__([item])[0]

    def __getitems__(self, items: Sequence[int]) -> list[dict[str, torch.Tensor]]:
        """Several rows at once; data loaders call this with a whole batch."""
        places = [self._place(int(self._rows[item])) for item in items]
        texts = [self._render(*place) for place in places]
        for answer, known in self._encoded.items():
            self._encode(
                {piece.text for pieces in texts for piece in pieces if piece.answer == answer}, known
            )
        return [self._row(pieces, *place) for pieces, place in zip(texts, places, strict=True)]

    def _place(self, row: int) -> tuple[int, int]:
        """File and row in it."""
        file = int(np.searchsorted(self._starts, row, side="right")) - 1
        return file, row - int(self._starts[file])

    def _render(self, file: int, row: int) -> list[_Piece]:
        """The row's dialogue as pieces of text."""
        messages, trained = self._tables[file].row(row)
        pieces: list[_Piece] = []
        done = ""
        for turn, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            asked = self._template(messages[:turn], generation_prompt=True)
            answered = self._template(messages[: turn + 1], generation_prompt=False)
            if not (asked.startswith(done) and answered.startswith(asked)):
                raise SftrlError(
                    f"{self._name(file, row)}: the chat template writes message {turn} differently with what "
                    "follows it than without, so the tokens of a turn are not defined."
                )
            pieces.append(_Piece(asked[len(done) :], answer=False, loss=False))
            pieces.append(
                _Piece(answered[len(asked) :], answer=True, loss=trained is None or turn in trained)
            )
            done = answered
        if messages[-1]["role"] != "assistant":
            rest = self._template(messages, generation_prompt=False)[len(done) :]
            pieces.append(_Piece(rest, answer=False, loss=False))
        return pieces

    def _template(self, messages: list[dict[str, str]], *, generation_prompt: bool) -> str:
        return str(
            self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=generation_prompt, **self.template_kwargs
            )
        )

    def _encode(self, texts: set[str], known: dict[str, Ids]) -> None:
        """Put the tokens of all texts into a cache; a full cache is emptied first."""
        if len(known) + len(texts) > CACHED_PIECES:
            known.clear()
        new = [text for text in texts if text not in known]
        if not new:
            return
        encoded = self.tokenizer(new, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        for text, ids in zip(new, encoded, strict=True):
            known[text] = np.asarray(ids, dtype=np.int32)

    def _row(self, pieces: list[_Piece], file: int, row: int) -> dict[str, torch.Tensor]:
        parts = [self._encoded[piece.answer][piece.text] for piece in pieces]
        ids = np.concatenate(parts, dtype=np.int64)
        mask = np.repeat([int(piece.loss) for piece in pieces], [len(part) for part in parts])
        length = len(ids)
        if length > self.max_length:
            if self.truncation == "error":
                raise SftrlError(
                    f"{self._name(file, row)} has {length} tokens, more than data.max_length="
                    f"{self.max_length}: raise it, or set data.truncation to left or right."
                )
            kept = slice(-self.max_length, None) if self.truncation == "left" else slice(self.max_length)
            ids, mask, length = ids[kept], mask[kept], self.max_length
        positions = np.arange(length, dtype=np.int64)
        if self.pad_mode == "no_padding":
            arrays = {"input_ids": ids, "position_ids": positions, "loss_mask": mask}
            return {key: torch.from_numpy(value) for key, value in arrays.items()}
        padding = (0, self.max_length - length)
        pad = self.tokenizer.pad_token_id
        arrays = {
            "input_ids": np.pad(ids, padding, constant_values=0 if pad is None else pad),
            "attention_mask": np.pad(np.ones(length, dtype=np.int64), padding),
            "position_ids": np.pad(positions, padding),
            "loss_mask": np.pad(mask, padding),
        }
        return {key: torch.from_numpy(value) for key, value in arrays.items()}

    def _name(self, file: int, row: int) -> str:
        return f"{self.files[file]}, row {row}"


class _Dialogues:
    """The dialogues of one file, kept in Arrow; a row becomes Python objects only when it is read."""

    def __init__(self, file: str, messages: pa.ChunkedArray, trained: pa.ChunkedArray | None) -> None:
        self.file = file
        self._messages, self._trained = messages.chunks, None if trained is None else trained.chunks
        self._starts = np.cumsum([0] + [len(chunk) for chunk in self._messages])
        for chunk, start in zip(self._messages, self._starts, strict=False):
            part = None if trained is None else trained.slice(start, len(chunk))
            self._check(chunk, part, int(start))

    def __len__(self) -> int:
        return int(self._starts[-1])

    def row(self, row: int) -> tuple[list[dict[str, str]], set[int] | None]:
        """Messages of a row, and the turns it trains (None: all)."""
        chunk = int(np.searchsorted(self._starts, row, side="right")) - 1
        at = row - int(self._starts[chunk])
        messages = self._messages[chunk][at].as_py()
        return messages, None if self._trained is None else set(self._trained[chunk][at].as_py())

    def _check(self, messages: pa.ListArray, trained: pa.ChunkedArray | None, first: int) -> None:
        """Every row has a dialogue and trains assistant turns only, at least one."""
        offsets = messages.offsets.to_numpy()
        lengths = np.diff(offsets)
        self._refuse(lengths == 0, first, "has no messages", "a dialogue (is this a file of RL prompts?)")
        roles = messages.values.field("role")
        assistant = np.asarray(roles.to_numpy(zero_copy_only=False) == "assistant")
        if trained is None:
            per_row = np.add.reduceat(
                assistant[offsets[0] : offsets[-1]].astype(int), offsets[:-1] - offsets[0]
            )
            self._refuse(per_row == 0, first, "has no assistant message", "at least one to learn from")
            return
        turns = pa.concat_arrays(trained.chunks)
        counts = np.diff(turns.offsets.to_numpy())
        self._refuse(counts == 0, first, f"has an empty {TRAIN_TURNS}", "at least one turn to learn from")
        flat = turns.flatten().to_numpy()
        of = np.repeat(np.arange(len(lengths)), counts)
        inside = (flat >= 0) & (flat < lengths[of])
        right = inside.copy()
        right[inside] = assistant[offsets[of[inside]] + flat[inside]]
        wrong = np.zeros(len(lengths), dtype=bool)
        wrong[of[~right]] = True
        self._refuse(
            wrong, first, f"names a message in {TRAIN_TURNS} that is not an assistant's", "indices of those"
        )

    def _refuse(self, wrong: npt.NDArray[np.bool_], first: int, found: str, expected: str) -> None:
        if bool(wrong.any()):
            row = first + int(np.argmax(wrong))
            more = f" (and {int(wrong.sum()) - 1} more rows)" if int(wrong.sum()) > 1 else ""
            raise SftrlError(f"{self.file}, row {row}{more} {found}; expected {expected}.")


def _read(file: str, messages_key: str) -> _Dialogues:
    try:
        schema = pq.read_schema(file)
    except (OSError, pa.ArrowException) as error:
        raise SftrlError(f"{file} cannot be read as parquet: {error}") from error
    if messages_key not in schema.names:
        raise SftrlError(f"{file} has no column {messages_key!r}; found {', '.join(schema.names)}.")
    columns = [name for name in (messages_key, TRAIN_TURNS) if name in schema.names]
    table = pq.read_table(file, columns=columns)
    # One chunking for both columns, so that a row has the same place in both.
    batches = table.to_batches()
    if not batches:
        raise SftrlError(f"{file} has no rows.")
    parts = {name: pa.chunked_array([batch.column(name) for batch in batches]) for name in columns}
    return _Dialogues(file, parts[messages_key], parts.get(TRAIN_TURNS))


def _one_of(key: str, value: str, known: Sequence[str]) -> str:
    if value not in known:
        raise unknown_name(key, value, known)
    return value

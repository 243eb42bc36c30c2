"""Dialogues of a parquet file, kept in Arrow; a row becomes Python objects only when it is read.

Pictures of image markers come from one of three sources: the files that a row's column ``images`` names, else
the column ``extra_info.facts``, from which they are drawn, and in a file without facts the pictures stored in
the column ``images``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from PIL.Image import Image

from sftrl_ext.envs.base import IMAGE_MARKER, count_markers
from sftrl_ext.errors import SftrlError
from sftrl_ext.files import parquet_errors
from sftrl_ext.training.row_images import check_markers, draw_images, open_images

TRAIN_TURNS = "train_turns"
"""Column that names the trained turns; without it every assistant turn is trained."""
FACTS = "extra_info.facts"
"""Column that a row's pictures are drawn from."""

Flags = npt.NDArray[np.bool_]


class DialogueRow(NamedTuple):
    """One dialogue."""

    messages: list[dict[str, str]]
    trained: set[int] | None
    """Indices of the trained messages; None for every assistant message."""
    images: Sequence[Image]
    """Pictures of the image markers in the messages, in order."""


class Dialogues:
    """Rows of one file; a file without a single image marker is text, and nothing is drawn for it.

    Args:
        file: Path of the file.
        messages_key: The column of dialogues.
        images_key: The column of pictures, of rows that are not drawn.

    Raises:
        SftrlError: if the file lacks a column, or a row has no dialogue or trains no assistant turn.
    """

    def __init__(self, file: str, messages_key: str = "messages", images_key: str = "images") -> None:
        self.file = file
        schema = _schema(file)
        if messages_key not in schema.names:
            raise SftrlError(f"{file} has no column {messages_key!r}; found {', '.join(schema.names)}.")
        columns = [name for name in (messages_key, TRAIN_TURNS) if name in schema.names]
        # Read together, so that all columns have the same chunks.
        with parquet_errors(file):
            batches = pq.read_table(file, columns=columns).to_batches()
        if not batches:
            raise SftrlError(f"{file} has no rows.")
        self._messages = [batch.column(messages_key) for batch in batches]
        self._trained = [batch.column(TRAIN_TURNS) for batch in batches] if TRAIN_TURNS in columns else None
        self._starts = np.cumsum([0] + [len(batch) for batch in batches])
        for chunk, start in enumerate(self._starts[:-1]):
            self._check(self._messages[chunk], self._trained and self._trained[chunk], int(start))
        marked = [_first_marked(messages) for messages in self._messages]
        self.first_marked = next(
            (int(s) + m for s, m in zip(self._starts, marked, strict=False) if m is not None), None
        )
        """First row that shows an image, or None."""
        self._facts: pa.ChunkedArray | None = None
        self._pictures: pa.ChunkedArray | None = None
        self._paths: pa.ChunkedArray | None = None
        if self.first_marked is not None:
            self._read_images(schema, images_key)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def name(self, row: int) -> str:
        """File and row, for errors."""
        return f"{self.file}, row {row}"

    def row(self, row: int) -> DialogueRow:
        """Read one row, with its pictures.

        Raises:
            SftrlError: if markers and pictures are not as many, or a picture can be neither drawn nor read.
        """
        chunk = int(np.searchsorted(self._starts, row, side="right")) - 1
        index = row - int(self._starts[chunk])
        messages = self._messages[chunk][index].as_py()
        trained = None if self._trained is None else set(self._trained[chunk][index].as_py())
        images: Sequence[Image] = ()
        if self._paths is not None and (paths := self._paths[row].as_py()):
            images = open_images(paths, self.name(row))
        elif self._paths is not None and count_markers(messages) == 0:
            images = ()
        elif self._facts is not None:
            images = draw_images(self._facts[row].as_py(), self.name(row))
        elif self._pictures is not None:
            images = open_images(self._pictures[row].as_py(), self.name(row))
        if self.first_marked is not None:
            check_markers(messages, images, self.name(row))
        return DialogueRow(messages, trained, images)

    def _read_images(self, schema: pa.Schema, images_key: str) -> None:
        """Read the columns that the rows' pictures come from."""
        self._facts = read_facts(self.file)
        if self._facts is not None:
            self._paths = _picture_paths(self.file, images_key) if images_key in schema.names else None
            return
        if images_key in schema.names:
            with parquet_errors(self.file):
                self._pictures = pq.read_table(self.file, columns=[images_key])[images_key]
        else:
            raise SftrlError(
                f"{self.name(self.first_marked or 0)} shows an image, but the file has neither {FACTS} to "
                f"draw it from nor a column {images_key!r}; found {', '.join(schema.names)}."
            )

    def _check(self, messages: pa.ListArray, turns: pa.ListArray | None, first: int) -> None:
        """Check that every row has a dialogue and trains assistant turns only, at least one."""
        # All rows at once on the flattened messages: row i is offsets[i] to offsets[i + 1].
        offsets = messages.offsets.to_numpy()
        lengths = np.diff(offsets)
        self._refuse(lengths == 0, first, "has no messages", "a dialogue (is this a file of RL prompts?)")
        assistant = _assistant(messages)
        if turns is None:
            per_row = np.add.reduceat(
                assistant[offsets[0] : offsets[-1]].astype(int), offsets[:-1] - offsets[0]
            )
            self._refuse(per_row == 0, first, "has no assistant message", "at least one to learn from")
            return
        counts = np.diff(turns.offsets.to_numpy())
        self._refuse(counts == 0, first, f"has an empty {TRAIN_TURNS}", "at least one turn to learn from")
        flat = turns.flatten().to_numpy()
        row = np.repeat(np.arange(len(lengths)), counts)
        inside = (flat >= 0) & (flat < lengths[row])
        valid = inside.copy()
        valid[inside] = assistant[offsets[row[inside]] + flat[inside]]
        wrong = np.zeros(len(lengths), dtype=bool)
        wrong[row[~valid]] = True
        self._refuse(
            wrong, first, f"names a message in {TRAIN_TURNS} that is not an assistant's", "indices of those"
        )

    def _refuse(self, wrong: Flags, first: int, problem: str, expected: str) -> None:
        if bool(wrong.any()):
            row = first + int(np.argmax(wrong))
            more = f" (and {int(wrong.sum()) - 1} more rows)" if int(wrong.sum()) > 1 else ""
            raise SftrlError(f"{self.name(row)}{more} {problem}; expected {expected}.")


def read_facts(file: str) -> pa.ChunkedArray | None:
    """Read the facts of every row of a file; None if it has none."""
    with parquet_errors(file), pq.ParquetFile(file) as opened_file:
        if FACTS not in {opened_file.schema.column(i).path for i in range(len(opened_file.schema))}:
            return None
        return pc.struct_field(opened_file.read(columns=[FACTS])["extra_info"], "facts")


def _picture_paths(file: str, images_key: str) -> pa.ChunkedArray | None:
    """Read the picture paths of every row, without the bytes beside them; None if no row has a path."""
    with parquet_errors(file), pq.ParquetFile(file) as opened_file:
        paths = [opened_file.schema.column(i).path for i in range(len(opened_file.schema))]
        named = [path for path in paths if path.startswith(f"{images_key}.") and path.endswith(".path")]
        column = opened_file.read(columns=named)[images_key] if named else None
    if column is None or column.combine_chunks().flatten().field("path").null_count == len(
        pc.list_flatten(column)
    ):
        return None
    return column


def _schema(file: str) -> Any:
    with parquet_errors(file):
        return pq.read_schema(file)


def _assistant(messages: pa.ListArray) -> Flags:
    """Mask of the assistant's messages."""
    return np.asarray(messages.values.field("role").to_numpy(zero_copy_only=False) == "assistant")


def _first_marked(messages: pa.ListArray) -> int | None:
    """Index of the first row with an image marker in a message that is not an assistant's."""
    matches = pc.match_substring(messages.values.field("content"), IMAGE_MARKER)
    flags = matches.fill_null(False).to_numpy(zero_copy_only=False) & ~_assistant(messages)
    offsets = messages.offsets.to_numpy()
    # ``values`` ignores the slice of a batch: only messages from the first to the last offset are its own.
    marked = np.flatnonzero(flags[: offsets[-1]])
    marked = marked[marked >= offsets[0]]
    return int(np.searchsorted(offsets, marked[0], side="right")) - 1 if len(marked) else None

"""Import the authors' SFT data (a ``data.json`` of `tianzhechu/SFTvsRL_Data`) into our schema.

The file is one JSON list of ``{"image": null | path | [paths], "conversations": [{"from": ..., "value": ...},
...]}``. It is read record by record, so a file of any length takes constant memory. Prompts stay as they are;
the facts of a row are read off its last answer (`TaskRows.read_answer`), and are ``{}`` when they cannot be,
as always for routes: a dialogue does not say where its route goes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from data_prep.schema import IMAGE_SCHEMA, SCHEMA, dialogues_array, rows_table
from data_prep.task_rows import find_rows
from data_prep.writer import ROW_GROUP, write_rows
from sftrl_ext.envs.base import IMAGE_MARKER, facts_text
from sftrl_ext.envs.task import TASKS
from sftrl_ext.envs.task_config import TaskConfig
from sftrl_ext.errors import SftrlError

SPLIT = "imported"
"""Split name of imported rows."""

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
"""The word in ``from`` to the role it means."""

_CHUNK = 1 << 20
_SLACK = 16
_BETWEEN = re.compile(r"[ \t\r\n,]*")


def read_records(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Stream the items of a file that is one JSON list, with their numbers.

    Raises:
        SftrlError: naming the file and the item at which it stops being one.
    """
    decoder = json.JSONDecoder()
    with open(path, encoding="utf-8-sig") as file:
        text = _read(path, file, _CHUNK).lstrip()
        if text[:1] != "[":
            raise SftrlError(f"{path}: expected a JSON list of records, found {text[:20]!r}.")
        position, index = 1, 0
        while True:
            position = _end_of(_BETWEEN, text, position)
            if text[position : position + 1] == "]":
                return
            try:
                item, end = decoder.raw_decode(text, position)
                problem = "the list is not closed; is the file cut off?"
            except json.JSONDecodeError as error:
                end, problem = len(text), f"not JSON: {error.msg}"
                # An error near the end of what is read, or in a string that does not end there, may come from
                # the cut.
                if error.pos + _SLACK < len(text) and not error.msg.startswith("Unterminated string"):
                    raise SftrlError(f"{path}: record {index}: {problem}") from None
            except (ValueError, RecursionError) as error:  # a number of too many digits, too deep a nesting
                raise SftrlError(f"{path}: record {index}: not JSON: {error}.") from None
            if end < len(text):
                yield index, item
                index, position = index + 1, end
                continue
            # The item may go on. At least double the text, so that a record of any length takes linear time.
            piece = _read(path, file, max(_CHUNK, len(text) - position))
            if not piece:
                raise SftrlError(f"{path}: record {index}: {problem}")
            text, position = text[position:] + piece, 0


def _read(path: str | Path, file: TextIO, characters: int) -> str:
    """Read from a text file.

    Raises:
        SftrlError: if it is not UTF-8.
    """
    try:
        return file.read(characters)
    except UnicodeDecodeError as error:
        raise SftrlError(f"{path}: expected a JSON file in UTF-8 ({error}).") from None


def _end_of(pattern: re.Pattern[str], text: str, position: int) -> int:
    match = pattern.match(text, position)
    return match.end() if match else position


def _messages(path: Path, index: int, record: Any) -> list[tuple[str, str]]:
    turns = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(turns, list) or not turns:
        actual = sorted(record) if isinstance(record, dict) else type(record).__name__
        raise SftrlError(
            f"{path}: record {index}: expected a non-empty list under 'conversations', found {actual}."
        )
    messages = []
    for turn in turns:
        who = turn.get("from") if isinstance(turn, dict) else None
        text = turn.get("value") if isinstance(turn, dict) else None
        if not isinstance(who, str) or who not in ROLES or not isinstance(text, str):
            raise SftrlError(
                f"{path}: record {index}: expected turns {{'from': ..., 'value': text}} with 'from' one of "
                f"{', '.join(ROLES)}; found {repr(turn)[:80]}."
            )
        messages.append((ROLES[who], _unicode(path, index, text)))
    if messages[-1][0] != "assistant" or messages[0][0] == "assistant":
        raise SftrlError(
            f"{path}: record {index}: expected a dialogue that starts with 'human' and ends with 'gpt'."
        )
    return messages


def _unicode(path: Path, index: int, text: str) -> str:
    """Refuse half of a surrogate pair, which JSON can escape and no parquet file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise SftrlError(
            f"{path}: record {index}: a text has the lone surrogate {ascii(text[error.start])} at character "
            f"{error.start}; expected Unicode."
        ) from None
    return text


def _images(path: Path, index: int, record: Any, folder: Path | None) -> list[dict[str, Any]]:
    image = record.get("image")
    names = [] if image is None else image if isinstance(image, list) else [image]
    if not all(isinstance(name, str) for name in names):
        raise SftrlError(
            f"{path}: record {index}: 'image' is {repr(image)[:80]}, expected null, a path or paths."
        )
    return [{"bytes": None, "path": str(folder / name if folder else name)} for name in names]


def _check_pictures(
    path: Path, index: int, messages: list[tuple[str, str]], pictures: list[dict[str, Any]]
) -> None:
    """Every picture is a file, and a marker in what the model reads stands for it."""
    for picture in pictures:
        if not Path(picture["path"]).is_file():
            raise SftrlError(
                f"{path}: record {index}: 'image' names {picture['path']}; expected the path of a file, "
                "from the folder of the data file on."
            )
    markers = sum(text.count(IMAGE_MARKER) for role, text in messages if role != "assistant")
    if markers != len(pictures):
        raise SftrlError(
            f"{path}: record {index}: 'conversations' has {markers} times {IMAGE_MARKER}; expected "
            f"{len(pictures)}, one for each picture of 'image'."
        )


def imported_tables(
    path: str | Path,
    *,
    images: bool = False,
    image_folder: str | Path | None = None,
    train: str = "all",
    config: TaskConfig | None = None,
) -> Iterator[pa.Table]:
    """Stream an authors' file as tables of our schema.

    Args:
        path: The ``data.json``.
        images: Make a column of image paths; without it a record with an image is an error.
        image_folder: What image paths are relative to.
        train: "all" assistant turns carry loss, or only the "last".
        config: The task, and how its episodes are played when the rows are used as RL prompts; by default
            cards.

    Raises:
        SftrlError: naming the file, the record and what was expected there.
    """
    path = Path(path)
    if not path.is_file():
        raise SftrlError(f"{path}: no such file.")
    if train not in ("all", "last"):
        raise SftrlError(f"train is {train!r}, expected 'all' or 'last'.")
    folder = Path(image_folder) if image_folder else None
    config = config or TaskConfig()
    group: list[tuple[int, list[tuple[str, str]], list[dict[str, Any]]]] = []
    for index, record in read_records(path):
        messages = _messages(path, index, record)
        pictures = _images(path, index, record, folder)
        if pictures and not images:
            raise SftrlError(
                f"{path}: record {index}: 'image' is {str(record['image'])[:80]!r}; expected null where "
                "cards and places are text (modality 'image' takes pictures)."
            )
        _check_pictures(path, index, messages, pictures)
        group.append((index, messages, pictures))
        if len(group) == ROW_GROUP:
            yield _table(group, images, train, config)
            group = []
    if group:
        yield _table(group, images, train, config)


def _table(
    group: list[tuple[int, list[tuple[str, str]], list[dict[str, Any]]]],
    images: bool,
    train: str,
    config: TaskConfig,
) -> pa.Table:
    task, read_answer = TASKS[config.kind], find_rows(config.kind).read_answer
    roles = [[role for role, _ in messages] for _, messages, _ in group]
    texts = [[text for _, text in messages] for _, messages, _ in group]
    opening = [row.index("assistant") for row in roles]
    turns = [[i for i, role in enumerate(row) if role == "assistant"] for row in roles]
    table = rows_table(
        data_source=f"{task.data_sources['text']}/{SPLIT}",
        split=SPLIT,
        seed=0,
        index=pa.array([index for index, _, _ in group], pa.int64()),
        facts=pa.array([facts_text(read_answer(row[-1], config)) for row in texts], pa.string()),
        prompt=dialogues_array(
            [row[:n] for row, n in zip(roles, opening, strict=True)],
            [row[:n] for row, n in zip(texts, opening, strict=True)],
        ),
        messages=dialogues_array(roles, texts),
        train_turns=pa.array([row if train == "all" else row[-1:] for row in turns], pa.list_(pa.int64())),
        ability=task.ability,
    )
    if images:
        field = IMAGE_SCHEMA.field("images")
        table = table.append_column(field, pa.array([pictures for _, _, pictures in group], field.type))
    return table


def import_authors(
    path: str | Path,
    out: str | Path,
    *,
    images: bool = False,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> int:
    """Convert an authors' ``data.json`` to parquet; see `imported_tables` for the options.

    Args:
        path: The ``data.json``.
        out: The parquet file to write.
        images: As in `imported_tables`.
        progress: Takes the number of rows written so far.
        **options: Further arguments of `imported_tables`.

    Returns:
        How many rows were written.
    """
    tables = imported_tables(path, images=images, **options)
    return write_rows(out, tables, IMAGE_SCHEMA if images else SCHEMA, progress)

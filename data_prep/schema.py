"""The one schema of every row this project trains or evaluates on.

RL and SFT files have the same columns, so files can be concatenated. A row carries the facts of an episode as
JSON; ``make_episode(json.loads(row["extra_info"]["facts"]))`` rebuilds it, and draws its pictures. ``images``
is a column only where pictures are in the file, because verl's SFT data set asks for an image processor
whenever the column is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sftrl_ext.errors import SftrlError, unknown_name
from sftrl_ext.files import parquet_errors

MESSAGE = pa.struct([("role", pa.string()), ("content", pa.string())])
"""One chat message."""

TRAINED_MESSAGE = pa.struct([*MESSAGE, ("loss_mask", pa.int8())])
"""One message of a dialogue of SFT; ``loss_mask`` is 1 where it carries loss, else 0.

The name and the values are those that verl's maintainers ask for in its issue 5316 and pull request 5472.
"""

SCHEMA = pa.schema(
    [
        ("data_source", pa.string()),
        ("agent_name", pa.string()),
        ("ability", pa.string()),
        ("prompt", pa.list_(MESSAGE)),
        ("messages", pa.list_(TRAINED_MESSAGE)),
        ("train_turns", pa.list_(pa.int64())),
        ("reward_model", pa.struct([("style", pa.string()), ("ground_truth", pa.string())])),
        (
            "extra_info",
            pa.struct(
                [("index", pa.int64()), ("split", pa.string()), ("seed", pa.int64()), ("facts", pa.string())]
            ),
        ),
    ]
)
"""Columns of text rows.

``prompt`` opens the episode. ``messages`` is the whole dialogue of an SFT row, empty in RL rows;
``train_turns`` are the indices into it of the assistant turns that carry loss, the same as their
``loss_mask``. ``reward_model.ground_truth``
and ``extra_info.facts`` are the same JSON text: verl hands the first to reward functions, the second to the
rollout.
"""

IMAGE_SCHEMA = SCHEMA.append(
    pa.field("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
)
"""Columns of rows that hold their pictures, one for each ``<image>`` in the user messages."""

LOSS_NOTE = (
    "only the messages that `train_turns` names carry loss, and only our data set of SFT reads it "
    "(data.custom_cls.path=pkg://sftrl_ext.training.sft_dataset): verl's own trains on every assistant "
    "message, failed attempts included"
)
"""Warning for users of rows with failed attempts."""

AGENT_NAME = "verifier"
"""The agent loop that plays every row."""


def check_schema(schema: pa.Schema, where: str | Path) -> pa.Schema:
    """Compare a schema with the expected one.

    Args:
        schema: Schema of a table or file.
        where: File name for the error.

    Returns:
        The schema it agrees with, `SCHEMA` or `IMAGE_SCHEMA`; messages may lack ``loss_mask``, which
        `with_loss_mask` adds.

    Raises:
        SftrlError: naming the first column that is missing, unexpected or of another type.
    """
    wanted = IMAGE_SCHEMA if "images" in schema.names else SCHEMA
    for field in wanted:
        if field.name not in schema.names:
            raise SftrlError(
                f"{where}: column {field.name!r} is missing; "
                f"found {', '.join(schema.names) or 'no columns'}; "
                f"expected {', '.join(wanted.names)}."
            )
        kind = schema.field(field.name).type
        if kind != field.type and (field.name, kind) != ("messages", pa.list_(MESSAGE)):
            raise SftrlError(f"{where}: column {field.name!r} has type {kind}, expected {field.type}.")
    for name in schema.names:
        if name not in wanted.names:
            raise SftrlError(f"{where}: unexpected column {name!r}; expected {', '.join(wanted.names)}.")
    return wanted


def read_schema(path: str | Path) -> pa.Schema:
    """Read a parquet file's schema and check it; see `check_schema`.

    Raises:
        SftrlError: also if there is no such file or it is not parquet.
    """
    with parquet_errors(path):
        schema = pq.read_schema(path)
    return check_schema(schema, path)


def iter_rows(
    path: str | Path, columns: list[str] | None = None, batch: int = 4096
) -> Iterator[dict[str, Any]]:
    """Rows of a parquet file, in constant memory."""
    with parquet_errors(path), pq.ParquetFile(path) as file:
        for part in file.iter_batches(batch_size=batch, columns=columns):
            yield from part.to_pylist()


def messages_array(roles: list[str], contents: list[pa.Array]) -> pa.ListArray:
    """Make a column of dialogues that all have the same roles.

    Args:
        roles: Role of each message, ``M`` of them.
        contents: For each message a string array over the ``N`` rows.

    Returns:
        A list array of ``N`` dialogues of ``M`` messages.
    """
    rows, width = len(contents[0]), len(roles)
    # Joined, message m of row n is entry m * rows + n; a list array needs the messages of a row side by side.
    order = pa.array([m * rows + n for n in range(rows) for m in range(width)], pa.int64())
    content = pa.concat_arrays(contents).take(order)
    role = pa.array(roles * rows, pa.string())
    flat = pa.StructArray.from_arrays([role, content], fields=list(MESSAGE))
    return pa.ListArray.from_arrays(pa.array(range(0, rows * width + 1, width), pa.int32()), flat)


def dialogues_array(roles: list[list[str]], texts: list[list[str]]) -> pa.ListArray:
    """Make a column of dialogues of different lengths.

    Args:
        roles: For each row the roles of its messages.
        texts: For each row the contents of its messages.
    """
    offsets = [0]
    for row in texts:
        offsets.append(offsets[-1] + len(row))
    role = pa.array([word for row in roles for word in row], pa.string())
    content = pa.array([text for row in texts for text in row], pa.string())
    flat = pa.StructArray.from_arrays([role, content], fields=list(MESSAGE))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), flat)


def with_loss_mask(table: pa.Table) -> pa.Table:
    """Set the ``loss_mask`` of every message as ``train_turns`` says.

    Args:
        table: Of `SCHEMA` or `IMAGE_SCHEMA`; messages may lack the mask.
    """
    table = table.combine_chunks()
    messages, turns = _lists(table["messages"]), _lists(table["train_turns"])
    lengths, counts = _lengths(messages), _lengths(turns)
    rows, turn = np.repeat(np.arange(len(messages)), counts), turns.flatten().fill_null(-1).to_numpy()
    inside = (turn >= 0) & (turn < lengths[rows])  # others are refused when the rows are checked
    starts = np.cumsum(lengths) - lengths
    flat = messages.flatten()
    mask = np.zeros(len(flat), np.int8)
    mask[starts[rows[inside]] + turn[inside]] = 1
    fields = [flat.field("role"), flat.field("content"), pa.array(mask)]
    trained = pa.StructArray.from_arrays(fields, fields=list(TRAINED_MESSAGE))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32())
    column = pa.ListArray.from_arrays(offsets, trained)
    return table.set_column(table.schema.get_field_index("messages"), SCHEMA.field("messages"), column)


def _lists(column: pa.ChunkedArray) -> pa.ListArray:
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _lengths(lists: pa.ListArray) -> np.ndarray:
    return lists.value_lengths().fill_null(0).to_numpy()


def constant(value: str | int, rows: int, kind: pa.DataType) -> pa.Array:
    """A column that has the same value in every row."""
    return pa.repeat(pa.scalar(value, kind), rows)


def rows_table(
    *,
    data_source: str,
    split: str,
    seed: int,
    index: pa.Array,
    facts: pa.Array,
    prompt: pa.Array,
    messages: pa.Array | None = None,
    train_turns: pa.Array | None = None,
    ability: str = "arithmetic",
) -> pa.Table:
    """Put columns together in `SCHEMA`.

    Args:
        data_source: Key that rewards and validation metrics go by.
        split: The split's own name.
        seed: Seed the hands were drawn from.
        index: int64, number of each row in its stream.
        facts: string, JSON of each row's facts.
        prompt: Opening messages.
        messages: Whole dialogues; None for RL rows.
        train_turns: Lists of indices into ``messages``; None for RL rows.
        ability: What verl groups by besides the data source.
    """
    rows = len(facts)
    nothing = pa.repeat(pa.scalar([], pa.list_(MESSAGE)), rows)
    no_turns = pa.repeat(pa.scalar([], SCHEMA.field("train_turns").type), rows)
    text, integer = pa.string(), pa.int64()
    reward_model = pa.StructArray.from_arrays(
        [constant("rule", rows, text), facts], fields=list(SCHEMA.field("reward_model").type)
    )
    extra = pa.StructArray.from_arrays(
        [index, constant(split, rows, text), constant(seed, rows, integer), facts],
        fields=list(SCHEMA.field("extra_info").type),
    )
    columns = [
        constant(data_source, rows, text),
        constant(AGENT_NAME, rows, text),
        constant(ability, rows, text),
        prompt,
        nothing if messages is None else messages,
        no_turns if train_turns is None else train_turns,
        reward_model,
        extra,
    ]
    return with_loss_mask(pa.Table.from_arrays(columns, names=SCHEMA.names))


def data_source(tasks: Mapping[str, str], modality: str, split: str) -> str:
    """The column ``data_source``: ``<task>/<split>``.

    Args:
        tasks: Modality to the task's name.
        modality: A key of ``tasks``.
        split: The split's name.

    Raises:
        SftrlError: if the modality is unknown.
    """
    if modality not in tasks:
        raise unknown_name("modality", modality, tasks)
    return f"{tasks[modality]}/{split}"
